"""Who is signed in, where several instances share a Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest

from proxy.admin.session import COOKIE, IDLE_SECONDS, Sessions
from proxy.admin.spread import TELL_SECONDS, SpreadSessions
from proxy.engine import PAUSE_SECONDS, Engine, Place
from tests.proxy.admin.test_session import ADA, Books, sent_back
from tests.support.clock import FakeClock
from tests.support.engines import RunningRedis, redis_running
from vault import Sealer, open_vault

Join = Callable[[], Sessions]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def sealer(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Sealer]:
    vault = await open_vault(tmp_path / "data", {}, clock, create=True)
    yield await vault.sealer("sessions")
    await vault.close()


@pytest.fixture
async def join(redis: RunningRedis, clock: FakeClock, sealer: Sealer) -> AsyncIterator[Join]:
    """One instance more, with an engine of its own."""
    async with AsyncExitStack() as stack:

        def joined() -> Sessions:
            sessions = instance(redis, clock, sealer)
            stack.push_async_callback(peers_of(sessions)._engine.aclose)
            return sessions

        yield joined


def instance(redis: RunningRedis, clock: FakeClock, sealer: Sealer) -> Sessions:
    """As the server makes it."""
    sessions = Sessions(Books(ADA), clock)
    engine = Engine(Place.of(redis.url), "keyrelay-test", clock)
    sessions.share(SpreadSessions(engine, sealer, clock))
    return sessions


def peers_of(sessions: Sessions) -> SpreadSessions:
    """The way to the others."""
    peers = sessions._peers
    assert isinstance(peers, SpreadSessions)
    return peers


async def settled(sessions: Sessions) -> None:
    """What it has told is told."""
    peers = peers_of(sessions)
    while peers._telling:
        await asyncio.gather(*peers._telling)
        await asyncio.sleep(0)


async def test_who_signs_in_at_one_instance_is_known_at_all(join: Join) -> None:
    """At once, and with the same page's mark; who signs out is gone everywhere, at once too."""
    one, other = join(), join()
    fields = sent_back(await one.sign_in(b"kr_ada"))
    here, there = await one.find(fields), await other.find(fields)
    assert here is not None
    assert here == there
    other.sign_out(fields)
    assert await other.find(fields) is None
    await settled(other)
    assert await one.find(fields) is None


async def test_a_session_lasts_where_it_is_used_elsewhere(
    join: Join, redis: RunningRedis, clock: FakeClock
) -> None:
    """Redis counts how long nobody does anything: no two machines' clocks have to agree."""
    one, other = join(), join()
    fields = sent_back(await one.sign_in(b"kr_ada"))
    (key,) = redis.say("keys", "*sessions*").split()
    redis.say("pexpire", key, "5000")
    clock.advance(TELL_SECONDS)
    assert await other.find(fields) is not None
    await settled(other)
    assert IDLE_SECONDS * 1000 - 60_000 < int(redis.say("pttl", key)) <= IDLE_SECONDS * 1000
    assert await one.find(fields) is not None
    redis.say("del", key)
    assert await one.find(fields) is None


async def test_a_use_is_told_once_a_minute(
    join: Join, redis: RunningRedis, clock: FakeClock
) -> None:
    """A page that renews itself costs Redis two small questions."""
    one = join()
    fields = sent_back(await one.sign_in(b"kr_ada"))
    (key,) = redis.say("keys", "*sessions*").split()
    await one.find(fields)
    await settled(one)
    redis.say("pexpire", key, "100000")
    clock.advance(TELL_SECONDS - 1)
    await one.find(fields)
    await settled(one)
    assert int(redis.say("pttl", key)) <= 100_000
    clock.advance(1)
    await one.find(fields)
    await settled(one)
    assert int(redis.say("pttl", key)) > 100_000


async def test_it_ends_after_its_longest_time_however_much_it_is_used(
    join: Join, clock: FakeClock
) -> None:
    """Eight hours, told by when it began."""
    one, other = join(), join()
    fields = sent_back(await one.sign_in(b"kr_ada"))
    clock.advance(8 * 3600 - 1)
    assert await other.find(fields) is not None
    clock.advance(1)
    assert await other.find(fields) is None


async def test_whoever_reaches_redis_makes_no_session(join: Join, redis: RunningRedis) -> None:
    """What stands there is sealed, and bound to the one cookie; it shows neither."""
    one, other = join(), join()
    mine = sent_back(await one.sign_in(b"kr_ada"))
    (first,) = redis.say("keys", "*sessions*").split()
    cookie = mine[1][1].split(COOKIE.encode() + b"=")[1].split(b";")[0]
    assert cookie.decode() not in first
    assert ADA.id not in redis.say("--no-raw", "get", first)
    theirs = sent_back(await one.sign_in(b"kr_ada"))
    (second,) = set(redis.say("keys", "*sessions*").split()) - {first}
    redis.say("copy", first, second, "replace")
    assert await other.find(theirs) is None
    redis.say("set", second, "not ours", "px", "1000000")
    assert await other.find(theirs) is None
    assert await other.find(mine) is not None


async def test_without_redis_people_are_signed_in_where_they_are(
    clock: FakeClock, sealer: Sealer
) -> None:
    """Who signs out meanwhile is signed out there at once, and everywhere once it is back."""
    with redis_running() as redis:
        one, other = (instance(redis, clock, sealer) for _ in range(2))
        async with aclosing(peers_of(one)._engine), aclosing(peers_of(other)._engine):
            before = sent_back(await one.sign_in(b"kr_ada"))
            assert await other.find(before) is not None
            redis.pause()
            clock.advance(PAUSE_SECONDS)
            during = sent_back(await one.sign_in(b"kr_ada"))
            assert await one.find(during) is not None
            assert await one.find(before) is not None
            one.sign_out(before)
            await settled(one)
            assert await one.find(before) is None
            redis.go_on()
            clock.advance(PAUSE_SECONDS)
            assert await one.find(before) is None
            await one.find(during)  # Redis answers: what it has missed is told
            await settled(one)
            clock.advance(PAUSE_SECONDS)
            assert await other.find(before) is None
