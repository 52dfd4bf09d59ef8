"""Equal calls of several processes are one upstream call: the rules of flights, across them.

Each is tried over a Redis, and over what a test holds in memory.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.cache import redis_commons, sharing
from proxy.cache.commons import Boarded, Wish
from proxy.cache.entry import Miss, StoreError
from proxy.errors import Overloaded, RelayError, UpstreamIncomplete, UpstreamTimeout
from proxy.messages import Fields
from tests.proxy.cache.conftest import HOUR, NOW, a_call, a_grant
from tests.proxy.cache.instances import Instances, instances, patiently
from tests.support.engines import RunningRedis
from tests.support.upstream import Reply
from vault import Purge

GET = a_call(method="GET")
AGENTS: Fields = ((b"vary", b"user-agent"),)


def agent(name: bytes, **changes: Any) -> Any:
    return a_call(fields=((b"user-agent", name),), **changes)


@pytest.fixture(params=["memory", "redis"])
def redis_or_none(request: pytest.FixtureRequest) -> Iterator[RunningRedis | None]:
    yield request.getfixturevalue("redis") if request.param == "redis" else None


@pytest.fixture
def several(tmp_path: Path, redis_or_none: RunningRedis | None) -> Any:
    """`async with several(settings...) as three`."""

    def opener(count: int = 3, **settings: Any) -> Any:
        return instances(tmp_path, redis_or_none, count, **settings)

    return opener


async def test_equal_calls_of_three_instances_are_one_upstream_call(several: Any) -> None:
    """Each is answered with all of it; those who did not make the call are told it was shared."""
    async with several() as three:
        first, exchange = await three.lead()
        others = [one.bench.begin() for one in three.all for _ in range(3)]
        await three.follow(2)
        exchange.play(Reply(chunks=(b"a", b"b")))
        answers = await asyncio.gather(first, *others)
        assert {answer.body for answer in answers} == {b"ab"}
        assert three.sent == [1, 0, 0]
        text = "keyrelay; fwd=uri-miss; fwd-status=200; stored; collapsed; ttl=3600"
        assert [answer.verdict for answer in answers].count(text) == 9


async def test_a_follower_elsewhere_hears_what_has_arrived_then_the_live_tail(several: Any) -> None:
    """Octet for octet, each piece before the next is there."""
    async with several(2) as two:
        begun = await two[0].read()
        exchange = await two[0].bench.upstream.next()
        exchange.answer(201, ((b"x-one", b"\xff"),))
        reader = await begun
        exchange.chunk(b"one")
        assert await reader.piece() == b"one"
        other = await (await two[1].read())
        assert (other.response.status, other.response.fields) == (201, ((b"x-one", b"\xff"),))
        assert await other.piece() == b"one"
        for piece in (b"two", b"three"):
            exchange.chunk(piece)
            assert await other.piece() == await reader.piece() == piece
        exchange.end()
        assert await other.rest() == await reader.rest() == b""
        assert two.sent == [1, 0]


async def test_an_answer_larger_than_memory_is_heard_whole(several: Any) -> None:
    """From the spool's file, by those who came late."""
    octets = os.urandom(1_500_000)
    async with several(2, spool_memory_bytes=1000) as two:
        first, exchange = await two.lead()
        exchange.answer(200)
        for start in range(0, len(octets), 70_000):
            exchange.chunk(octets[start : start + 70_000])
        await patiently(lambda: exchange.given == len(octets))
        other = two[1].bench.begin()
        await two.follow(1)
        exchange.end()
        assert (await first).body == (await other).body == octets


async def test_only_the_leader_stores_and_the_others_remember(several: Any) -> None:
    """What is small is in every memory; on disk it is once."""
    async with several(2) as two:
        first, exchange = await two.lead()
        other = two[1].bench.begin()
        await two.follow(1)
        exchange.play(Reply())
        await asyncio.gather(first, other)
        await two.landed()
        assert await two.kept() == 1
        assert (await two[1].bench.get()).hit
        assert two.sent == [1, 0]


