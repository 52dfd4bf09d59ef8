"""Calls of every kind, whole and broken, each on a connection of its own; and who answers them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from itertools import count
from typing import Final

from tests.attack.callers import LARGE_BYTES, Ground
from tests.attack.swarm import LARGE, SMALL
from tests.support.caller import Answered, Caller
from tests.support.origin import LAST_CHUNK, Exchange, chunk, event, head, reply

LATER: Final = 9_999_999_999
EVENTS: Final = [event(json.dumps({"number": number, "text": "x" * 100})) for number in range(20)]
BOMB_BYTES: Final = 512 * 2**20
"""Octets of one bomb once it is inflated: half a megabyte on the wire."""

_numbers = count(1)


def _bomb() -> bytes:
    packing = zlib.compressobj(9, wbits=31)
    parts = [packing.compress(b'{"usage": ')]
    parts += [packing.compress(b" " * 2**20) for _ in range(BOMB_BYTES // 2**20)]
    return b"".join([*parts, packing.flush()])


class Upstream:
    """Answers by the last word of the path. `answering`: how many answers have not ended."""

    def __init__(self, bomb: bytes = b"") -> None:
        self._bomb = bomb
        self.answering = 0

    async def __call__(self, exchange: Exchange) -> None:
        kind = exchange.request.path.rsplit("/", 1)[1]
        self.answering += 1
        try:
            await getattr(self, f"_{kind}", self._small)(exchange)
        finally:
            self.answering -= 1

    async def _small(self, exchange: Exchange) -> None:
        await exchange.send(reply(200, [("Content-Type", "application/json")], b'{"ok": true}'))

    async def _large(self, exchange: Exchange) -> None:
        await exchange.send(reply(200, [], b"x" * LARGE_BYTES))

    async def _stream(self, exchange: Exchange) -> None:
        await exchange.send(_stream_head())
        for one in EVENTS:
            await exchange.send(chunk(one))
        await exchange.send(LAST_CHUNK)

    async def _endless(self, exchange: Exchange) -> None:
        await exchange.send(_stream_head())
        while True:
            await exchange.send(chunk(b"x" * 4096))
            await asyncio.sleep(0.01)

    async def _cut(self, exchange: Exchange) -> None:
        await exchange.send(head(200, [("Content-Length", "100000")]) + b"x" * 20_000)
        exchange.abort()

    async def _reset(self, exchange: Exchange) -> None:
        exchange.abort()

    async def _bomb_(self, exchange: Exchange) -> None:
        coded = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")]
        await exchange.send(reply(200, coded, self._bomb))


def _stream_head() -> bytes:
    fields = [("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked")]
    return head(200, fields)


def bombing() -> Upstream:
    """One that has a bomb, which takes a second to make."""
    return Upstream(_bomb())


@contextlib.asynccontextmanager
async def connected(here: Ground) -> AsyncIterator[Caller]:
    """Goes with a reset: no port of this machine waits for minutes."""
    caller = await Caller.connect(here.up.url, here.tls)
    try:
        yield caller
    finally:
        caller.writer.transport.abort()


async def ask(here: Ground, method: str, target: str, *fields: tuple[str, str]) -> Answered:
    """One call, read to its end."""
    async with connected(here) as caller:
        await caller.request(method, target, *(fields or (here.credential,)))
        return await caller.answer(method)


# Whole ones.


async def hit(here: Ground) -> None:
    """Of what is kept."""
    assert (await ask(here, "GET", SMALL)).status == 200


async def large(here: Ground) -> None:
    """A hit too, of what is kept on disk alone."""
    assert (await ask(here, "GET", LARGE)).status == 200


async def miss(here: Ground) -> None:
    """Kept for nobody who comes again."""
    target = f"/proxy/openai/cache={LATER}/-/small?n={next(_numbers)}"
    assert (await ask(here, "GET", target)).status == 200


async def forward(here: Ground) -> None:
    """Kept nowhere, with a body."""
    async with connected(here) as caller:
        body = b"x" * 10_000
        await caller.request("POST", "/proxy/openai/v1/small", here.credential, body=body)
        assert (await caller.answer()).status == 200


async def stream(here: Ground) -> None:
    """Event by event."""
    answer = await ask(here, "GET", "/proxy/openai/v1/stream")
    assert answer.body == b"".join(EVENTS)


async def stranger(here: Ground) -> None:
    """Without a token."""
    assert (await ask(here, "GET", SMALL, ("X-Nobody", "1"))).status == 401


async def bomb(here: Ground) -> None:
    """Passes as it is."""
    answer = await ask(here, "GET", "/proxy/openai/v1/bomb_")
    assert answer.status == 200
    assert answer.complete


# Broken ones.


async def leave(here: Ground) -> None:
    """In the middle of an answer that has no end."""
    async with connected(here) as caller:
        await caller.request("GET", "/proxy/openai/v1/endless", here.credential)
        assert (await caller.head()).status == 200
        await caller.chunk()


async def leave_sending(here: Ground) -> None:
    """In the middle of a body."""
    async with connected(here) as caller:
        length = ("Content-Length", "100000")
        await caller.request("POST", "/proxy/openai/v1/small", here.credential, length)
        await caller.send(b"x" * 20_000)


async def leave_at_once(here: Ground) -> None:
    """Before there is an answer. It is kept all the same: one without an end would go on."""
    target = f"/proxy/openai/cache={LATER}/-/stream?n={next(_numbers)}"
    async with connected(here) as caller:
        await caller.request("GET", target, here.credential)


async def cut(here: Ground) -> None:
    """By the upstream, in the middle: the answer doesn't look whole."""
    assert not (await ask(here, "GET", "/proxy/openai/v1/cut")).complete


async def reset(here: Ground) -> None:
    """By the upstream, before its answer."""
    assert (await ask(here, "GET", "/proxy/openai/v1/reset")).status == 502


# What an admin does meanwhile.


async def revoke(here: Ground) -> None:
    """A token that was issued and used just now."""
    api, name = "/admin/api/v1/tokens", f"soak-{next(_numbers)}"
    async with connected(here) as caller:
        body = json.dumps({"name": name}).encode()
        kind = ("Content-Type", "application/json")
        bearer = ("Authorization", f"Bearer {here.token}")
        await caller.request("POST", api, bearer, kind, body=body)
        answer = await caller.answer()
        assert answer.status == 201, answer.body
        told = answer.json()
        await caller.request("GET", SMALL, ("X-Relay-Token", told["token"]))  # of the same worker
        used = await caller.answer()
        assert used.status in (200, 403), used.body
        await caller.request("DELETE", f"{api}/{told['id']}", bearer)
        assert (await caller.answer()).status in (200, 204)


async def reload(here: Ground) -> None:
    """Another bound, which is taken up within a second."""
    path, number = here.data / "keys.yaml", next(_numbers)
    lines = [line for line in path.read_text().splitlines() if not line.startswith("limits:")]
    there = path.with_suffix(".new")
    there.write_text("\n".join([*lines, f"limits: {{queue_length: {1000 + number % 100}}}", ""]))
    there.rename(path)


Act = Callable[[Ground], Awaitable[None]]

BROKEN: Final = (leave, leave_sending, leave_at_once, cut, reset)
MIXED: Final[Mapping[Act, int]] = {
    hit: 40,
    miss: 10,
    forward: 10,
    stream: 10,
    stranger: 5,
    leave: 5,
    leave_sending: 5,
    leave_at_once: 5,
    cut: 5,
    reset: 5,
}
"""How often each is drawn."""
