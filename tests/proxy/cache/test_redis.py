"""Answers in Redis: sealed, whole or not there, the same for all processes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from proxy.cache import registers as module
from proxy.cache.entry import CacheStats, Found, Holding, Miss, StoreError
from proxy.cache.policy import CacheSettings
from proxy.cache.redis import VARIANTS, RedisStore
from proxy.cache.row import CHUNK
from proxy.cache.shelf import INLINE, tag_of
from proxy.engine import Engine, Place
from proxy.errors import UpstreamIncomplete
from tests.proxy.cache.conftest import NOW, a_sealer, until
from tests.proxy.cache.test_memory import an_entry, sending
from tests.proxy.cache.test_sqlite import Octets, body_of
from tests.support.clock import FakeClock
from tests.support.engines import RunningRedis
from vault import Purge
from vault.sealing import DataKey, KeyedSealer

LARGE = os.urandom(2 * CHUNK + 7)
PREFIX = "keyrelay-test"


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A purge looks once more at once."""
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.0)


@pytest.fixture
def empty(redis: RunningRedis) -> RunningRedis:
    """A Redis that nobody has written to."""
    redis.say("flushall")
    return redis


@asynccontextmanager
async def opened(
    at: RunningRedis, clock: FakeClock | None = None, **bounds: Any
) -> AsyncIterator[RedisStore]:
    sealer, clock = bounds.pop("sealer", None) or a_sealer(), clock or FakeClock(NOW)
    engine = Engine(Place.of(at.url), PREFIX, clock)
    store = RedisStore(engine, sealer, clock, CacheSettings(**bounds))
    try:
        await store.start()
        yield store
    finally:
        await store.close()
        await engine.aclose()


async def put(store: RedisStore, key: bytes = b"k", body: bytes = b"body", **changes: Any) -> None:
    times = {"requested_at": NOW, "made_at": NOW, "expires_at": NOW + 10}
    entry = an_entry(key, **{**times, "size": len(body), **changes})
    await store.put(entry, sending(entry.variant), Octets(body))


async def found(store: RedisStore, key: bytes = b"k", value: bytes = b"", now: float = NOW) -> Any:
    """The body, or why there is none."""
    answer = await store.get(key, sending(value), now)
    return answer if isinstance(answer, Miss) else await body_of(answer)


def names(at: RunningRedis, pattern: str = "*") -> list[str]:
    return at.say("--scan", "--pattern", pattern).split()


def chunks(at: RunningRedis, key: bytes = b"k") -> list[str]:
    return sorted(names(at, f"*{tag_of(key)}}}:*"))


async def test_an_entry_comes_back_as_it_went(empty: RunningRedis) -> None:
    """Status, fields in order with all their octets, times."""
    fields = ((b"b", b"\xff\x00"), (b"a", b"1"), (b"a", b""))
    async with opened(empty) as store:
        await put(store, fields=fields, status=203, made_at=NOW - 5)
        answer = await store.get(b"k", sending(), NOW)
    assert isinstance(answer, Found)
    assert answer.entry == an_entry(
        requested_at=NOW, made_at=NOW - 5, expires_at=NOW + 10, status=203, fields=fields
    )
    assert answer.body == b"body"


@pytest.mark.parametrize("size", [0, 1, INLINE, INLINE + 1, CHUNK, CHUNK + 1, len(LARGE)])
async def test_another_process_finds_it(empty: RunningRedis, size: int) -> None:
    """Of any size, whole."""
    async with opened(empty) as one, opened(empty) as other:
        await put(one, body=LARGE[:size])
        assert await found(other) == LARGE[:size]
        assert await found(other, b"l") is Miss.ABSENT


async def test_an_entry_is_over_at_its_time(empty: RunningRedis) -> None:
    """Contract 6: its own time must be ahead."""
    async with opened(empty) as store:
        assert await found(store) is Miss.ABSENT
        await put(store)
        assert await found(store, now=NOW + 9.9) == b"body"
        assert await found(store, now=NOW + 10) is Miss.OVER
        assert await found(store, now=NOW - 1000) == b"body"


async def test_variants_stand_side_by_side(empty: RunningRedis) -> None:
    """RFC 9111 section 4.1; what would have answered is replaced."""
    async with opened(empty) as store:
        await put(store, body=b"plain")
        await put(store, body=b"one", vary=b"user-agent", variant=b"1")
        await put(store, body=b"two", vary=b"user-agent", variant=b"2")
        assert await found(store, value=b"1") == b"one"
        assert await found(store, value=b"2") == b"two"
        assert await found(store, value=b"3") is Miss.VARIES
        await put(store, body=b"new", vary=b"user-agent", variant=b"2", expires_at=NOW + 5)
        assert await found(store, value=b"2", now=NOW + 6) is Miss.OVER
        assert (await store.stats()).entries == 2
