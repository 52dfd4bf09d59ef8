"""A frontend calls a backend through keyrelay, and the backend OpenAI, with the key it was sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import openai
import pytest

from proxy.clock import SystemClock
from tests.scenarios.sdks.compare import holds
from tests.scenarios.sdks.openai_rows import CHAT, CHAT_ANSWER, chunk
from tests.support.origin import SSE_HEADERS, Exchange, Origin, event, json_reply
from tests.support.relay import Running, running_relay

KEY = "sk-the-providers-own-key-0123456789"


@dataclass
class Backend:
    """A team's own service: asks OpenAI's SDK, with the key that it was sent, through keyrelay."""

    base_url: str = ""
    cache_status: list[str] = field(default_factory=list)

    async def answer(self, exchange: Exchange) -> None:
        said = exchange.request.header("authorization") or ""
        key = said.removeprefix("Bearer ")
        async with openai.AsyncOpenAI(base_url=self.base_url, api_key=key) as client:
            if exchange.request.path == "/stream":
                await self._stream(client, exchange)
            else:
                await self._whole(client, exchange)

    async def _whole(self, client: openai.AsyncOpenAI, exchange: Exchange) -> None:
        raw = await client.chat.completions.with_raw_response.create(**CHAT)
        self.cache_status.append(raw.headers["cache-status"])
        answer = raw.parse()
        text = answer.choices[0].message.content or ""
        await exchange.reply(200, [("Content-Type", "text/plain")], text.encode())

    async def _stream(self, client: openai.AsyncOpenAI, exchange: Exchange) -> None:
        await exchange.start(200, SSE_HEADERS)
        async for part in await client.chat.completions.create(**CHAT, stream=True):
            await exchange.chunk(event(part.choices[0].delta.content or ""))
        await exchange.finish()


@dataclass
class Provider:
    """OpenAI's double; its stream waits for `heard` before its second event."""

    heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, exchange: Exchange) -> None:
        if not exchange.request.json().get("stream"):
            await exchange.send(json_reply(CHAT_ANSWER))
            return
        await exchange.start(200, SSE_HEADERS)
        await exchange.chunk(event(chunk("Hello")))
        await exchange.wait(self.heard)
        await exchange.chunk(event(chunk(" there")) + event("[DONE]"))
        await exchange.finish()


@dataclass
class Scene:
    """All four: `frontend` is a plain client that holds only the platform token."""

    relay: Running
    provider: Provider
    openai: Origin
    backend: Backend
    team: Origin
    frontend: httpx.AsyncClient

    def url(self, path: str, options: str = "") -> str:
        return f"/proxy?server={self.team.url}{path}&service=openai{options}"

    def nobody_saw_the_token(self) -> bool:
        requests = (*self.team.requests, *self.openai.requests)
        return not any(holds(one, self.relay.token) for one in requests)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    provider, backend = Provider(), Backend()
    async with AsyncExitStack() as stack:
        theirs = await stack.enter_async_context(Origin(provider.answer))
        team = await stack.enter_async_context(Origin(backend.answer))
        services = {"openai": {"origin": theirs.url}}
        relay = await stack.enter_async_context(running_relay(tmp_path / "data", services))
        await relay.add_key("openai", key=KEY)
        await relay.add_backend("openai", team.url)
        fields = {"Authorization": f"Bearer {relay.token}"}
        frontend = await stack.enter_async_context(
            httpx.AsyncClient(base_url=relay.url, headers=fields)
        )
        until = int(SystemClock().now()) + 3600
        backend.base_url = f"{relay.url}/proxy?server={theirs.url}/v1&cache={until}"
        yield Scene(relay, provider, theirs, backend, team, frontend)


async def test_the_backend_pays_once(scene: Scene) -> None:
    """The key that a backend received is its credential; `cache=` makes the second call a hit."""
    answers = [await scene.frontend.post(scene.url("/ask")) for _ in range(2)]
    assert [answer.text for answer in answers] == ["Hello there", "Hello there"]
    assert [one.header("authorization") for one in scene.team.requests] == [f"Bearer {KEY}"] * 2
    [paid] = scene.openai.requests
    assert (paid.target, paid.header("authorization")) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert "fwd=uri-miss" in scene.backend.cache_status[0]
    assert "hit" in scene.backend.cache_status[1]
    assert scene.nobody_saw_the_token()


async def test_a_frontend_may_keep_the_whole(scene: Scene) -> None:
    """With `cache=` on the outer call the backend is not asked again either."""
    until = f"&cache={int(SystemClock().now()) + 3600}"
    answers = [await scene.frontend.post(scene.url("/ask", until)) for _ in range(2)]
    assert [answer.text for answer in answers] == ["Hello there", "Hello there"]
    assert "hit" in answers[1].headers["cache-status"]
    assert len(scene.team.requests) == len(scene.openai.requests) == 1


async def test_a_stream_runs_through_both(scene: Scene) -> None:
    """Event by event: the first has arrived before the provider sends its second."""
    async with scene.frontend.stream("POST", scene.url("/stream")) as answer:
        lines = answer.aiter_lines()
        assert await anext(lines) == "data: Hello"
        scene.provider.heard.set()
        assert [line async for line in lines if line] == ["data:  there"]


async def test_a_kept_stream_is_replayed_to_the_backend(scene: Scene) -> None:
    """The second time the provider isn't asked, and the events are the same."""
    scene.provider.heard.set()
    answers = [await scene.frontend.post(scene.url("/stream")) for _ in range(2)]
    assert answers[0].text == answers[1].text == "data: Hello\n\ndata:  there\n\n"
    assert len(scene.openai.requests) == 1
    assert scene.nobody_saw_the_token()


async def test_the_key_opens_nothing_else(scene: Scene) -> None:
    """A handed-out key is good for the service's own provider only, not for its backends."""
    fields = {"Authorization": f"Bearer {KEY}"}
    answer = await scene.frontend.post(scene.url("/ask"), headers=fields)
    assert answer.status_code == 403
    assert json.loads(answer.content)["error"]["type"] == "permission_error"
    assert scene.team.requests == []
