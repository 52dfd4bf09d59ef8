"""Questions that go together: none waits for its own round trip, none fails for another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from proxy.engine import PAUSE_SECONDS, Engine, Gone, Place, Refused, Script
from proxy.loads import MOST, UNDER_WAY, Loads, Words
from tests.support.clock import FakeClock
from tests.support.engines import RunningRedis, redis_running

SECONDS = 60.0


class Way:
    """Holds loads up until it is told to let them go."""

    def __init__(self) -> None:
        self.loads: list[list[Words]] = []
        self.open = asyncio.Event()

    async def carry(self, commands: Sequence[Words]) -> Sequence[Any]:
        self.loads.append(list(commands))
        await self.open.wait()
        return [words[0] for words in commands]


async def until_held(way: Way, count: int) -> None:
    while len(way.loads) < count:
        await asyncio.sleep(0)


async def test_what_is_asked_in_one_turn_is_one_load() -> None:
    """In its order."""
    way = Way()
    way.open.set()
    loads = Loads(way.carry)
    asked = [loads.ask((number,)) for number in range(3)]
    assert [await one.answer for one in asked] == [0, 1, 2]
    assert way.loads == [[(0,), (1,), (2,)]]


async def test_what_is_asked_as_the_last_loads_come_back_goes_too() -> None:
    """Whoever was answered asks on at once: those that brought the answer are done, and look no
    more, but are not gone yet."""
    way = Way()
    loads = Loads(way.carry)
    asked = []
    for number in range(UNDER_WAY):
        asked.append(loads.ask((number,)))
        await until_held(way, number + 1)
    way.open.set()
    for one in asked:
        await one.answer
    async with asyncio.timeout(SECONDS):
        assert await loads.ask(("next",)).answer == "next"


async def test_what_is_asked_while_loads_are_under_way_is_the_next() -> None:
    """In bounds, and without whoever no longer waits."""
    way = Way()
    loads = Loads(way.carry)
    for number in range(UNDER_WAY):
        loads.ask((number,))
        await until_held(way, number + 1)
    waiting = [loads.ask((number,)) for number in range(MOST + 2)]
    waiting[0].answer.cancel()
    alone = loads.ask(("alone",))
    assert not alone.sent
    way.open.set()
    assert await alone.answer == "alone"
    assert [len(load) for load in way.loads[UNDER_WAY:]] == [MOST - 1, 3]


async def test_a_load_of_nobody_is_not_sent() -> None:
    """They have gone."""
    way = Way()
    loads = Loads(way.carry)
    loads.ask((1,)).answer.cancel()
    await loads.close()
    assert way.loads == []


async def test_who_goes_meanwhile_fails_nobody() -> None:
    """Its answer is let fall."""
    way = Way()
    loads = Loads(way.carry)
    gone, stays = loads.ask((1,)), loads.ask((2,))
    await until_held(way, 1)
    gone.answer.cancel()
    way.open.set()
    assert await stays.answer == 2


async def test_a_load_that_could_not_be_brought_is_everybodys_error() -> None:
    """And the next one goes."""

    async def fail(_commands: Sequence[Words]) -> Sequence[Any]:
        raise KeyError("ours")

    loads = Loads(fail)
    asked = [loads.ask((number,)) for number in range(2)]
    assert [type(await one.answer) for one in asked] == [KeyError, KeyError]


# On a real one.


@pytest.fixture
async def engine(redis: RunningRedis) -> AsyncIterator[Engine]:
    one = Engine(Place.of(redis.url), "keyrelay-test", FakeClock())
    yield one
    await one.aclose()


async def test_one_that_is_refused_fails_no_other(engine: Engine) -> None:
    """Each hears its own answer."""
    name, other = engine.key("loads", "a"), engine.key("loads", "b")
    first = engine.ask("HSET", name, "f", b"1", seconds=SECONDS)
    wrong = engine.ask("GET", name, seconds=SECONDS)
    last = engine.ask("SET", other, b"2", seconds=SECONDS)
    found = await asyncio.gather(first, wrong, last, return_exceptions=True)
    assert (found[0], type(found[1]), found[2]) == (1, Refused, True)
    assert engine.up
    assert await engine.ask("HGETALL", name, seconds=SECONDS) == {b"f": b"1"}


async def test_a_script_is_sent_once(engine: Engine) -> None:
    """Later it is known by its digest, also by those who ask at one time."""
    script = Script("return ARGV[1]", f"-- {id(engine)}")
    for _ in range(2):
        asked = (engine.script(script, (), number, seconds=SECONDS) for number in range(3))
        assert await asyncio.gather(*asked) == [b"0", b"1", b"2"]


async def test_one_that_stands_still_is_given_up_by_all_who_ask() -> None:
    """Each by its own deadline; the next who asks is alone, and then all do."""
    clock = FakeClock()
    with redis_running() as running:
        engine = Engine(Place.of(running.url), "keyrelay-test", clock)
        assert await engine.ask("PING", seconds=SECONDS)
        running.pause()
        asked = (engine.ask("PING", seconds=seconds) for seconds in (0.1, SECONDS))
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(one) for one in found] == [Gone, Gone]
        assert not engine.up
        with pytest.raises(Gone, match="a moment ago"):
            await engine.ask("PING")
        running.go_on()
        clock.advance(PAUSE_SECONDS)
        assert await engine.ask("PING", seconds=SECONDS)
        assert engine.up
        await engine.aclose()


async def test_who_had_no_turn_in_time_is_no_outage(engine: Engine) -> None:
    """Loads before it are on their way."""
    way = Way()
    engine._loads = Loads(way.carry)
    before = []
    for number in range(UNDER_WAY):
        before.append(asyncio.create_task(engine.ask("PING", seconds=SECONDS)))
        await until_held(way, number + 1)
    with pytest.raises(Gone, match="too many"):
        await engine.ask("PING", seconds=0.01)
    assert engine.up
    way.open.set()
    await asyncio.gather(*before)


async def test_a_redis_that_says_it_is_of_no_use_is_an_outage(engine: Engine) -> None:
    """A replica that nobody may write to: whoever asks with it hears so too."""
    with redis_running() as running:
        running.say("replicaof", "127.0.0.1", "1")
        engine = Engine(Place.of(running.url), "keyrelay-test", FakeClock())
        asked = (engine.ask("SET", "x", b"1"), engine.ask("PING"))
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(one) for one in found] == [Gone, Gone]
        assert not engine.up
        await engine.aclose()
