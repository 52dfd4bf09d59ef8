"""Every row of the table of contract section 2, from clients that are no SDKs."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import quote

import aiohttp
import httpx
import pytest
import pytest_asyncio
import requests

from proxy.clock import SystemClock
from tests.support.origin import Origin, json_reply
from tests.support.programs import need
from tests.support.relay import Running, running_relay

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "sk-the-providers-own-key-0123456789"
BODY = b'{"say": "Gr\xc3\xbc\xc3\x9fe"}'
ANSWER = {"said": True}
CALL = "/v1/chat/completions"

# Every one means POST /v1/chat/completions at the service's origin. O: the origin; E: the same
# percent-encoded; H: as two segments of a path; T: unix seconds. All but the plain path forms steer
# the cache, with `invalidate`, so that each reaches the provider.
FORMS = {
    "full URL": f"?server=O{CALL}&service=openai&cache=T&invalidate",
    "full URL, encoded": f"?server=E{quote(CALL, safe='')}&service=openai&cache=T&invalidate",
    "full URL, no service": f"?server=O{CALL}&cache=T&invalidate=true",
    "glued": "?server=O/v1&service=openai&invalidate&cache=T/chat/completions",
    "glued to a flag": "?server=O/v1&service=openai&cache=T&invalidate/chat/completions",
    "glued to the service": "?server=O/v1&invalidate&cache=T&service=openai/chat/completions",
    "glued to the server": "?service=openai&invalidate&cache=T&server=O/v1/chat/completions",
    "glued without a slash": "/?server=O/v1&service=openai&invalidate&cache=Tchat/completions",
    "glued and encoded": ("?server=E%2Fv1&service=openai&invalidate=&cache=T%2Fchat%2Fcompletions"),
    "glued to a flag and encoded": (
        "?server=E%2Fv1&service=openai&cache=T&invalidate%2Fchat%2Fcompletions="
    ),
    "path before the query": "/chat/completions?server=O/v1&service=openai&invalidate&cache=T",
    "service": f"/openai{CALL}",
    "service and options": f"/openai/cache=T/invalidate/-{CALL}",
    "service, options behind": f"/openai{CALL}?cache=T&invalidate",
    "host": f"/H{CALL}",
    "server in the path": f"/server=O{CALL}",
}
ONE_SLASH = f"/server=S{CALL}"


# Clients: each sends BODY to a URL with the token, and gives status and body.

Reply = tuple[int, bytes]
Client = Callable[[str, str], Awaitable[Reply]]


def _fields(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}


async def _curl(url: str, token: str) -> Reply:
    program = need("curl")
    given = [f'header = "{name}: {value}"' for name, value in _fields(token).items()]
    process = await asyncio.create_subprocess_exec(
        program,
        *("--silent", "--noproxy", "*", "--globoff", "--config", "-"),
        *("--write-out", "\n%{http_code}", "--data-binary", BODY.decode(), url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate("\n".join(given).encode())
    body, _, status = said.rpartition(b"\n")
    return int(status), body


async def _httpx(url: str, token: str) -> Reply:
    async with httpx.AsyncClient() as client:
        answer = await client.post(url, content=BODY, headers=_fields(token))
        return answer.status_code, answer.content


async def _requests(url: str, token: str) -> Reply:
    answer = await asyncio.to_thread(requests.post, url, BODY, headers=_fields(token), timeout=30)
    return answer.status_code, answer.content


async def _aiohttp(url: str, token: str) -> Reply:
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=BODY, headers=_fields(token)) as answer,
    ):
        return answer.status, await answer.read()


async def _urllib(url: str, token: str) -> Reply:
    def send() -> Reply:
        request = urllib.request.Request(url, BODY, _fields(token), method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()

    return await asyncio.to_thread(send)


CLIENTS: dict[str, Client] = {
    "curl": _curl,
    "httpx": _httpx,
    "requests": _requests,
    "aiohttp": _aiohttp,
    "urllib": _urllib,
}


@dataclass(frozen=True)
class Place:
    relay: Running
    origin: Origin

    def url(self, form: str) -> str:
        until = str(int(SystemClock().now()) + 3600)
        one_slash = self.origin.url.replace("//", "/")
        written = {
            "O": self.origin.url,
            "E": quote(self.origin.url, safe=""),
            "H": self.origin.url.replace("://", "/"),
            "S": one_slash,
            "T": until,
        }
        for letter, text in written.items():
            for before in ("=", "/"):
                form = form.replace(before + letter, before + text)
        return f"{self.relay.url}/proxy{form}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    data = tmp_path_factory.mktemp("forms") / "data"
    async with (
        Origin(json_reply(ANSWER)) as origin,
        running_relay(data, {"openai": {"origin": origin.url}}) as relay,
    ):
        await relay.add_key("openai", key=KEY)
        yield Place(relay, origin)


@pytest.mark.parametrize("client", [pytest.param(CLIENTS[name], id=name) for name in CLIENTS])
@pytest.mark.parametrize("form", [pytest.param(FORMS[name], id=name) for name in FORMS])
async def test_every_form_means_the_same(place: Place, form: str, client: Client) -> None:
    """One call of the provider, with its key, the body untouched and no trace of the token."""
    before = len(place.origin.requests)
    status, body = await client(place.url(form), place.relay.token)
    assert (status, json.loads(body)) == (200, ANSWER)
    [seen] = place.origin.requests[before:]
    assert (seen.method, seen.target, seen.body) == ("POST", CALL, BODY)
    assert seen.all("authorization") == [f"Bearer {KEY}"]
    assert place.relay.token.encode() not in seen.raw


async def test_an_older_form_may_have_lost_a_slash(place: Place) -> None:
    """`https:/` is what is left of `https://` where something on the way merges slashes."""
    status, _ = await _httpx(place.url(ONE_SLASH), place.relay.token)
    assert (status, place.origin.last.target) == (200, CALL)


async def test_two_question_marks_are_one_query(place: Place) -> None:
    """google-genai's `?alt=sse` and the query of its base_url; the first stays the target's."""
    form = "/v1beta/x:streamGenerateContent?alt=sse?server=O&service=openai&invalidate&cache=T"
    status, _ = await _httpx(place.url(form), place.relay.token)
    target = place.origin.last.target
    assert (status, target) == (200, "/v1beta/x:streamGenerateContent?alt=sse")


async def test_the_cache_is_steered_by_every_client(place: Place) -> None:
    """Each client hits its own entry: they ask for different media types and content codings."""
    url = place.url("/openai/cache=T/-/v1/kept")
    before = len(place.origin.requests)
    for client in (_httpx, _httpx, _urllib, _urllib):
        assert await client(url, place.relay.token) == (200, json.dumps(ANSWER).encode())
    assert len(place.origin.requests) - before == 2


async def test_a_lost_query_is_explained(place: Place) -> None:
    """A 400 that names the likely causes, an SDK's base_url and a shell."""
    status, body = await _httpx(f"{place.relay.url}/proxy", place.relay.token)
    assert status == 400
    assert "base_url" in json.loads(body)["detail"]
    assert "shell" in json.loads(body)["detail"]


async def test_a_shell_that_cuts_is_explained(place: Place) -> None:
    """Without its token too: 401 comes first, and says so."""
    status, body = await _httpx(place.url(f"?server=O{CALL}"), "none")
    assert status == 401
    assert "shell" in json.loads(body)["detail"]