async def test_whoever_leads_alone_leaves_nothing_behind(several: Any) -> None:
    """A call that nobody shares, and then another of the same key."""
    async with several(2) as two:
        first, exchange = await two.lead()
        exchange.play(Reply(status=500))
        assert (await first).status == 500
        await two.landed()
        other = two[1].bench.begin()
        (await two[1].bench.upstream.next()).play(Reply(status=404))
        assert (await other).status == 404
        assert two.sent == [1, 1]


@pytest.mark.parametrize("status", [404, 500])
async def test_a_complete_answer_of_any_status_goes_to_all_who_had_joined(
    several: Any, status: int
) -> None:
    """And nobody joins it once it is known that it will not be stored."""
    async with several(3) as three:
        first, exchange = await three.lead()
        other = three[1].bench.begin()
        await three.follow(1)
        exchange.answer(status)
        exchange.chunk(b"so ")
        await patiently(lambda: _shut(three))
        third = three[2].bench.begin()
        (await three[2].bench.upstream.next()).play(Reply(chunks=(b"mine",)))
        assert (await third).body == b"mine"
        exchange.chunk(b"sorry")
        exchange.end()
        for answer in await asyncio.gather(first, other):
            assert (answer.status, answer.body) == (status, b"so sorry")
        assert three.sent == [1, 0, 1]


def _shut(three: Instances) -> bool:
    """Whether the second heard the header, and everything that it brought about is done."""
    heard = [f.response for f in three[1].bench.cache._flights.all()]
    tasks = [t.get_coro().__name__ for t in three[0].bench.cache._shares.tasks]  # type: ignore
    return bool(heard and heard[0]) and "_shut" not in tasks


async def test_a_leader_that_fails_before_its_header_wakes_one_follower_of_all(
    several: Any,
) -> None:
    """The next one takes the lease, the others follow it; each failure is told to one caller."""
    async with several(3) as three:
        first, exchange = await three.lead()
        others = [three[1].bench.begin(), three[2].bench.begin()]
        await three.follow(2)
        exchange.fail(UpstreamTimeout("No answer in time."))
        with pytest.raises(UpstreamTimeout):
            await first
        who, second = await three.next()
        await three.followed(who)
        assert sorted(three.sent) == [0, 1, 1]
        second.play(Reply())
        assert {answer.body for answer in await asyncio.gather(*others)} == {b"hello"}
        assert who in (1, 2)


async def test_an_own_follower_of_a_failed_leader_may_be_the_next(several: Any) -> None:
    """It asks like all others."""
    async with several(2) as two:
        first, exchange = await two.lead()
        mate = two[0].bench.begin()
        other = two[1].bench.begin()
        await two.follow(1)
        exchange.fail(UpstreamTimeout("No answer in time."))
        with pytest.raises(UpstreamTimeout):
            await first
        who, second = await two.next()
        await two.followed(who)
        second.play(Reply())
        assert (await mate).body == (await other).body == b"hello"
        assert sum(two.sent) == 2


async def test_a_leader_that_waited_in_vain_for_its_turn_tells_all(several: Any) -> None:
    """They would wait in the same queue again."""
    async with several(2) as two:
        first, exchange = await two.lead()
        other = two[1].bench.begin()
        await two.follow(1)
        exchange.fail(Overloaded("Too many.", retry_after=7))
        for caller in (first, other):
            with pytest.raises(Overloaded, match="Too many") as refused:
                await caller
            assert refused.value.retry_after == 7
        assert two.sent == [1, 0]


async def test_a_cut_answer_is_cut_for_all(several: Any) -> None:
    """It never looks whole."""
    async with several(2) as two:
        first, exchange = await two.lead()
        reading = await two[1].read()
        await two.follow(1)
        exchange.answer(200)
        exchange.chunk(b"half")
        reader = await reading
        assert await reader.piece() == b"half"
        exchange.fail(UpstreamIncomplete("cut"))
        with pytest.raises(UpstreamIncomplete):
            await first
        with pytest.raises(UpstreamIncomplete):
            await reader.rest()


