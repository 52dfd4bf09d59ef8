"""What several processes have in common in a real Redis: what is told there, and what is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from proxy.cache import leases, redis_commons
from proxy.cache.commons import Boarded, Lost, Wish
from proxy.cache.redis_commons import RedisCommons
from proxy.clock import SystemClock
from proxy.engine import Gone, Place
from proxy.errors import UpstreamIncomplete
from tests.proxy.cache.conftest import NOW, a_call, a_sealer
from tests.proxy.cache.instances import Wire, instances, patiently
from tests.support.engines import RunningRedis, redis_running
from tests.support.upstream import Reply

KEY = b"k" * 32


def a_wish(joins: bool = True, **changes: Any) -> Wish:
    known: dict[str, Any] = {"at": NOW, "after": float("-inf"), "room": 1000}
    return Wish(KEY, joins=joins, **{**known, "wanted": lambda: None, **changes})


@pytest.fixture
async def commons(redis: RunningRedis) -> Any:
    redis.say("flushall")
    wire = Wire(Place.of(redis.url), "keyrelay-test", SystemClock())
    one = RedisCommons(wire, a_sealer())
    yield one
    await one.aclose()
    await wire.aclose()


async def both(commons: RedisCommons, **changes: Any) -> tuple[Any, Any]:
    """A leader and one who follows it."""
    lead = (await commons.board(a_wish(**changes))).lead
    follow = (await commons.board(a_wish())).follow
    return lead, follow


async def test_nothing_readable_lies_in_redis_and_nothing_for_long(
    commons: RedisCommons, redis: RunningRedis
) -> None:
    """Records are sealed, bound to key, leader and place; every name has its end."""
    lead, follow = await both(commons)
    assert await lead.say(b"a secret answer")
    names = redis.say("keys", "*").split()
    assert len(names) == 4
    assert all(0 < int(redis.say("pttl", name)) <= 60_000 for name in names)
    (answer,) = [name for name in names if name.endswith(":answer")]
    held = await commons.engine.run(lambda client: client.xrange(answer))
    assert len(held) == 1
    assert b"secret" not in repr(held).encode()
    assert await follow.hear() == [b"a secret answer"]
    await lead.close(landed=False)
    await lead.end()
    with pytest.raises(Lost):
        await follow.hear()
    names = redis.say("keys", "*").split()
    assert all(0 < int(redis.say("pttl", name)) <= 60_000 for name in names)


async def test_a_record_in_another_place_is_not_heard(commons: RedisCommons) -> None:
    """Whoever can write to Redis can cut an answer, and change none."""
    lead, follow = await both(commons)
    await lead.say(b"one")
    answer = lead.names.answer
    ((_, known),) = await commons.engine.run(lambda client: client.xrange(answer))
    assert await follow.hear() == [b"one"]
    await commons.engine.run(lambda client: client.xadd(answer, known, id="2-0"))
    with pytest.raises(Lost):
        await follow.hear()


async def test_who_is_too_far_behind_is_lost(commons: RedisCommons) -> None:
    """No more is held than was wished for: the oldest records go."""
    lead, follow = await both(commons)
    for _ in range(5):
        assert await lead.say(b"x" * 300)
    with pytest.raises(Lost):
        await follow.hear()


async def test_what_was_taken_and_not_answered_is_not_said_again_in_another_form(
    commons: RedisCommons, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that followed left before it was tried again: whoever follows next misses no octet."""
    monkeypatch.setattr(redis_commons, "RENEWED_SECONDS", 0.0)
    lead, follow = await both(commons)
    asked, wire = commons.engine.run, commons.engine

    async def loses_the_answer(ask: Any, seconds: float = 0.0) -> Any:
        await asked(ask)
        wire.run = asked  # type: ignore[method-assign]
        await commons.run(leases.LEAVE, (lead.names.aboard,), follow._member)
        raise Gone("no answer in time")

    wire.run = loses_the_answer  # type: ignore[method-assign]
    told = b"one" if await lead.say(b"one") else b""
    later = (await commons.board(a_wish())).follow
    assert later is not None
    assert await lead.say(b"onetwo"[len(told) :])
    heard = await later.hear()
    assert b"".join(heard) == b"onetwo"


@pytest.mark.parametrize("what", ["leader", "channel"])
async def test_nonsense_in_redis_harms_no_call(commons: RedisCommons, what: str) -> None:
    """Whoever writes there can make equal calls several ones, and no more."""
    lead, follow = await both(commons)
    client = commons.engine.client
    if what == "leader":
        await client.hset(lead.names.lease, "id", b"\xff")
        assert (await commons.board(a_wish())).follow is None
    else:
        await client.publish(commons.channel, b"\xff")
        hearing = asyncio.create_task(follow.hear())
        assert await lead.say(b"one")
        assert await hearing == [b"one"]
        await client.publish(commons.channel, b"\xff")
        assert commons._listening is not None
        assert not commons._listening.done()


