"""Equal calls in flight make one upstream call; ordered by barriers, never by time."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from proxy.cache.flight import SLACK
from proxy.call import Call
from proxy.errors import (
    InternalError,
    Overloaded,
    RelayError,
    Unavailable,
    UpstreamIncomplete,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from proxy.messages import Fields
from tests.proxy.cache.conftest import HOUR, NOW, Bench, Body, Reader, a_call, until
from tests.support.upstream import Exchange, Reply

Opened = Any
LOOK_UP_ONLY = NOW - 1


def agent(name: bytes, **changes: Any) -> Call:
    return a_call(fields=((b"user-agent", name),), **changes)


VARY: Fields = ((b"vary", b"user-agent"),)


async def pair(bench: Bench, first: Call | None = None, second: Call | None = None) -> Any:
    """A leader whose call has arrived, a follower aboard, and the exchange."""
    leader = bench.begin(first)
    exchange = await bench.upstream.next()
    follower = bench.begin(second)
    await bench.aboard(2)
    return leader, follower, exchange


async def reading(bench: Bench, call: Call | None = None) -> Any:
    """A caller who waits for the header, as a task that gives its reader."""
    task = asyncio.create_task(Reader(bench, call).__aenter__())
    bench.tasks.append(task)
    return task


async def readers(bench: Bench, count: int, **header: Any) -> tuple[list[Reader], Exchange]:
    """So many readers of one flight whose header has come."""
    tasks = [await reading(bench)]
    exchange = await bench.upstream.next()
    tasks += [await reading(bench) for _ in range(count - 1)]
    await bench.aboard(count)
    exchange.answer(200, **header)
    return [await task for task in tasks], exchange


async def leave(*all_of_them: Reader) -> None:
    for reader in all_of_them:
        await reader.__aexit__(None, None, None)


async def test_three_hundred_equal_calls_make_one_upstream_call(opened: Opened) -> None:
    """Contract 6: equal requests in flight make one upstream call."""
    async with opened() as bench:
        callers = [bench.begin() for _ in range(300)]
        exchange = await bench.upstream.next()
        await bench.aboard(300)
        exchange.play(Reply(chunks=(b"a", b"b")))
        answers = await asyncio.gather(*callers)
        assert {answer.body for answer in answers} == {b"ab"}
        assert len(bench.upstream.sent) == 1
        verdicts = [answer.verdict for answer in answers]
        text = "keyrelay; fwd=uri-miss; fwd-status=200; stored; ttl=3600"
        assert verdicts.count(text) == 1
        assert verdicts.count(text.replace("stored;", "stored; collapsed;")) == 299


async def test_different_calls_do_not_wait_for_each_other(opened: Opened) -> None:
    """One key, one flight."""
    async with opened() as bench:
        bench.begin(a_call(method="GET"))
        bench.begin(a_call(method="POST"))
        await bench.upstream.next()
        await bench.upstream.next()


async def test_a_follower_gets_what_has_arrived_then_the_live_tail(opened: Opened) -> None:
    """Contract 6: followers get what has arrived, then the live tail."""
    async with opened() as bench:
        (leader,), exchange = await readers(bench, 1)
        exchange.chunk(b"one")
        assert await leader.piece() == b"one"
        exchange.chunk(b"two")
        assert await leader.piece() == b"two"
        follower = await (await reading(bench))
        assert "collapsed" in follower.verdict
        assert await follower.piece() == b"onetwo"
        exchange.chunk(b"three")
        assert await follower.piece() == await leader.piece() == b"three"
        exchange.end()
        assert await follower.rest() == await leader.rest() == b""
        await leave(leader, follower)
        assert len(bench.upstream.sent) == 1


async def test_the_live_tail_passes_through_the_disk(opened: Opened) -> None:
    """What is above the memory's limit is read from the spool's file."""
    octets = os.urandom(300_000)
    async with opened(spool_memory_bytes=1000) as bench:
        (leader,), exchange = await readers(bench, 1)
        for start in range(0, len(octets), 7000):
            exchange.chunk(octets[start : start + 7000])
        follower = await (await reading(bench))
        exchange.end()
        assert await follower.rest() == await leader.rest() == octets
        await leave(leader, follower)


async def test_a_leader_who_hangs_up_harms_nobody(opened: Opened) -> None:
    """Contract 6: the call belongs to the cache, not to its first caller."""
    async with opened() as bench:
        (leader, follower), exchange = await readers(bench, 2)
        exchange.chunk(b"a")
        await leave(leader)
        exchange.chunk(b"b")
        exchange.end()
        assert await follower.rest() == b"ab"
        await leave(follower)
        assert (await bench.get()).hit


async def test_a_leader_who_hangs_up_before_the_header_harms_nobody(opened: Opened) -> None:
    """Also when its task is cancelled while it waits."""
    async with opened() as bench:
        leader, follower, exchange = await pair(bench)
        leader.cancel()
        await bench.aboard(1)
        exchange.play(Reply())
        assert (await follower).body == b"hello"
        assert not exchange.cancelled
        assert len(bench.upstream.sent) == 1


@pytest.mark.parametrize("after_header", [True, False])
async def test_with_nobody_left_a_call_goes_on_if_it_will_be_stored(
    opened: Opened, after_header: bool
) -> None:
    """Contract 6: with nobody left it goes on only if it will be stored."""
    async with opened() as bench:
        if after_header:
            (leader,), exchange = await readers(bench, 1)
            await leave(leader)
        else:
            caller = bench.begin()
            exchange = await bench.upstream.next()
            caller.cancel()
            await bench.aboard(0)
            exchange.answer(200)
        exchange.chunk(b"kept")
        exchange.end()
        await bench.landed()
        hit = await bench.get()
        assert (hit.hit, hit.body) == (True, b"kept")


@pytest.mark.parametrize("status", [200, 500])
async def test_with_nobody_left_a_call_ends_if_it_will_not_be_stored(
    opened: Opened, status: int
) -> None:
    """Contract 6: one that asked for no storing, or whose answer is not to be kept."""
    async with opened() as bench:
        caller = bench.begin(a_call(LOOK_UP_ONLY if status == 200 else HOUR))
        exchange = await bench.upstream.next()
        if status == 500:
            caller.cancel()
            await bench.aboard(0)
            exchange.answer(500)
            exchange.chunk(b"nobody reads this")
        else:
            caller.cancel()
        await asyncio.wait_for(exchange.closed.wait(), 10)
        await bench.landed()


async def test_with_nobody_left_an_unkept_answer_ends_at_once(opened: Opened) -> None:
    """Even while the upstream is silent."""
    async with opened() as bench:
        task = await reading(bench)
        exchange = await bench.upstream.next()
        exchange.answer(500)
        await leave(await task)
        await asyncio.wait_for(exchange.closed.wait(), 10)
        await bench.landed()


async def test_nobody_joins_a_call_that_is_being_given_up(opened: Opened) -> None:
    """Who comes in that moment is not told that the server ends: the call is made anew."""
    async with opened() as bench:
        first = bench.begin(a_call(LOOK_UP_ONLY))
        await bench.upstream.next()
        first.cancel()
        second = bench.begin(a_call(LOOK_UP_ONLY))
        exchange = await bench.upstream.next()
        exchange.play(Reply())
        assert (await second).body == b"hello"


async def test_the_last_reader_of_a_whole_answer_ends_nothing(opened: Opened) -> None:
    """The connection is given back in peace."""
    async with opened(Reply(500)) as bench:
        await bench.get()
        await bench.landed()
        assert not bench.upstream.sent[0].cancelled


@pytest.mark.parametrize("status", [404, 500, 429])
async def test_an_answer_of_any_status_goes_to_all_who_had_joined(
    opened: Opened, status: int
) -> None:
    """Contract 6: and is kept only if storable; later calls go out again."""
    async with opened() as bench:
        leader, follower, exchange = await pair(bench)
        exchange.play(Reply(status, chunks=(b"sorry",)))
        assert [(a.status, a.body) for a in (await leader, await follower)] == [
            (status, b"sorry")
        ] * 2
        again = bench.begin()
        (await bench.upstream.next()).play(Reply())
        assert not (await again).hit


async def test_an_unkept_answer_is_not_joined_after_its_header(opened: Opened) -> None:
    """What can't be kept never queues: a new call starts anew."""
    async with opened() as bench:
        leader = await reading(bench)
        first = await bench.upstream.next()
        first.answer(500)
        reader = await leader
        bench.begin()
        second = await bench.upstream.next()
        second.play(Reply())
        first.end()
        await leave(reader)