async def test_a_leader_that_dies_is_over_within_the_time_of_its_lease(
    several: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its header the transfers break, and never look whole; before it one of the followers
    takes over and the others follow that one. The next call is made."""
    monkeypatch.setattr(redis_commons, "LEASE_MS", 3000)
    monkeypatch.setattr(redis_commons, "RENEWED_SECONDS", 0.3)
    async with several(3) as three:
        _, exchange = await three.lead()
        reading = await three[1].read()
        await three.lead(GET)
        others = [three[1].bench.begin(GET), three[2].bench.begin(GET)]
        await three.follow(3)
        exchange.answer(200)
        exchange.chunk(b"half")
        reader = await reading
        assert await reader.piece() == b"half"
        three[0].die()
        with pytest.raises(UpstreamIncomplete):
            await reader.rest()
        who, next_one = await three.next()
        await three.followed(who)
        next_one.play(Reply())
        assert {answer.body for answer in await asyncio.gather(*others)} == {b"hello"}
        assert who in (1, 2)
        again = three[1].bench.begin()
        await patiently(lambda: sum(three.sent) == 4)
        three[1].bench.upstream.sent[-1].play(Reply())
        assert (await again).body == b"hello"


async def test_an_invalidating_call_joins_nobody_and_the_older_answer_is_not_stored(
    several: Any,
) -> None:
    """The later lease is the greater: what was asked for before it is outdated."""
    async with several(2) as two:
        first, exchange = await two.lead()
        refresh = two[1].bench.begin(a_call(invalidate=True))
        newer = await two[1].bench.upstream.next()
        newer.play(Reply(chunks=(b"new",)))
        assert (await refresh).body == b"new"
        exchange.play(Reply(chunks=(b"old",)))
        assert (await first).body == b"old"
        await two.landed()
        assert await two.kept() == 1
        assert two[0].bench.cache.in_memory.entries == 0


async def test_what_another_process_has_replaced_is_neither_joined_nor_remembered(
    several: Any,
) -> None:
    """Those aboard hear it to its end; whoever comes later looks for the newer one."""
    async with several() as three:
        first, exchange = await three.lead()
        other = three[1].bench.begin()
        await three.follow(1)
        key = three[0].bench.cache._flights.all()[0].key
        refresh = three[2].bench.begin(a_call(invalidate=True))
        (await three[2].bench.upstream.next()).play(Reply(chunks=(b"new",)))
        assert (await refresh).body == b"new"
        await three[2].bench.landed()
        await patiently(lambda: not three[2].bench.cache._shares.tasks)  # type: ignore[union-attr]
        for one in three.all[:2]:
            one.bench.cache.forget(key)
        later = three[0].bench.begin()
        if three[0].wire is None:  # it has a store of its own
            (await three[0].bench.upstream.next()).play(Reply(chunks=(b"new",)))
        assert (await later).body == b"new"
        exchange.play(Reply(chunks=(b"old",)))
        assert (await first).body == (await other).body == b"old"
        await three.landed()
        assert three[1].bench.cache.in_memory.entries == 0


async def test_what_is_in_the_air_while_nobody_can_be_heard_is_not_remembered(
    several: Any,
) -> None:
    """It may have been replaced."""
    async with several(2) as two:
        first, exchange = await two.lead()
        other = two[1].bench.begin()
        await two.follow(1)
        for hears in (False, True):
            two[1].bench.cache.remember(hears)
        exchange.play(Reply())
        assert (await first).body == (await other).body == b"hello"
        await two.landed()
        assert two[1].bench.cache.in_memory.entries == 0


async def test_a_later_call_may_follow_an_invalidating_one(several: Any) -> None:
    """It is the newest."""
    async with several(2) as two:
        first, exchange = await two.lead(a_call(invalidate=True))
        other = two[1].bench.begin()
        await two.follow(1)
        exchange.play(Reply())
        assert (await first).body == (await other).body == b"hello"
        assert two.sent == [1, 0]


async def test_what_was_purged_meanwhile_is_not_joined(several: Any) -> None:
    """An instance that knows of a purge follows nobody who asked before it."""
    async with several(2) as two:
        first, exchange = await two.lead()
        for one in two.all:
            one.bench.clock.advance(1)
        await two[1].bench.cache.purge(Purge(NOW + 0.5))
        other = two[1].bench.begin()
        (await two[1].bench.upstream.next()).play(Reply(chunks=(b"new",)))
        assert (await other).body == b"new"
        exchange.play(Reply(chunks=(b"old",)))
        assert (await first).body == b"old"
        await two.landed()
        assert await two.kept() == 1


async def test_a_follower_whose_variant_is_another_leaves_at_the_header(several: Any) -> None:
    """It goes alone; one of the same variant stays."""
    async with several(3) as three:
        first, exchange = await three.lead(agent(b"one"))
        same = three[1].bench.begin(agent(b"one"))
        another = three[2].bench.begin(agent(b"two"))
        await three.follow(2)
        exchange.answer(200, AGENTS)
        alone = await three[2].bench.upstream.next()
        alone.play(Reply(fields=AGENTS, chunks=(b"for two",)))
        exchange.chunk(b"for one")
        exchange.end()
        assert (await first).body == (await same).body == b"for one"
        assert (await another).body == b"for two"
        assert three.sent == [1, 0, 1]


async def test_a_head_call_is_answered_for_all(several: Any) -> None:
    """HEAD is complete without a body, whatever length it announces."""
    async with several(2) as two:
        first, exchange = await two.lead(a_call(method="HEAD"))
        other = two[1].bench.begin(a_call(method="HEAD"))
        await two.follow(1)
        exchange.play(Reply(fields=((b"content-length", b"7"),), chunks=()))
        for answer in await asyncio.gather(first, other):
            assert (answer.status, answer.body) == (200, b"")
            assert (b"content-length", b"7") in answer.fields


async def test_a_call_whose_answer_is_not_to_be_stored_shares_with_nobody(several: Any) -> None:
    """Only those that look up and store are worth a question."""
    async with several(2) as two:
        first, exchange = await two.lead(a_call(NOW - 1))
        other = two[1].bench.begin()
        (await two[1].bench.upstream.next()).play(Reply(chunks=(b"stored",)))
        exchange.play(Reply(chunks=(b"passed",)))
        assert ((await first).body, (await other).body) == (b"passed", b"stored")


async def test_tenants_are_apart(several: Any) -> None:
    """The key is another."""
    async with several(2) as two:
        first, exchange = await two.lead()
        other = two[1].bench.begin(grant=a_grant("other"))
        (await two[1].bench.upstream.next()).play(Reply(chunks=(b"theirs",)))
        exchange.play(Reply(chunks=(b"ours",)))
        assert ((await first).body, (await other).body) == (b"ours", b"theirs")


async def test_a_leader_whose_callers_have_gone_goes_on_for_those_elsewhere(several: Any) -> None:
    """Also with an answer that is not stored; and it ends when they have gone, too."""
    async with several(2) as two:
        first, exchange = await two.lead()
        reading = await two[1].read()
        await two.follow(1)
        exchange.answer(500)
        reader = await reading
        first.cancel()
        exchange.chunk(b"still")
        assert await reader.piece() == b"still"
        await reader.__aexit__(None, None, None)
        await patiently(lambda: not two[1].bench.cache._flights.all())
        async with asyncio.timeout(30):
            while not exchange.closed.is_set():
                exchange.chunk(b"nobody hears this")
                await asyncio.sleep(0.01)


async def test_a_follower_whose_callers_have_gone_hears_no_more(several: Any) -> None:
    """Before the header and after it: the call belongs to the other instance."""
    async with several(2) as two:
        first, exchange = await two.lead()
        early = two[1].bench.begin()
        await two.follow(1)
        early.cancel()
        await two.follow(0)
        exchange.answer(200)
        reading = await two[1].read()
        reader = await reading
        await reader.__aexit__(None, None, None)
        await two.follow(0)
        later = await (await two[1].read())
        exchange.chunk(b"all")
        exchange.end()
        assert await later.rest() == b"all"
        assert (await first).body == b"all"


async def test_an_answer_too_large_to_keep_goes_to_those_aboard(several: Any) -> None:
    """Nobody joins any more; whoever comes later makes its own call."""
    octets = os.urandom(300_000)
    async with several(3, max_entry_bytes=100_000) as three:
        first, exchange = await three.lead()
        aboard = three[1].bench.begin()
        await three.follow(1)
        exchange.answer(200)
        exchange.chunk(octets)
        await patiently(lambda: exchange.given == len(octets))
        await patiently(lambda: _shut(three))
        late = three[2].bench.begin()
        (await three[2].bench.upstream.next()).play(Reply())
        exchange.end()
        assert (await first).body == (await aboard).body == octets
        assert (await late).body == b"hello"


@pytest.mark.parametrize("second", ["there", "purged", "broken"])
async def test_one_who_looked_a_moment_too_early_looks_again(several: Any, second: str) -> None:
    """Between its look-up and its question another instance has stored the answer. If it is not
    there either, for whatever reason, the call is made."""
    async with several(2) as two:
        first, exchange = await two.lead()
        exchange.play(Reply())
        await first
        await two.landed()
        await patiently(lambda: not two[0].bench.cache._shares.tasks)
        looks = []

        async def get(*asked: Any) -> Any:
            looks.append(asked)
            if len(looks) == 1 or second == "purged":
                return Miss.ABSENT
            if second == "broken":
                raise StoreError("broken")
            return await two[0].bench.store.get(*asked)

        two[1].bench.store.get = get
        other = two[1].bench.begin()
        if second != "there":
            (await two[1].bench.upstream.next()).play(Reply())
        answer = await other
        assert (answer.status, answer.body) == (200, b"hello")
        assert two.sent == [1, int(second != "there")]
        assert len(looks) == 2
        assert (await two[1].bench.get()).hit


async def test_a_process_that_ends_lets_others_take_over(several: Any) -> None:
    """At once: its lease is given back."""
    async with several(2) as two:
        first, _ = await two.lead()
        other = two[1].bench.begin()
        await two.follow(1)
        await two[0].bench.cache.aclose()
        with pytest.raises(RelayError):
            await first
        (await two[1].bench.upstream.next()).play(Reply())
        assert (await other).body == b"hello"


async def test_those_elsewhere_still_get_the_rest_when_a_process_ends(
    several: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a whole answer; it does not wait for long."""
    monkeypatch.setattr(sharing, "CLOSING_SECONDS", 30.0)
    async with several(2) as two:
        first, exchange = await two.lead()
        other = two[1].bench.begin()
        await two.follow(1)
        exchange.play(Reply(chunks=(b"x" * 600_000,)))
        await first
        await two[0].bench.cache.aclose()
        assert (await other).body == b"x" * 600_000


async def test_where_nobody_can_be_asked_each_calls_for_itself(several: Any) -> None:
    """As if there were nothing in common."""
    async with several(2) as two:
        for one in two.all:
            one.die()
        first, exchange = await two.lead()
        other = two[1].bench.begin()
        (await two[1].bench.upstream.next()).play(Reply())
        assert (await other).body == b"hello"
        await patiently(lambda: not two[1].bench.cache._flights.all())  # what both keep at one
        exchange.play(Reply())  # moment counts twice until it is swept
        assert (await first).body == b"hello"
        await two.landed()
        assert await two.kept() == two.apart
        failing = two[0].bench.begin(GET)
        (await two[0].bench.upstream.next()).fail(UpstreamTimeout("No answer in time."))
        with pytest.raises(UpstreamTimeout):
            await failing


async def test_a_spoiled_answer_stays_in_no_memory(several: Any) -> None:
    """One that holds the key is given to those who wait and forgotten."""
    async with several(2) as two:
        first, exchange = await two.lead()
        other = two[1].bench.begin()
        await two.follow(1)
        exchange.play(Reply(spoiled=lambda: True))
        assert (await first).body == (await other).body == b"hello"
        await two.landed()
        assert [one.bench.cache.in_memory.entries for one in two.all] == [0, 0]


async def test_an_entry_keeps_the_time_of_the_call_that_was_made(several: Any) -> None:
    """A later request neither lengthens nor shortens it, wherever it came in."""
    async with several(2) as two:
        first, exchange = await two.lead(a_call(HOUR))
        other = two[1].bench.begin(a_call(HOUR + 1000))
        await two.follow(1)
        exchange.play(Reply())
        assert "ttl=3600" in (await first).verdict
        assert "ttl=3600" in (await other).verdict
        await two.landed()
        assert "ttl=3600" in (await two[1].bench.get()).verdict


async def test_a_caller_who_hangs_up_while_it_is_asked_leaves_nothing(several: Any) -> None:
    """It follows nobody in the end, and the call is not made for it."""
    async with several(2) as two:
        first, exchange = await two.lead()
        hasty = two[1].bench.begin()
        await patiently(lambda: bool(two[1].bench.cache._flights.all()))
        hasty.cancel()
        await patiently(lambda: not two[1].bench.cache._flights.all())
        exchange.play(Reply())
        assert (await first).body == b"hello"
        assert two.sent == [1, 0]


async def test_one_whose_last_caller_hung_up_while_it_was_told_whom_to_follow_hears_nothing(
    several: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call goes on without callers when its answer will be kept; but not one that is made
    elsewhere."""
    async with several(2) as two:
        first, exchange = await two.lead()
        asked, told = asyncio.Event(), asyncio.Event()
        board = two[1].commons.board

        async def slow(wish: Wish) -> Boarded:
            boarded: Boarded = await board(wish)
            asked.set()
            await told.wait()
            return boarded

        monkeypatch.setattr(two[1].commons, "board", slow)
        hasty = two[1].bench.begin()
        await asked.wait()
        hasty.cancel()
        await asyncio.gather(hasty, return_exceptions=True)
        told.set()
        await patiently(lambda: not two[1].bench.cache._flights.all())
        exchange.play(Reply())
        assert (await first).body == b"hello"
        assert two.sent == [1, 0]


async def test_who_follows_too_late_for_the_beginning_calls_for_itself(tmp_path: Path) -> None:
    """Before it is known that an answer is too large to keep, somebody may come aboard."""
    octets = os.urandom(300_000)
    async with instances(tmp_path, None, 2, max_entry_bytes=100_000) as two:
        two[0].commons.closing.clear()
        first, exchange = await two.lead()
        exchange.answer(200)
        exchange.chunk(octets)
        await patiently(lambda: exchange.given == len(octets))
        late = two[1].bench.begin()
        (await two[1].bench.upstream.next()).play(Reply())
        assert (await late).body == b"hello"
        two[0].commons.closing.set()
        exchange.end()
        assert (await first).body == octets


async def test_one_who_comes_when_all_others_have_gone_hears_all(tmp_path: Path) -> None:
    """The telling stops with the last follower, and goes on from there with the next one."""
    async with instances(tmp_path, None, 3) as three:
        first, exchange = await three.lead()
        reading = await three[1].read()
        await three.follow(1)
        exchange.answer(200)
        exchange.chunk(b"one")
        reader = await reading
        assert await reader.piece() == b"one"
        await reader.__aexit__(None, None, None)
        await three.follow(0)
        exchange.chunk(b"two")
        (leading,) = three[0].commons.leads
        shares: Any = three[0].bench.cache._shares
        await patiently(lambda: not shares.tasks)
        assert b"".join(leading.records[1:]) == b"oone"
        other = three[2].bench.begin()
        await three.follow(1)
        exchange.end()
        assert (await other).body == (await first).body == b"onetwo"


async def test_one_who_comes_while_the_last_is_leaving_is_told(tmp_path: Path) -> None:
    """Just when nobody was left."""
    async with instances(tmp_path, None, 2) as two:
        first, exchange = await two.lead()
        other = two[1].bench.begin()
        await two.follow(1)
        (leading,) = two[0].commons.leads
        followers, leading.followers = leading.followers, set()
        exchange.answer(200)
        await patiently(lambda: leading.asked > 0)
        leading.followers = followers
        leading.wanted()
        exchange.chunk(b"all")
        exchange.end()
        assert (await other).body == (await first).body == b"all"


async def test_a_leader_that_fails_without_its_way_tells_nobody(tmp_path: Path) -> None:
    """Its followers find out by themselves."""
    async with instances(tmp_path, None, 2) as two:
        first, exchange = await two.lead()
        other = two[1].bench.begin()
        await two.follow(1)
        two[0].commons.gone = True
        exchange.fail(Overloaded("Too many.", retry_after=7))
        with pytest.raises(Overloaded):
            await first
        (await two[1].bench.upstream.next()).play(Reply())
        assert (await other).body == b"hello"
