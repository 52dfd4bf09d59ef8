from __future__ import annotations

import asyncio
import logging
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

import pytest

from proxy import engine as engine_room
from proxy.engine import AT_ONCE, PAUSE_SECONDS, Engine, Gone, Place, Refused, Script
from tests.support.clock import FakeClock
from tests.support.engines import RunningRedis, redis_running
from tests.support.redises import until

PASSWORD = "open-sesame"


@pytest.fixture
async def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def engine(redis: RunningRedis, clock: FakeClock) -> AsyncIterator[Engine]:
    one = Engine(Place.of(redis.url), "keyrelay-test", clock)
    yield one
    await one.aclose()


async def test_a_command_is_answered(engine: Engine) -> None:
    """By the real one; a name holds its slot in a cluster."""
    key = engine.key("room", "tag", "rest")
    assert key == "keyrelay-test:{room:tag}:rest"
    assert await engine.run(lambda client: client.set(key, b"1"))
    assert await engine.run(lambda client: client.get(key)) == b"1"


async def test_what_redis_refuses_closes_nothing(engine: Engine) -> None:
    """It is there: the next command is asked."""
    with pytest.raises(Refused, match="ResponseError"):
        await engine.run(lambda client: client.execute_command("NONSENSE"))
    assert engine.up
    assert await engine.run(lambda client: client.ping())


async def test_an_error_of_ours_is_no_outage(engine: Engine) -> None:
    """It comes through as it is."""

    async def wrong(_client: Any) -> None:
        raise KeyError("ours")

    with pytest.raises(KeyError):
        await engine.run(wrong)
    assert engine.up


