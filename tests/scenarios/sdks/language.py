"""anthropic, groq, together, mistralai, cohere, google-genai: chat, sync, async and streamed."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import cohere
import groq
import together
from google import genai
from google.genai import types
from mistralai.client import Mistral

from tests.scenarios.sdks.openai_rows import CHAT, CHAT_ANSWER, CHAT_STREAM, options
from tests.scenarios.sdks.row import Door, Sdk
from tests.support.origin import event, json_reply, sse

TEXT = "Hello there"
PARTS = ["Hello", " there"]

# anthropic

_ASK = {**CHAT, "model": "claude-opus-5-5", "max_tokens": 16}
_MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-opus-5-5",
    "content": [{"type": "text", "text": TEXT}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 2},
}


def _delta(text: str) -> dict[str, Any]:
    return {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": text},
    }


_MESSAGE_EVENTS: tuple[dict[str, Any], ...] = (
    {"type": "message_start", "message": {**_MESSAGE, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    _delta("Hello"),
    _delta(" there"),
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 2},
    },
    {"type": "message_stop"},
)
ANTHROPIC_ANSWER = json_reply(_MESSAGE)
ANTHROPIC_STREAM = sse([event(json.dumps(item), item["type"]) for item in _MESSAGE_EVENTS])


def _anthropic(door: Door) -> Any:
    with anthropic.Anthropic(**options(door)) as client:
        return client.messages.create(**_ASK).content[0].text


async def _anthropic_async(door: Door) -> Any:
    async with anthropic.AsyncAnthropic(**options(door)) as client:
        return (await client.messages.create(**_ASK)).content[0].text


def _anthropic_stream(door: Door) -> Any:
    with (
        anthropic.Anthropic(**options(door)) as client,
        client.messages.stream(**_ASK) as stream,
    ):
        return list(stream.text_stream)


async def _anthropic_async_stream(door: Door) -> Any:
    async with (
        anthropic.AsyncAnthropic(**options(door)) as client,
        client.messages.stream(**_ASK) as stream,
    ):
        return [text async for text in stream.text_stream]


# groq and together speak like OpenAI.


def _groq(door: Door) -> Any:
    with groq.Groq(**options(door)) as client:
        return client.chat.completions.create(**CHAT).choices[0].message.content


async def _groq_async(door: Door) -> Any:
    async with groq.AsyncGroq(**options(door)) as client:
        return (await client.chat.completions.create(**CHAT)).choices[0].message.content


def _groq_stream(door: Door) -> Any:
    with groq.Groq(**options(door)) as client:
        parts = client.chat.completions.create(**CHAT, stream=True)
        return [part.choices[0].delta.content for part in parts]


def _together(door: Door) -> Any:
    with together.Together(**options(door)) as client:
        return client.chat.completions.create(**CHAT).choices[0].message.content


async def _together_async(door: Door) -> Any:
    async with together.AsyncTogether(**options(door)) as client:
        return (await client.chat.completions.create(**CHAT)).choices[0].message.content


def _together_stream(door: Door) -> Any:
    with together.Together(**options(door)) as client:
        parts = client.chat.completions.create(**CHAT, stream=True)
        return [part.choices[0].delta.content for part in parts]


# mistralai


def _mistral(door: Door) -> Any:
    with Mistral(api_key=door.key, server_url=door.base_url) as client:
        return client.chat.complete(**CHAT).choices[0].message.content


async def _mistral_async(door: Door) -> Any:
    async with Mistral(api_key=door.key, server_url=door.base_url) as client:
        return (await client.chat.complete_async(**CHAT)).choices[0].message.content


def _mistral_stream(door: Door) -> Any:
    with Mistral(api_key=door.key, server_url=door.base_url) as client:
        return [part.data.choices[0].delta.content for part in client.chat.stream(**CHAT)]


async def _mistral_async_stream(door: Door) -> Any:
    async with Mistral(api_key=door.key, server_url=door.base_url) as client:
        parts = await client.chat.stream_async(**CHAT)
        return [part.data.choices[0].delta.content async for part in parts]


_MISTRAL_ANSWER = {
    **CHAT_ANSWER,
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}

# cohere

_COHERE_ANSWER = {
    "id": "1",
    "finish_reason": "COMPLETE",
    "message": {"role": "assistant", "content": [{"type": "text", "text": TEXT}]},
}


def _cohere_part(text: str) -> str:
    delta = {"message": {"content": {"text": text}}}
    return json.dumps({"type": "content-delta", "index": 0, "delta": delta})


_COHERE_STREAM = sse([_cohere_part(text) for text in PARTS])


def _cohere(door: Door) -> Any:
    with cohere.ClientV2(api_key=door.key, base_url=door.base_url, max_retries=0) as client:
        return client.chat(**CHAT).message.content[0].text


async def _cohere_async(door: Door) -> Any:
    made = cohere.AsyncClientV2(api_key=door.key, base_url=door.base_url, max_retries=0)
    async with made as client:
        return (await client.chat(**CHAT)).message.content[0].text


def _cohere_stream(door: Door) -> Any:
    with cohere.ClientV2(api_key=door.key, base_url=door.base_url, max_retries=0) as client:
        return [part.delta.message.content.text for part in client.chat_stream(**CHAT)]


# google-genai


def _candidate(text: str) -> dict[str, Any]:
    content = {"role": "model", "parts": [{"text": text}]}
    return {"candidates": [{"index": 0, "content": content}]}


_GEMINI = json_reply(_candidate(TEXT))
_GEMINI_STREAM = sse([json.dumps(_candidate(text)) for text in PARTS])


def google(door: Door) -> genai.Client:
    """A client of google-genai."""
    place = types.HttpOptions(base_url=door.base_url, api_version="v1beta")
    return genai.Client(api_key=door.key, http_options=place)


def _gemini(door: Door) -> Any:
    with google(door) as client:
        return client.models.generate_content(model="gemini-2.5-flash", contents="hi").text


async def _gemini_async(door: Door) -> Any:
    async with google(door).aio as client:
        answer = await client.models.generate_content(model="gemini-2.5-flash", contents="hi")
        return answer.text


def _gemini_stream(door: Door) -> Any:
    with google(door) as client:
        parts = client.models.generate_content_stream(model="gemini-2.5-flash", contents="hi")
        return [part.text for part in parts]


async def _gemini_async_stream(door: Door) -> Any:
    async with google(door).aio as client:
        parts = await client.models.generate_content_stream(model="gemini-2.5-flash", contents="hi")
        return [part.text async for part in parts]


_CHAT = json_reply(CHAT_ANSWER)


def _stainless(name: str, service: str, base: str, call: Any, answer: bytes, result: Any) -> Sdk:
    return Sdk(name, service, base, call, answer, result, default_query=True)


def _claude(what: str, call: Any, answer: bytes, result: Any) -> Sdk:
    return _stainless(f"anthropic {what}", "anthropic", "", call, answer, result)


def _mistralai(name: str, call: Any, answer: bytes, result: Any) -> Sdk:
    return Sdk(name, "mistral", "", call, answer, result, drops="query")


LANGUAGE = (
    _claude("messages", _anthropic, ANTHROPIC_ANSWER, TEXT),
    _claude("messages, async", _anthropic_async, ANTHROPIC_ANSWER, TEXT),
    _claude("messages, stream", _anthropic_stream, ANTHROPIC_STREAM, PARTS),
    _claude("messages, async stream", _anthropic_async_stream, ANTHROPIC_STREAM, PARTS),
    Sdk("google-genai generate", "google-gemini", "", _gemini, _GEMINI, TEXT),
    Sdk("google-genai generate, async", "google-gemini", "", _gemini_async, _GEMINI, TEXT),
    Sdk("google-genai stream", "google-gemini", "", _gemini_stream, _GEMINI_STREAM, PARTS),
    Sdk(
        "google-genai async stream",
        "google-gemini",
        "",
        _gemini_async_stream,
        _GEMINI_STREAM,
        PARTS,
    ),
    _mistralai("mistralai chat", _mistral, json_reply(_MISTRAL_ANSWER), TEXT),
    _mistralai("mistralai chat, async", _mistral_async, json_reply(_MISTRAL_ANSWER), TEXT),
    _mistralai("mistralai chat, stream", _mistral_stream, CHAT_STREAM, PARTS),
    _mistralai("mistralai chat, async stream", _mistral_async_stream, CHAT_STREAM, PARTS),
    Sdk("cohere chat", "cohere", "", _cohere, json_reply(_COHERE_ANSWER), TEXT),
    Sdk("cohere chat, async", "cohere", "", _cohere_async, json_reply(_COHERE_ANSWER), TEXT),
    Sdk("cohere chat, stream", "cohere", "", _cohere_stream, _COHERE_STREAM, PARTS),
    _stainless("groq chat", "groq", "", _groq, _CHAT, TEXT),
    _stainless("groq chat, async", "groq", "", _groq_async, _CHAT, TEXT),
    _stainless("groq chat, stream", "groq", "", _groq_stream, CHAT_STREAM, PARTS),
    _stainless("together chat", "together", "/v1", _together, _CHAT, TEXT),
    _stainless("together chat, async", "together", "/v1", _together_async, _CHAT, TEXT),
    _stainless("together chat, stream", "together", "/v1", _together_stream, CHAT_STREAM, PARTS),
)