async def test_failed_leader_wakes_one_follower(opened: Opened) -> None:
    """Contract 6: a leader that fails before its header wakes one follower, not all."""
    async with opened() as bench:
        leader = bench.begin()
        first = await bench.upstream.next()
        followers = [bench.begin() for _ in range(5)]
        await bench.aboard(6)
        first.fail(UpstreamTimeout("late"))
        with pytest.raises(UpstreamTimeout):
            await leader
        second = await bench.upstream.next()
        assert len(bench.upstream.sent) == 2
        assert not any(task.done() for task in followers)
        second.fail(UpstreamUnreachable("gone"))
        third = await bench.upstream.next()
        third.play(Reply())
        results = await asyncio.gather(*followers, return_exceptions=True)
        assert [type(r) for r in results].count(UpstreamUnreachable) == 1
        assert [getattr(r, "body", None) for r in results].count(b"hello") == 4
        assert len(bench.upstream.sent) == 3


async def test_a_leader_without_a_turn_speaks_for_all(opened: Opened) -> None:
    """The others would wait in the same queue, one after the other, each for the whole time."""
    async with opened() as bench:
        leader = bench.begin()
        exchange = await bench.upstream.next()
        followers = [bench.begin() for _ in range(3)]
        await bench.aboard(4)
        exchange.fail(Overloaded("full", retry_after=5))
        results = await asyncio.gather(leader, *followers, return_exceptions=True)
        assert [type(result) for result in results] == [Overloaded] * 4
        assert len(bench.upstream.sent) == 1


