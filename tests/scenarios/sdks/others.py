"""replicate, elevenlabs, deepgram, assemblyai, tavily, exa, firecrawl, stripe, googlemaps."""

from __future__ import annotations

from typing import Any

import assemblyai
import googlemaps
import httpx
import replicate
import requests
import stripe
from deepgram import AsyncDeepgramClient, DeepgramClient, DeepgramClientEnvironment
from elevenlabs import AsyncElevenLabs, ElevenLabs
from exa_py import AsyncExa, Exa
from firecrawl import AsyncFirecrawl, Firecrawl
from tavily import AsyncTavilyClient, TavilyClient

from tests.scenarios.sdks.row import Door, Sdk
from tests.support.origin import chunked, json_reply

# replicate

_PREDICTION = {
    "id": "p1",
    "version": "v1",
    "model": "owner/name",
    "status": "succeeded",
    "input": {"prompt": "hi"},
    "output": ["a", "b"],
    "logs": "",
    "created_at": "2026-01-01T00:00:00Z",
    "urls": {},
}


def _replicate(door: Door) -> Any:
    client = replicate.Client(api_token=door.key, base_url=door.base_url)
    with client._client:
        return client.run("owner/name", input={"prompt": "hi"})


async def _replicate_async(door: Door) -> Any:
    client = replicate.Client(api_token=door.key, base_url=door.base_url)
    async with client._async_client:
        made = await client.models.predictions.async_create("owner/name", input={"prompt": "hi"})
        return made.output


# elevenlabs

_SOUND = chunked([b"\xff\xfbone", b"\x00two"], headers=[("Content-Type", "audio/mpeg")])
_SPOKEN = b"\xff\xfbone\x00two"


def _elevenlabs(door: Door) -> Any:
    with httpx.Client(follow_redirects=True) as http:
        client = ElevenLabs(api_key=door.key, base_url=door.base_url, httpx_client=http)
        return b"".join(client.text_to_speech.convert("voice1", text="hi", model_id="m"))


async def _elevenlabs_async(door: Door) -> Any:
    async with httpx.AsyncClient(follow_redirects=True) as http:
        client = AsyncElevenLabs(api_key=door.key, base_url=door.base_url, httpx_client=http)
        parts = client.text_to_speech.stream("voice1", text="hi", model_id="m")
        return b"".join([part async for part in parts])


# deepgram


def _told(door: Door) -> dict[str, Any]:
    base = door.base_url
    places = DeepgramClientEnvironment(base=base, production=base, agent=base, agent_rest=base)
    return {"api_key": door.key, "environment": places, "max_retries": 0}


_HEARD = {
    "metadata": {
        "request_id": "r",
        "sha256": "s",
        "created": "2026-01-01T00:00:00Z",
        "duration": 1.0,
        "channels": 1,
        "models": [],
        "model_info": {},
    },
    "results": {"channels": [{"alternatives": [{"transcript": "Hello there", "confidence": 1.0}]}]},
}


def _deepgram(door: Door) -> Any:
    with httpx.Client(follow_redirects=True) as http:
        client = DeepgramClient(**_told(door), httpx_client=http)
        media = client.listen.v1.media
        heard = media.transcribe_url(url="https://example.com/a.wav", model="nova-3")
        return heard.results.channels[0].alternatives[0].transcript


async def _deepgram_async(door: Door) -> Any:
    async with httpx.AsyncClient(follow_redirects=True) as http:
        client = AsyncDeepgramClient(**_told(door), httpx_client=http)
        media = client.listen.v1.media
        heard = await media.transcribe_file(request=b"RIFF\x00\xff", model="nova-3")
        return heard.results.channels[0].alternatives[0].transcript


# assemblyai

_TRANSCRIPT = {
    "id": "t1",
    "status": "completed",
    "audio_url": "https://example.com/a.wav",
    "text": "Hello there",
}


def _assemblyai(door: Door) -> Any:
    settings = assemblyai.Settings(api_key=door.key, base_url=door.base_url)
    client = assemblyai.Client(settings=settings)
    with client.http_client:
        return assemblyai.Transcriber(client=client).transcribe("https://example.com/a.wav").text


# tavily

_FOUND = {"query": "q", "results": [{"title": "T", "url": "https://example.com", "content": "c"}]}


def _tavily(door: Door) -> Any:
    client = TavilyClient(door.key, api_base_url=door.base_url)
    with client.session:
        return client.search("q")["results"][0]["title"]


async def _tavily_async(door: Door) -> Any:
    async with AsyncTavilyClient(door.key, api_base_url=door.base_url) as client:
        return (await client.search("q"))["results"][0]["title"]


# exa


def _exa(door: Door) -> Any:
    return Exa(door.key, base_url=door.base_url).search("q").results[0].title