async def test_where_nobody_follows_nothing_is_said(
    commons: RedisCommons, redis: RunningRedis
) -> None:
    """And nothing is left once it is closed."""
    lead = (await commons.board(a_wish())).lead
    assert lead is not None
    assert not await lead.say(b"one")
    assert not await lead.close(landed=False)
    assert redis.say("keys", "*") == ""
    with pytest.raises(Lost):
        await lead.say(b"one")
    assert not commons.parties


async def test_a_leader_that_was_let_go_is_no_leader(commons: RedisCommons) -> None:
    """Its name is still there, and nothing behind it: whoever asks leads."""
    lead, _ = await both(commons)
    await commons.engine.run(lambda client: client.delete(lead.names.leader))
    assert (await commons.board(a_wish())).lead is not None


async def test_what_the_same_process_shares_with_itself_is_told_apart(
    commons: RedisCommons,
) -> None:
    """Two followers of one leader in one process, and the leader."""
    lead, one = await both(commons)
    other = (await commons.board(a_wish())).follow
    assert other is not None
    await lead.say(b"x")
    assert await one.hear() == await other.hear() == [b"x"]
    one.leave()
    await patiently(lambda: len(commons.parties[lead.id]) == 2)
    await lead.say(b"y")
    assert await other.hear() == [b"y"]


async def test_a_question_that_was_cut_gives_its_lease_back(commons: RedisCommons) -> None:
    """Redis may have heard it."""
    asked = asyncio.create_task(commons.board(a_wish()))
    while not commons.parties:
        await asyncio.sleep(0)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    await patiently(lambda: not commons._tasks)
    assert not commons.parties
    assert (await commons.board(a_wish())).lead is not None


async def test_without_redis_nothing_is_held_or_followed(
    commons: RedisCommons, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All goes on as if there were no others; it is the store that decides."""
    monkeypatch.setattr(redis_commons, "RENEWED_SECONDS", 0.01)
    lead, follow = await both(commons)
    wire: Any = commons.engine
    wire.is_cut = True
    assert await commons.board(a_wish()) == Boarded()
    with pytest.raises(Lost):
        await lead.say(b"unheard")
    assert not await lead.close(landed=False)
    await lead.end()
    with pytest.raises(Lost):
        await follow.hear()
    follow.leave()


async def test_a_redis_that_is_killed_costs_no_call_of_its_leader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower that waits for the header calls for itself; one that has heard a part is cut; a
    leader does not notice."""
    monkeypatch.setattr(redis_commons, "LEASE_SECONDS", 2.0)
    with redis_running() as redis:
        async with instances(tmp_path, redis, 2) as two:
            first, exchange = await two.lead()
            reading = await two[1].read()
            early, unanswered = await two.lead(a_call(method="GET"))
            waiting = two[1].bench.begin(a_call(method="GET"))
            await two.follow(2)
            exchange.answer(200)
            exchange.chunk(b"half")
            reader = await reading
            assert await reader.piece() == b"half"
            for one in two.all:
                one.wire.patience = 1.0
            redis.kill()
            (await two[1].bench.upstream.next()).play(Reply())
            assert (await waiting).body == b"hello"
            with pytest.raises(UpstreamIncomplete):
                await reader.rest()
            exchange.chunk(b" and half")
            exchange.end()
            unanswered.play(Reply())
            assert (await first).body == b"half and half"
            assert (await early).body == b"hello"


async def test_a_redis_that_stands_still_for_a_moment_harms_nobody(tmp_path: Path) -> None:
    """What could not be said is said again, and taken once."""
    with redis_running() as redis:
        async with instances(tmp_path, redis, 2) as two:
            first, exchange = await two.lead()
            reading = await two[1].read()
            await two.follow(1)
            exchange.answer(200)
            exchange.chunk(b"half")
            reader = await reading
            assert await reader.piece() == b"half"
            for one in two.all:
                one.wire.patience = 0.3
            redis.pause()
            exchange.chunk(b" and half")
            await patiently(lambda: not two[0].wire.up and not two[1].wire.up)
            for one in two.all:
                one.wire.patience = 10.0
            redis.go_on()
            exchange.end()
            assert await reader.rest() == b" and half"
            assert (await first).body == b"half and half"


async def test_who_is_not_told_finds_out_in_a_second(
    tmp_path: Path, redis: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the subscription, by the signs of life alone: followers, records, the end."""

    async def deaf(_commons: RedisCommons) -> None:
        return

    monkeypatch.setattr(RedisCommons, "_listen_forever", deaf)
    monkeypatch.setattr(redis_commons, "RENEWED_SECONDS", 0.3)
    async with instances(tmp_path, redis, 2) as two:
        first, exchange = await two.lead()
        other = two[1].bench.begin()
        await two.follow(1)
        exchange.play(Reply())
        assert (await first).body == (await other).body == b"hello"