async def test_a_leader_who_failed_and_had_gone_wakes_the_next(opened: Opened) -> None:
    """Nobody gets its error."""
    async with opened() as bench:
        leader, follower, exchange = await pair(bench)
        leader.cancel()
        await bench.aboard(1)
        exchange.fail(UpstreamTimeout("late"))
        (await bench.upstream.next()).play(Reply())
        assert (await follower).body == b"hello"


async def test_the_time_of_an_entry_is_that_of_who_led_to_it(opened: Opened) -> None:
    """Contract 6: a later request neither lengthens nor shortens it."""
    async with opened() as bench:
        leader, follower, exchange = await pair(bench, a_call(NOW + 100), a_call(NOW + 200))
        exchange.fail(UpstreamTimeout("late"))
        with pytest.raises(UpstreamTimeout):
            await leader
        (await bench.upstream.next()).play(Reply())
        assert (await follower).verdict.endswith("stored; ttl=200")


async def test_who_keeps_leads_before_who_only_looks_up(opened: Opened) -> None:
    """The followers that want to store are not left with an answer that is not kept."""
    async with opened() as bench:
        leader, looking, exchange = await pair(bench, None, a_call(LOOK_UP_ONLY))
        keeping = bench.begin()
        await bench.aboard(3)
        exchange.fail(UpstreamTimeout("late"))
        with pytest.raises(UpstreamTimeout):
            await leader
        (await bench.upstream.next()).play(Reply())
        assert "; stored" in (await keeping).verdict
        assert (await looking).body == b"hello"
        assert (await bench.get()).hit


async def test_who_only_looks_up_leads_when_nobody_else_is_left(opened: Opened) -> None:
    """And its answer is not kept."""
    async with opened() as bench:
        leader, looking, exchange = await pair(bench, None, a_call(LOOK_UP_ONLY))
        exchange.fail(UpstreamTimeout("late"))
        with pytest.raises(UpstreamTimeout):
            await leader
        second = await bench.upstream.next()
        keeping = bench.begin()
        third = await bench.upstream.next()
        second.play(Reply(chunks=(b"2",)))
        third.play(Reply(chunks=(b"3",)))
        assert (await looking).verdict == "keyrelay; fwd=uri-miss; fwd-status=200"
        assert (await keeping).body == b"3"
        assert (await bench.get()).body == b"3"


async def test_invalidate_never_joins_an_earlier_flight(opened: Opened) -> None:
    """Contract 6: and becomes the flight that later look-ups join; the newer answer stays."""
    async with opened() as bench:
        early = bench.begin()
        first = await bench.upstream.next()
        refresh = bench.begin(a_call(invalidate=True))
        second = await bench.upstream.next()
        late = bench.begin()
        await bench.aboard(3)
        second.play(Reply(chunks=(b"new",)))
        assert [(await task).body for task in (refresh, late)] == [b"new", b"new"]
        first.play(Reply(chunks=(b"old",)))
        assert (await early).body == b"old"
        await bench.landed()
        assert (await bench.get()).body == b"new"
        assert len(bench.upstream.sent) == 2


