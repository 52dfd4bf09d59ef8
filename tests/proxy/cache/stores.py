"""A store of each kind, answers to keep in it, and what it gives back of them."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from proxy.cache.entry import Entry, Found, Miss, Store
from proxy.cache.policy import CacheSettings
from proxy.cache.redis import RedisStore
from proxy.cache.row import CHUNK
from proxy.cache.shelf import INLINE, tag_of
from proxy.cache.sqlite import SqliteStore
from proxy.engine import Engine, Place
from tests.proxy.cache.conftest import NOW, a_sealer
from tests.support.clock import FakeClock
from tests.support.engines import RunningRedis

LARGE = os.urandom(2 * CHUNK + 7)
SIZES = (0, 1, INLINE, INLINE + 1, CHUNK, CHUNK + 1, len(LARGE))
PREFIX = "keyrelay-test"


@asynccontextmanager
async def on_disk(
    path: Path, clock: FakeClock | None = None, **bounds: Any
) -> AsyncIterator[SqliteStore]:
    """One in a directory."""
    sealer = bounds.pop("sealer", None) or a_sealer()
    store = SqliteStore(path / "cache.db", sealer, clock or FakeClock(NOW), CacheSettings(**bounds))
    try:
        await store.start()
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def in_redis(
    at: RunningRedis, clock: FakeClock | None = None, **bounds: Any
) -> AsyncIterator[RedisStore]:
    """One in Redis, which others may use too."""
    sealer, clock = bounds.pop("sealer", None) or a_sealer(), clock or FakeClock(NOW)
    engine = patient(at, clock)
    store = RedisStore(engine, sealer, clock, CacheSettings(**bounds))
    try:
        await store.start()
        yield store
    finally:
        await store.close()
        await engine.aclose()


def patient(at: RunningRedis, clock: FakeClock) -> Engine:
    """An engine that a slow machine does not make impatient."""
    engine = Engine(Place.of(at.url), PREFIX, clock)
    engine.run = partial(engine.run, seconds=60.0)  # type: ignore[method-assign]
    engine.ask = partial(engine.ask, seconds=60.0)  # type: ignore[method-assign]
    return engine


def chunks(at: RunningRedis, key: bytes = b"k") -> list[str]:
    """The names of the pieces of a large answer."""
    return sorted(at.say("--scan", "--pattern", f"*{tag_of(key)}}}:*").split())


class Octets:
    """A body to store; `breaks` stops it half-way."""

    def __init__(self, octets: bytes, breaks: BaseException | None = None) -> None:
        self.octets = octets
        self.breaks = breaks

    async def blocks(self, size: int) -> AsyncGenerator[bytes, None]:
        for start in range(0, len(self.octets), size):
            yield self.octets[start : start + size]
            if self.breaks is not None:
                raise self.breaks


def an_entry(key: bytes = b"k", **changes: Any) -> Entry:
    return Entry(
        **{
            "key": key,
            "vary": b"",
            "variant": b"",
            "tenant": "t",
            "service": "s",
            "requested_at": NOW,
            "made_at": NOW,
            "expires_at": NOW + 10,
            "status": 200,
            "fields": (),
            "size": 4,
            **changes,
        }
    )


def sending(value: bytes = b"") -> Any:
    """What a request sent in whatever names an answer varies by."""
    return lambda vary: value if vary else b""


async def put(store: Store, key: bytes = b"k", body: bytes = b"body", **changes: Any) -> None:
    entry = an_entry(key, **{"size": len(body), **changes})
    await store.put(entry, sending(entry.variant), Octets(body))


async def found(store: Store, key: bytes = b"k", value: bytes = b"", now: float = NOW) -> Any:
    """The body, or why there is none."""
    answer = await store.get(key, sending(value), now)
    return answer if isinstance(answer, Miss) else await body_of(answer)


async def body_of(answer: Found) -> bytes:
    if isinstance(answer.body, bytes):
        return answer.body
    try:
        return b"".join([chunk async for chunk in answer.body])
    finally:
        answer.body.close()