async def _exa_async(door: Door) -> Any:
    async with AsyncExa(door.key, api_base=door.base_url) as client:
        return (await client.search("q")).results[0].title


# firecrawl: the newer blocking client keeps nothing of its base's path.

_SCRAPED = {"success": True, "data": {"markdown": "# T", "metadata": {}}}


def _firecrawl(door: Door) -> Any:
    return Firecrawl(door.key, api_url=door.base_url).scrape("https://example.com").markdown


def _firecrawl_v1(door: Door) -> Any:
    client = Firecrawl(door.key, api_url=door.base_url).v1
    return client.scrape_url("https://example.com").markdown


async def _firecrawl_async(door: Door) -> Any:
    client = AsyncFirecrawl(door.key, api_url=door.base_url, max_retries=1)
    try:
        return (await client.scrape("https://example.com")).markdown
    finally:
        await client._v2_client.async_http_client.close()


# stripe

_CUSTOMER = {"id": "cus_1", "object": "customer", "email": "a@example.com"}


def _stripe_client(door: Door, http: Any) -> stripe.StripeClient:
    base = {"api": door.base_url}
    return stripe.StripeClient(
        door.key, base_addresses=base, http_client=http, max_network_retries=0
    )


def _stripe(door: Door) -> Any:
    with requests.Session() as session:
        client = _stripe_client(door, stripe.RequestsClient(session=session))
        made = client.v1.customers.create({"email": "a@example.com", "metadata": {"k": "ü"}})
        return made.id


async def _stripe_async(door: Door) -> Any:
    http = stripe.HTTPXClient()
    try:
        customers = _stripe_client(door, http).v1.customers
        return (await customers.retrieve_async("cus_1", {"expand": ["tax"]})).id
    finally:
        await http.close_async()


# googlemaps

_PLACES = {"status": "OK", "results": [{"formatted_address": "Berlin, Germany"}]}
MAPS_KEY = "AIzaSyA0123456789abcdefghijklmnopqrstuv"


def _googlemaps(door: Door) -> Any:
    with requests.Session() as session:
        client = googlemaps.Client(
            key=door.key,
            base_url=door.base_url,
            requests_session=session,
            requests_kwargs={"headers": dict(door.fields)},
        )
        return client.geocode("Straße 1, Berlin")[0]["formatted_address"]


_TITLE = {"results": [{"title": "T", "url": "https://example.com", "id": "1"}], "requestId": "r"}


def _row(name: str, service: str, call: Any, answer: Any, result: Any, **more: Any) -> Sdk:
    octets = answer if isinstance(answer, bytes) else json_reply(answer)
    return Sdk(name, service, "", call, octets, result, **more)


_HELLO = "Hello there"
_OUTPUT = ["a", "b"]

OTHERS = (
    _row("replicate run", "replicate", _replicate, _PREDICTION, _OUTPUT, follows=False),
    _row(
        "replicate prediction, async",
        "replicate",
        _replicate_async,
        _PREDICTION,
        _OUTPUT,
        follows=False,
    ),
    _row("elevenlabs speech", "elevenlabs", _elevenlabs, _SOUND, _SPOKEN),
    _row("elevenlabs speech, async stream", "elevenlabs", _elevenlabs_async, _SOUND, _SPOKEN),
    _row("deepgram-sdk url", "deepgram", _deepgram, _HEARD, _HELLO, drops="query"),
    _row("deepgram-sdk file, async", "deepgram", _deepgram_async, _HEARD, _HELLO, drops="query"),
    _row("assemblyai transcript", "assemblyai", _assemblyai, _TRANSCRIPT, _HELLO, follows=False),
    _row("tavily-python search", "tavily", _tavily, _FOUND, "T"),
    _row("tavily-python search, async", "tavily", _tavily_async, _FOUND, "T", follows=False),
    _row("exa-py search", "exa", _exa, _TITLE, "T"),
    _row("exa-py search, async", "exa", _exa_async, _TITLE, "T", follows=False),
    _row("firecrawl-py scrape", "firecrawl", _firecrawl, _SCRAPED, "# T", drops="path"),
    _row("firecrawl-py scrape, v1", "firecrawl", _firecrawl_v1, _SCRAPED, "# T"),
    _row(
        "firecrawl-py scrape, async", "firecrawl", _firecrawl_async, _SCRAPED, "# T", follows=False
    ),
    _row("stripe create", "stripe", _stripe, _CUSTOMER, "cus_1"),
    _row(
        "stripe retrieve, async",
        "stripe",
        _stripe_async,
        _CUSTOMER,
        "cus_1",
        drops="query",
        follows=False,
    ),
    _row(
        "googlemaps geocode",
        "google-maps",
        _googlemaps,
        _PLACES,
        "Berlin, Germany",
        key=MAPS_KEY,
        checks_key=True,
    ),
)