async def test_a_refresh_that_fails_leaves_the_earlier_flight_its_place(opened: Opened) -> None:
    """What came later and failed does not outdate what came earlier."""
    async with opened() as bench:
        early = bench.begin()
        first = await bench.upstream.next()
        refresh = bench.begin(a_call(invalidate=True))
        (await bench.upstream.next()).play(Reply(500))
        assert (await refresh).status == 500
        first.play(Reply(chunks=(b"old",)))
        assert (await early).body == b"old"
        assert (await bench.get()).body == b"old"


async def test_a_refresh_that_overtakes_the_store_wins(opened: Opened) -> None:
    """The earlier answer was whole first, but was not written yet."""
    async with opened() as bench:
        early = bench.begin()
        first = await bench.upstream.next()
        second_refresh = None
        flight = bench.cache._flights.all()[0]
        first.answer(200)
        first.chunk(b"old")
        await until(lambda: flight.spool.size == 3)
        second_refresh = bench.begin(a_call(invalidate=True))
        second = await bench.upstream.next()
        first.end()
        second.play(Reply(chunks=(b"new",)))
        assert ((await early).body, (await second_refresh).body) == (b"old", b"new")
        await bench.landed()
        assert (await bench.get()).body == b"new"


async def test_during_a_refresh_the_old_entry_answers(opened: Opened) -> None:
    """Contract 6: the old entry stays until the new one is complete."""
    async with opened(Reply(chunks=(b"old",)), Reply(chunks=())) as bench:
        await bench.get()
    async with opened() as bench:
        refresh = bench.begin(a_call(invalidate=True))
        exchange = await bench.upstream.next()
        hit = await bench.get()
        assert (hit.hit, hit.body) == (True, b"old")
        exchange.play(Reply(chunks=(b"new",)))
        await refresh
        assert (await bench.get()).body == b"new"


async def test_who_would_store_does_not_join_who_would_not(opened: Opened) -> None:
    """Contract 6: a flight that will not be stored is not joined by callers who would store."""
    async with opened() as bench:
        looking = bench.begin(a_call(LOOK_UP_ONLY))
        first = await bench.upstream.next()
        keeping = bench.begin()
        second = await bench.upstream.next()
        for exchange in (first, second):
            exchange.play(Reply())
        assert "stored" not in (await looking).verdict
        assert "stored" in (await keeping).verdict


async def test_who_only_looks_up_joins_who_stores_and_each_other(opened: Opened) -> None:
    """Equal requests in flight make one upstream call."""
    async with opened() as bench:
        callers = [bench.begin(a_call(LOOK_UP_ONLY))]
        first = await bench.upstream.next()
        callers.append(bench.begin(a_call(LOOK_UP_ONLY)))
        await bench.aboard(2)
        first.play(Reply(chunks=(b"1",)))
        leader, follower, second = await pair(bench, None, a_call(LOOK_UP_ONLY))
        second.play(Reply(chunks=(b"2",)))
        assert [(await task).body for task in (*callers, leader, follower)] == [
            b"1",
            b"1",
            b"2",
            b"2",
        ]


async def test_followers_whose_vary_fields_differ_leave_at_the_header(opened: Opened) -> None:
    """Contract 6: they go on together, and each variant is kept."""
    async with opened() as bench:
        leader = bench.begin(agent(b"one"))
        first = await bench.upstream.next()
        same = bench.begin(agent(b"one"))
        others = [bench.begin(agent(b"two")) for _ in range(3)] + [bench.begin(agent(b"three"))]
        await bench.aboard(6)
        first.play(Reply(fields=VARY, chunks=(b"1",)))
        assert [(await task).body for task in (leader, same)] == [b"1", b"1"]
        second, third = await bench.upstream.next(), await bench.upstream.next()
        await bench.aboard(4)
        by_agent = {dict(e.call.fields)[b"user-agent"]: e for e in (second, third)}
        by_agent[b"two"].play(Reply(fields=VARY, chunks=(b"2",)))
        by_agent[b"three"].play(Reply(fields=VARY, chunks=(b"3",)))
        assert [(await task).body for task in others] == [b"2", b"2", b"2", b"3"]
        assert len(bench.upstream.sent) == 3
        await bench.landed()
        for name, body in ((b"one", b"1"), (b"two", b"2"), (b"three", b"3")):
            assert (await bench.get(agent(name))).body == body


async def test_after_the_header_only_the_same_variant_joins(opened: Opened) -> None:
    """RFC 9111 section 4.1."""
    async with opened() as bench:
        task = await reading(bench, agent(b"one"))
        first = await bench.upstream.next()
        first.answer(200, VARY)
        leader = await task
        follower = bench.begin(agent(b"one"))
        await bench.aboard(2)
        bench.begin(agent(b"two"))
        second = await bench.upstream.next()
        first.chunk(b"1")
        first.end()
        assert (await follower).body == b"1"
        second.play(Reply(fields=VARY))
        await leave(leader)