async def test_after_a_failure_nobody_asks_for_a_while_and_then_one(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The breaker: one line in the log each way, and whoever wants to know is told."""
    back = []
    with redis_running() as running:
        engine = Engine(Place.of(running.url), "keyrelay-test", clock)
        engine.when_back(lambda: back.append(1))
        await engine.run(lambda client: client.ping())
        running.kill()
        for _ in range(3):
            with pytest.raises(Gone):
                await engine.run(lambda client: client.ping())
        assert not engine.up
        running.start_again()
        running.wait()
        with pytest.raises(Gone, match="a moment ago"):
            await engine.run(lambda client: client.ping())
        clock.advance(PAUSE_SECONDS)
        assert await engine.run(lambda client: client.ping())
        await engine.aclose()
    assert (engine.up, back) == (True, [1])
    assert [one.levelno for one in caplog.records] == [logging.ERROR, logging.WARNING]


async def test_while_one_asks_again_the_others_do_not(clock: FakeClock) -> None:
    """A Redis that stands still holds up one call a second, not all."""
    engine = Engine(Place.of("redis://127.0.0.1:1"), "keyrelay-test", clock)
    engine.fail(TimeoutError())
    clock.advance(PAUSE_SECONDS)
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_client: Any) -> str:
        asked.set()
        await go_on.wait()
        return "there"

    first = asyncio.create_task(engine.run(slow, seconds=60))
    await asked.wait()
    with pytest.raises(Gone, match="a moment ago"):
        await engine.run(slow)
    go_on.set()
    assert await first == "there"
    assert engine.up


async def test_who_had_no_turn_in_time_is_no_outage(engine: Engine) -> None:
    """Many ask at once: Redis is not to blame."""
    go_on, asked = asyncio.Event(), []

    async def slow(_client: Any) -> None:
        asked.append(1)
        await go_on.wait()

    busy = [asyncio.create_task(engine.run(slow, seconds=60)) for _ in range(AT_ONCE)]
    while len(asked) < AT_ONCE:
        await asyncio.sleep(0)
    with pytest.raises(Gone, match="too many"):
        await engine.run(lambda client: client.ping(), seconds=0.01)
    assert engine.up
    go_on.set()
    await asyncio.gather(*busy)


async def test_one_that_stands_still_is_given_up(clock: FakeClock) -> None:
    """The deadline of a command; it goes on by itself after."""
    with redis_running() as running:
        engine = Engine(Place.of(running.url), "keyrelay-test", clock)
        await engine.run(lambda client: client.ping())
        running.pause()
        with pytest.raises(Gone, match="no answer in time"):
            await engine.run(lambda client: client.ping(), seconds=0.2)
        running.go_on()
        clock.advance(PAUSE_SECONDS)
        assert await engine.run(lambda client: client.ping(), seconds=30)
        await engine.aclose()


async def test_a_password_and_tls_are_spoken(clock: FakeClock) -> None:
    """As the URL says; a wrong password is an outage, named without it."""
    with redis_running("--requirepass", PASSWORD) as running:
        place = running.url.replace("://", f"://:{PASSWORD}@")
        engine = Engine(Place.of(place), "keyrelay-test", clock)
        assert await engine.run(lambda client: client.ping())
        await engine.aclose()
        wrong = Engine(Place.of(place.replace("open", "shut")), "keyrelay-test", clock)
        with pytest.raises(Gone) as refused:
            await wrong.run(lambda client: client.ping())
        await wrong.aclose()
    assert "sesame" not in str(refused.value)
    assert not wrong.up


async def test_a_replica_is_asked_with_a_write_whether_it_is_the_master_again(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It answers who reads, before and after: the log doesn't flap, and tells what to do."""
    with redis_running() as running:
        engine = Engine(Place.of(running.url), "keyrelay-test", clock)
        running.say("replicaof", "127.0.0.1", "1")
        reading, go_on = asyncio.Event(), asyncio.Event()

        async def read(client: Any) -> Any:
            reading.set()
            await go_on.wait()
            return await client.get("k")

        reader = asyncio.create_task(engine.run(read, seconds=60))
        await reading.wait()
        for _ in range(3):
            with pytest.raises(Gone, match=r"ReadOnlyError \(it is a replica"):
                await engine.run(lambda client: client.set("k", b""))
            clock.advance(PAUSE_SECONDS)
            with pytest.raises(Gone, match="ReadOnlyError"):
                await engine.run(lambda client: client.ping())
            clock.advance(PAUSE_SECONDS)
        go_on.set()
        assert await reader is None
        assert not engine.up
        running.say("replicaof", "no", "one")
        assert await engine.run(lambda client: client.ping())
        await engine.aclose()
    assert engine.up
    assert [one.levelno for one in caplog.records] == [logging.ERROR, logging.WARNING]


async def test_one_that_reads_its_data_is_not_there_before_it_has(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Meanwhile it takes what is said to others, and that is no answer: the log doesn't flap."""
    with redis_running() as running:
        fill = "for i = 1, 3000 do redis.call('SET', 'k' .. i, string.rep('x', 100)) end"
        running.say("eval", fill, "0")
        running.say("config", "set", "rdbcompression", "no")
        running.say("save")
        running.kill()
        running.command += ["--key-load-delay", "10000"]
        running.command += ["--loading-process-events-interval-bytes", "1024"]
        running.start_again()
        until(lambda: said(running, "ping").startswith("LOADING"))
        engine = Engine(Place.of(running.url), "keyrelay-test", clock)
        for _ in range(3):
            with pytest.raises(Gone, match=r"BusyLoadingError \(it reads its data"):
                await engine.run(lambda client: client.get("k1"))
            clock.advance(PAUSE_SECONDS)
            with pytest.raises(Gone, match="BusyLoadingError"):
                await engine.run(lambda client: client.publish("news", b"a word"))
            clock.advance(PAUSE_SECONDS)
        running.say("config", "set", "key-load-delay", "0")
        until(lambda: said(running, "ping") == "PONG")
        assert await engine.run(lambda client: client.exists("k1"))
        await engine.aclose()
    assert engine.up
    assert [one.levelno for one in caplog.records] == [logging.ERROR, logging.WARNING]


async def test_one_that_was_a_replica_is_there_again_though_it_has_no_room(
    clock: FakeClock,
) -> None:
    """It refuses the write that tells it from a replica, and serves who reads."""
    with redis_running() as running:
        engine = Engine(Place.of(running.url), "keyrelay-test", clock)
        running.say("replicaof", "127.0.0.1", "1")
        with pytest.raises(Gone, match="ReadOnlyError"):
            await engine.run(lambda client: client.set("k", b""))
        running.say("replicaof", "no", "one")
        running.say("config", "set", "maxmemory", "1")
        clock.advance(PAUSE_SECONDS)
        assert await engine.run(lambda client: client.ping())
        assert engine.up
        with pytest.raises(Refused, match="OutOfMemoryError"):
            await engine.run(lambda client: client.set("k", b""))
        await engine.aclose()


def said(running: RunningRedis, word: str) -> str:
    """Nothing, as long as it is not there."""
    with suppress(subprocess.CalledProcessError):
        return running.say(word)
    return ""


async def test_a_right_that_a_script_lacks_is_named_too(clock: FakeClock) -> None:
    """Redis says that in other words."""
    with redis_running() as running:
        running.say("acl", "setuser", "default", "-set")
        engine = Engine(Place.of(running.url), "keyrelay-test", clock)
        script = Script("return redis.call('SET', KEYS[1], 'secret-value')")
        with pytest.raises(Refused, match=r"ResponseError \(give its user the rights") as seen:
            await engine.script(script, ["secret-name"])
        await engine.aclose()
    assert "secret" not in str(seen.value)


async def test_what_is_said_is_heard_where_nothing_can_be_written(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that can't write its dump takes neither writes nor a PING, and tells what others say."""
    monkeypatch.setattr(engine_room, "SILENCE_SECONDS", 0.05)
    monkeypatch.setattr(engine_room, "DEADLINE_SECONDS", 30.0)
    with redis_running() as running:
        engine = Engine(Place.of(running.url), "keyrelay-test", clock)
        cannot_dump(running)
        async with aclosing(engine.heard("news")) as heard:
            assert await anext(heard) is None
            word = asyncio.create_task(anext(heard))
            before = refused_by(running)
            async with asyncio.timeout(30):
                while refused_by(running) < before + 2:
                    await asyncio.sleep(0.01)
            assert not word.done()
            running.say("publish", "news", "a word")
            assert await word == b"a word"
        with pytest.raises(Refused, match=r"ResponseError \(it can't write its dump"):
            await engine.run(lambda client: client.set("k", b""))
        await engine.aclose()
        running.say("config", "set", "save", "")  # it would not end without a dump


def cannot_dump(running: RunningRedis) -> None:
    """Its folder takes nothing, and it has found that out."""
    running.folder.chmod(0o555)
    running.say("config", "set", "save", "3600 1")
    running.say("bgsave")
    until(lambda: "rdb_last_bgsave_status:err" in running.say("info", "persistence"))


def refused_by(running: RunningRedis) -> int:
    """How many commands for that reason."""
    found = re.search(r"errorstat_MISCONF:count=(\d+)", running.say("info", "errorstats"))
    return int(found[1]) if found else 0


@pytest.mark.parametrize(
    ("do", "told"),
    [
        (("acl", "setuser", "default", "-set"), "NoPermissionError (give its user the rights"),
        (("config", "set", "maxmemory", "1"), "OutOfMemoryError (raise its maxmemory"),
        (("config", "set", "requirepass", PASSWORD), "AuthenticationError (put the user and"),
        (("config", "set", "min-replicas-to-write", "1"), "ResponseError (too few replicas"),
    ],
)
async def test_an_error_says_what_to_do(clock: FakeClock, do: tuple[str, ...], told: str) -> None:
    """By its kind alone."""
    with redis_running() as running:
        running.say(*do)
        engine = Engine(Place.of(running.url), "keyrelay-test", clock)
        with pytest.raises(Gone, match=re.escape(told)) as seen:
            await engine.run(lambda client: client.set("secret-name", b"secret-value"))
        await engine.aclose()
    assert "secret" not in str(seen.value)


async def test_one_that_does_not_run_says_where_to_look(clock: FakeClock) -> None:
    """Nobody listens there."""
    engine = Engine(Place.of("redis://127.0.0.1:1"), "keyrelay-test", clock)
    with pytest.raises(Gone, match="look whether it runs"):
        await engine.run(lambda client: client.ping())
    await engine.aclose()


async def test_a_failure_counts_once_for_all_who_asked_together(engine: Engine) -> None:
    """And who was not asked at all has seen none."""
    asking = [asyncio.create_task(engine.ask("PING")) for _ in range(3)]
    await asyncio.sleep(0)
    engine.fail(TimeoutError())
    for one in asking:
        with pytest.raises(Gone, match="a moment ago"):
            await one
    assert engine.failures == 1
