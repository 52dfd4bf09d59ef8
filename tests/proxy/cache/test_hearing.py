"""What other processes write is not answered from memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from proxy import engine as engine_module
from proxy.cache import hearing as module
from proxy.cache.entry import Miss, StoreError
from proxy.cache.hearing import Hearing
from proxy.cache.policy import CacheSettings
from proxy.cache.redis import RedisStore
from proxy.clock import SystemClock
from proxy.engine import Engine, Gone, Place
from tests.proxy.cache.conftest import NOW, a_sealer
from tests.proxy.cache.stores import PREFIX, found, put
from tests.support.clock import FakeClock
from tests.support.engines import RunningRedis, redis_running

PATIENCE_SECONDS = 30.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries again soon."""
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(engine_module, "SILENCE_SECONDS", 0.05)


@dataclass
class Memory:
    """What it was told."""

    forgotten: list[bytes] = field(default_factory=list)
    remembers: list[bool] = field(default_factory=list)

    def forget(self, key: bytes) -> None:
        self.forgotten.append(key)

    def remember(self, hears: bool) -> None:
        self.remembers.append(hears)


@dataclass
class One:
    """A process."""

    engine: Engine
    store: RedisStore
    memory: Memory
    hearing: Hearing


@asynccontextmanager
async def a_process(at: RunningRedis) -> AsyncIterator[One]:
    clock = SystemClock()
    engine = Engine(Place.of(at.url), PREFIX, clock)
    store, memory = RedisStore(engine, a_sealer(), clock, CacheSettings()), Memory()
    one = One(engine, store, memory, Hearing(engine, store, memory))
    await one.hearing.start()
    try:
        yield one
    finally:
        await one.hearing.stop()
        await engine.aclose()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not holds():
            await asyncio.sleep(0.01)


async def test_what_another_process_writes_is_forgotten(redis: RunningRedis) -> None:
    """Its own it keeps."""
    async with a_process(redis) as one, a_process(redis) as other:
        await until(lambda: one.hearing.hears and other.hearing.hears)
        await put(one.store, b"k")
        await put(other.store, b"l")
        await until(lambda: one.memory.forgotten == [b"l"])
        await until(lambda: other.memory.forgotten == [b"k"])
        assert await found(one.store, b"l") == b"body"
        assert one.memory.remembers == [False, True]


async def test_silence_is_asked_about(redis: RunningRedis) -> None:
    """A connection that is gone without a word is found out; one that is there is kept."""
    async with a_process(redis) as one:
        await until(lambda: one.hearing.hears)
        pings = pinged(redis)
        await until(lambda: pinged(redis) > pings + 2)
        assert one.memory.remembers == [False, True]


def pinged(redis: RunningRedis) -> int:
    told = redis.say("info", "commandstats")
    return int(told.partition("cmdstat_ping:calls=")[2].partition(",")[0] or 0)


async def test_a_redis_that_stands_still_is_not_trusted() -> None:
    """What is in memory may be old: nothing is answered from there until it is heard again."""
    with redis_running() as running:
        async with a_process(running) as one:
            await until(lambda: one.hearing.hears)
            running.pause()
            await until(lambda: not one.hearing.hears)
            running.go_on()
            await until(lambda: one.hearing.hears)
            assert one.memory.remembers == [False, True, False, True]


async def test_a_redis_that_went_is_heard_again(caplog: pytest.LogCaptureFixture) -> None:
    """What was missed meanwhile is not in memory."""
    with redis_running() as running:
        async with a_process(running) as one:
            await until(lambda: one.hearing.hears)
            running.kill()
            await until(lambda: not one.hearing.hears)
            running.start_again()
            await until(lambda: one.hearing.hears)
            assert one.memory.remembers == [False, True, False, True]


async def test_while_commands_fail_nothing_is_heard(redis: RunningRedis) -> None:
    """The subscription may be to a Redis that has lost its place to another."""
    async with a_process(redis) as one:
        await until(lambda: one.hearing.hears)
        one.engine.fail(TimeoutError())
        await until(lambda: not one.hearing.hears)
        await until(lambda: one.hearing.hears)
        assert one.engine.up  # it is asked whether anybody calls or not


async def test_a_connection_that_was_renewed_has_missed_something(redis: RunningRedis) -> None:
    """The library connects again by itself: memory begins anew, and what is being looked up too."""
    async with a_process(redis) as one:
        await until(lambda: one.hearing.hears)
        redis.say("client", "kill", "type", "pubsub")
        await until(lambda: len(one.memory.remembers) > 2)
        await until(lambda: one.hearing.hears)
        assert one.memory.remembers[2:] in ([True], [False, True])


async def test_a_user_who_may_not_listen_is_told_once(
    redis: RunningRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything else works; nothing stays in memory."""
    redis.say("acl", "setuser", "mute", "on", ">pass", "~*", "&*", "+@all", "-subscribe")
    async with a_process(redis) as one:
        await one.hearing.stop()
        one.engine.place = Place.of(redis.url.replace("://", "://mute:pass@"))
        await one.engine.aclose()
        tries: list[str] = []
        heard = one.engine.heard

        def counted(channel: str) -> AsyncGenerator[bytes | None, None]:
            tries.append(channel)
            return heard(channel)

        one.engine.heard = counted  # type: ignore[method-assign]
        await one.hearing.start()
        await until(lambda: len(tries) > 3)
        await put(one.store)
        assert await found(one.store) == b"body"
    told = [one for one in caplog.records if one.name == "keyrelay.cache"]
    assert [(one.levelno, "NoPermission" in one.getMessage()) for one in told] == [
        (logging.WARNING, True)
    ]


async def test_a_user_who_may_not_tell_stores_nothing_and_keeps_nothing_in_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The others would go on with what was before; the right that is missing is named once."""
    with redis_running() as redis:
        async with a_process(redis) as one:
            await until(lambda: one.hearing.hears)
            await put(one.store)
            redis.say("acl", "setuser", "default", "-publish")
            with pytest.raises(StoreError, match="Redis refused"):
                await put(one.store, b"l")
            assert await found(one.store, b"l") is Miss.ABSENT
            redis.say("client", "kill", "type", "pubsub")
            await until(lambda: "such as +publish" in caplog.text)
            assert not one.hearing.hears
            redis.say("acl", "setuser", "default", "+publish")
            await until(lambda: one.hearing.hears)
            await put(one.store, b"l")
    assert caplog.text.count("such as +publish") == 1


async def test_a_fault_of_ours_does_not_end_it(
    redis: RunningRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told, and tried again."""
    async with a_process(redis) as one:
        await until(lambda: one.hearing.hears)
        hear, faults = one.hearing._hear, [KeyError(), KeyError()]

        def failing(news: bytes | None) -> None:
            if faults:
                raise faults.pop()
            hear(news)

        one.hearing._hear = failing  # type: ignore[method-assign]
        redis.say("client", "kill", "type", "pubsub")
        await until(lambda: not faults and one.hearing.hears)
    assert "KeyError" in caplog.text


async def test_one_that_never_began_ends() -> None:
    """A start may fail before."""
    engine = Engine(Place.of("redis://127.0.0.1:1"), PREFIX, FakeClock(NOW))
    store = RedisStore(engine, a_sealer(), FakeClock(NOW), CacheSettings())
    hearing = Hearing(engine, store, Memory())
    await hearing.stop()
    with pytest.raises(Gone):
        await engine.run(lambda client: client.ping())
    await engine.stop()