async def test_vary_star_sends_every_follower_off_alone(opened: Opened) -> None:
    """Contract 6: `Vary: *` never matches; and they do not queue for each other."""
    async with opened() as bench:
        leader = bench.begin()
        first = await bench.upstream.next()
        followers = [bench.begin() for _ in range(3)]
        await bench.aboard(4)
        first.play(Reply(fields=((b"vary", b"*"),)))
        assert "detail=vary-any" in (await leader).verdict
        rest = [await bench.upstream.next() for _ in range(3)]
        assert len(bench.upstream.sent) == 4
        for exchange in rest:
            exchange.play(Reply())
        answers = await asyncio.gather(*followers)
        assert all("; stored" in answer.verdict for answer in answers)


async def test_a_cut_answer_is_cut_for_everybody(opened: Opened) -> None:
    """After what has arrived; a cut answer never looks whole."""
    async with opened() as bench:
        (leader, follower), exchange = await readers(bench, 2)
        exchange.chunk(b"half")
        exchange.fail(UpstreamTimeout("idle"))
        for reader in (leader, follower):
            assert await reader.piece() == b"half"
            with pytest.raises(UpstreamIncomplete) as caught:
                await reader.piece()
            assert isinstance(caught.value.__cause__, UpstreamTimeout)
        await leave(leader, follower)


async def test_a_fault_of_ours_reaches_the_leader_only(opened: Opened) -> None:
    """Whatever was raised; the follower leads."""
    async with opened() as bench:
        leader, follower, exchange = await pair(bench)
        exchange.fail(ZeroDivisionError())
        with pytest.raises(ZeroDivisionError):
            await leader
        (await bench.upstream.next()).play(Reply())
        assert (await follower).body == b"hello"


async def test_a_connection_that_fails_after_the_end_harms_nothing(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer was whole."""
    async with opened(Reply()) as bench:
        send = bench.upstream.send

        class FailsAtExit:
            def __init__(self, *arguments: Any) -> None:
                self.context = send(*arguments)

            async def __aenter__(self) -> Any:
                return await self.context.__aenter__()

            async def __aexit__(self, *error: Any) -> None:
                await self.context.__aexit__(*error)
                raise UpstreamUnreachable("gone")

        monkeypatch.setattr(bench.upstream, "send", FailsAtExit)
        assert (await bench.get()).body == b"hello"
        await bench.landed()
        assert (await bench.get()).hit


# Answers too large to keep.


async def test_beyond_the_limit_flow_control_follows_the_fastest_reader(opened: Opened) -> None:
    """Contract 6: read at the upstream's pace up to `max_entry_bytes`, then at the reader's."""
    piece = 64 << 10
    async with opened(max_entry_bytes=piece, spool_memory_bytes=piece) as bench:
        (reader,), exchange = await readers(bench, 1)
        for _ in range(100):
            exchange.chunk(b"x" * piece)
        exchange.end()
        await until(lambda: exchange.given >= SLACK)
        assert exchange.given <= SLACK + 4 * piece
        got = 0
        while chunk := await reader.piece():
            got += len(chunk)
            assert exchange.given <= got + SLACK + 4 * piece
        assert got == 100 * piece
        await leave(reader)


async def test_beyond_the_limit_nobody_joins(opened: Opened) -> None:
    """Contract 6: a new caller starts anew."""
    async with opened(max_entry_bytes=10) as bench:
        (leader,), exchange = await readers(bench, 1)
        exchange.chunk(b"x" * 11)
        assert await leader.piece() == b"x" * 11
        bench.begin()
        second = await bench.upstream.next()
        assert second is not exchange
        second.play(Reply())
        await leave(leader)


async def test_a_reader_whose_prefix_is_gone_is_cut(opened: Opened) -> None:
    """Contract 6: the fastest reader is not held up by the slow ones."""
    piece = 256 << 10
    async with opened(max_entry_bytes=piece, spool_memory_bytes=piece) as bench:
        (fast, slow), exchange = await readers(bench, 2)
        for _ in range(40):
            exchange.chunk(b"x" * piece)
        exchange.end()
        assert len(await fast.rest()) == 40 * piece
        with pytest.raises(UpstreamIncomplete):
            await slow.rest()
        await leave(fast, slow)


async def test_a_slower_reader_within_the_spool_is_not_cut(opened: Opened) -> None:
    """The spool keeps the newest octets for those who are behind."""
    piece = 64 << 10
    async with opened(max_entry_bytes=piece, spool_memory_bytes=piece) as bench:
        (fast, slow), exchange = await readers(bench, 2)
        for _ in range(40):
            exchange.chunk(b"x" * piece)
        exchange.end()
        assert len(await fast.rest()) == len(await slow.rest()) == 40 * piece
        await leave(fast, slow)


async def test_beyond_the_limit_with_nobody_left_the_call_ends(opened: Opened) -> None:
    """Contract 6: it will not be stored."""
    async with opened(max_entry_bytes=10) as bench:
        (leader,), exchange = await readers(bench, 1)
        await leave(leader)
        exchange.chunk(b"x" * 11)
        await asyncio.wait_for(exchange.closed.wait(), 10)


async def test_the_last_reader_of_a_large_answer_ends_it(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the upstream was held back."""
    held = asyncio.Event()
    async with opened(max_entry_bytes=10) as bench:
        (leader,), exchange = await readers(bench, 1)
        (flight,) = bench.cache._flights.all()
        wait = flight._room.wait

        async def waiting() -> bool:
            held.set()
            return await wait()

        monkeypatch.setattr(flight._room, "wait", waiting)
        for _ in range(4):
            exchange.chunk(b"x" * SLACK)
        await held.wait()
        assert exchange.given == 2 * SLACK
        await leave(leader)
        await asyncio.wait_for(exchange.closed.wait(), 10)


def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", no_room)


async def test_a_full_disk_fails_no_answer(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What can't be spooled is not kept, and passes all the same; the log says so."""
    full_disk(monkeypatch)
    piece = 100_000
    async with opened(spool_memory_bytes=1000) as bench:
        (fast, slow), exchange = await readers(bench, 2)
        for number in range(40):
            exchange.chunk(bytes([number]) * piece)
        exchange.end()
        octets = await fast.rest()
        assert octets == b"".join(bytes([number]) * piece for number in range(40))
        with pytest.raises(UpstreamIncomplete):
            await slow.rest()
        await leave(fast, slow)
        await bench.landed()
        assert (await bench.cache.stats()).entries == 0
    assert "can't hold an answer on disk" in caplog.text


async def test_a_full_disk_fails_no_request(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A body that finds no room is sent, not looked up; `Cache-Status` and the log say so."""
    full_disk(monkeypatch)
    async with opened(Reply(), spool_memory_bytes=1000) as bench:
        answer = await bench.get(a_call(body=Body(b"a" * 1500, b"b")))
        assert answer.verdict == "keyrelay; fwd=bypass; detail=store-error"
        assert bench.upstream.sent[0].body == b"a" * 1500 + b"b"
    assert "can't hold a request on disk" in caplog.text


# Going down.


async def test_closing_ends_every_flight(opened: Opened) -> None:
    """Waiters get an answer, readers a cut, and nothing is kept."""
    waiting: list[asyncio.Task[Any]] = []
    async with opened() as bench:
        (reader,), exchange = await readers(bench, 1)
        exchange.chunk(b"half")
        waiting = [bench.begin(a_call(method="GET")) for _ in range(2)]
        other = await bench.upstream.next()
        await bench.aboard(3)
        just_begun = bench.begin(a_call(method="HEAD"))
        await bench.aboard(4)
        await bench.cache._flights.close()
        for task in (*waiting, just_begun):
            with pytest.raises(Unavailable):
                await task
        assert await reader.piece() == b"half"
        with pytest.raises(UpstreamIncomplete):
            await reader.piece()
        await leave(reader)
        assert exchange.closed.is_set()
        assert other.cancelled
        assert (await bench.cache.stats()).entries == 0


async def test_a_flight_that_was_never_answered_has_no_answer(opened: Opened) -> None:
    """Nobody may read before the header."""
    async with opened() as bench:
        bench.begin()
        await bench.upstream.next()
        with pytest.raises(InternalError):
            _ = bench.cache._flights.all()[0].answer


async def test_errors_are_those_of_the_catalogue(opened: Opened) -> None:
    """A caller of the cache sees RelayErrors only, where the upstream raises them."""
    async with opened(Reply(instead=UpstreamTimeout("late"))) as bench:
        for call in (a_call(), a_call(None), a_call(invalidate=True), a_call(LOOK_UP_ONLY)):
            with pytest.raises(RelayError):
                await bench.get(call)
