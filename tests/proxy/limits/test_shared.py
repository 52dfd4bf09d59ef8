"""Limits over several instances: exact with Redis, a share each without it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from itertools import cycle
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import parse
from limits.storage import RedisStorage
from limits.strategies import MovingWindowRateLimiter, SlidingWindowCounterRateLimiter

from proxy.engine import PAUSE_SECONDS
from proxy.errors import BudgetSpent, CallsSpent, TooManyRequests
from proxy.grant import Allowance
from proxy.limits import instances, shared, totals
from proxy.limits.budgets import month_of
from proxy.limits.counts import Kind, Lack
from proxy.limits.limiter import LIMITERS
from proxy.limits.notes import EVER
from proxy.limits.rules import Bill, Window
from proxy.limits.script import SCRIPT
from proxy.limits.totals import RECENT
from proxy.record import Account
from tests.proxy.limits.conftest import Book, granted, standing
from tests.proxy.limits.together import Member, together
from tests.support.clock import FakeClock
from tests.support.engines import RunningRedis, redis_running
from tests.support.redises import cluster_running


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine may be slow; a Redis that stands still has a test of its own."""
    monkeypatch.setattr(shared, "SECONDS", 20.0)
    monkeypatch.setattr(instances, "SECONDS", 20.0)


kinds = pytest.mark.parametrize("kind", ["sliding", "moving"])
MONTH = month_of(FakeClock().now())[0]


async def through(members: Sequence[Member], tries: int, **grant: object) -> int:
    """Of so many calls at once that come in everywhere."""
    turns = zip(range(tries), cycle(members), strict=False)
    return sum(await asyncio.gather(*(one.call(**grant) for _, one in turns)))


async def sent(members: Sequence[Member], tries: int, **grant: object) -> int:
    """Of so many at once that go out everywhere."""
    turns = zip(range(tries), cycle(members), strict=False)
    return sum(await asyncio.gather(*(one.send(**grant) for _, one in turns)))


def left(member: Member, bill: Bill) -> list[int]:
    return [state.left for state in member.counts.look(bill)]


async def all_know(members: Sequence[Member], budget: int, calls: int) -> None:
    """With their beats they hear of each other's calls."""
    async with asyncio.timeout(20):
        for one in members:
            while left(one, one.sending(budget=budget)) != [budget - calls]:
                await one.instances.beat()
                await asyncio.sleep(0.01)


# Together.


@kinds
async def test_no_call_slips_through_on_any_instance(redis: RunningRedis, kind: Kind) -> None:
    """Three hundred at once, and exactly as many pass as there are slots."""
    async with together(redis.url, kind=kind) as members:
        assert await through(members, 300, calls=("40/week", "90/month")) == 40


@kinds
async def test_a_refused_call_takes_no_slot_of_another_window(
    redis: RunningRedis, kind: Kind
) -> None:
    """Nor of a budget."""
    async with together(redis.url, kind=kind) as members:
        own = {"upstream_calls": ("10/week", "3/month"), "budget": 50}
        assert await sent(members, 30, **own) == 3
        for one in members:
            assert await sent([one], 1, **own) == 0
            assert left(one, one.sending(**own)) == [7, 0, 47]


async def test_a_call_with_many_limits_asks_once(redis: RunningRedis) -> None:
    """And calls that come together ask together."""
    async with together(redis.url, 1) as [one]:
        own = {"upstream_calls": ("10/hour", "30/day", "40/week", "openai=9/hour"), "budget": 5}
        await one.send(**own)
        redis.say("CONFIG", "RESETSTAT")
        assert await sent([one], 100, **own) == 4
        asked = redis.say("INFO", "commandstats").splitlines()
        [stat] = [line for line in asked if line.startswith("cmdstat_evalsha:")]
        assert stat.startswith("cmdstat_evalsha:calls=1,")


@kinds
async def test_what_is_given_back_is_free_everywhere(redis: RunningRedis, kind: Kind) -> None:
    """In order: what comes after it finds it."""
    async with together(redis.url, 2, kind=kind) as [one, other]:
        own = {"upstream_calls": ("1/month",), "budget": 1}
        assert await one.send(**own)
        assert not await other.send(**own)
        one.limits.give_back(one.sending(**own))
        assert await one.send(**own)
        one.limits.give_back(one.sending(**own))
        assert not await one.send(upstream_calls=("1/month",), budget=0)
        assert await other.send(**own)


async def test_a_call_that_has_gone_gives_back_what_it_took(redis: RunningRedis) -> None:
    """Whoever hangs up while Redis is asked."""
    async with together(redis.url, 1) as [one]:
        gone = asyncio.create_task(one.send(budget=1))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        async with asyncio.timeout(10):
            while not await one.send(budget=1):
                pass


@kinds
async def test_a_window_that_is_over_has_room_again(redis: RunningRedis, kind: Kind) -> None:
    """By Redis' clock."""
    async with together(redis.url, 2, kind=kind) as members:
        assert await through(members, 9, calls=("3/second",)) >= 3
        async with asyncio.timeout(20):
            while not await members[1].call(calls=("3/second",)):
                await asyncio.sleep(0.02)


async def test_many_calls_leave_a_moving_window_in_few_steps(redis: RunningRedis) -> None:
    """All of a quiet time end with one call, and nobody else is served meanwhile."""
    async with together(redis.url, 1, kind="moving") as [one]:
        [window] = one.coming(calls=("900/hour",)).windows
        name = one.engine.key("limits", "default", "moving", window.key)
        redis.say("RPUSH", name, *["1"] * 750)
        redis.say("CONFIG", "RESETSTAT")
        assert await one.call(calls=("900/hour",))
        assert redis.say("LLEN", name) == "1"
        asked = redis.say("INFO", "commandstats").splitlines()
        assert "cmdstat_lpop:calls=57," in "".join(asked)


async def test_instances_whose_clocks_differ_count_in_the_same_windows(
    redis: RunningRedis,
) -> None:
    """The time is Redis' own."""
    async with together(redis.url, 2) as [one, other]:
        other.clock.advance(7200)
        assert await through([one, other], 50, calls=("5/month",)) == 5


async def test_an_answer_tells_how_limits_stand_on_all(redis: RunningRedis) -> None:
    """As Redis told last: no question of its own."""
    async with together(redis.url, 2) as [one, other]:
        own = {"calls": ("100/day",), "upstream_calls": ("9/day",), "budget": 7}
        await other.call(**own)
        await other.send(**own)
        account = Account()
        await one.limits.check(granted(**own), account)  # type: ignore[arg-type]
        told = standing(account)["ratelimit"].split(", ")
        assert told[0].startswith('"token-day";r=98;')
        assert told[1].startswith('"token-upstream-day";r=9;')  # nothing is known of these yet
        await one.send(**own)
        told = standing(account)["ratelimit"].split(", ")
        assert [part.split(";")[1] for part in told] == ["r=98", "r=7", "r=5"]


@kinds
async def test_a_refusal_says_how_long_to_wait(redis: RunningRedis, kind: Kind) -> None:
    """Of the window without room."""
    async with together(redis.url, 1, kind=kind) as [one]:
        await one.call(calls=("1/day",))
        with pytest.raises(TooManyRequests) as refused:
            await one.limits.check(granted(calls=("1/day",)), Account())
        assert 1 <= (refused.value.retry_after or 0) <= 2 * 86_400
        if kind == "moving":
            assert (refused.value.retry_after or 0) > 86_000


async def test_another_kind_begins_anew(redis: RunningRedis) -> None:
    """As it does in one process."""
    async with together(redis.url, 2) as members:
        assert await through(members, 9, calls=("5/day",)) == 5
        for one in members:
            one.counts.become("moving")
            one.counts.become("moving")
        assert await through(members, 9, calls=("5/day",)) == 5


async def test_a_short_lived_token_makes_so_many_calls_in_all(redis: RunningRedis) -> None:
    """Wherever it is shown; and all instances are one run."""
    async with together(redis.url) as members:
        token = Allowance("serial", 7, FakeClock().now() + 600)
        assert await through(members, 60, allowance=token) == 7
        bill = members[1].coming(allowance=token)
        assert await members[1].counts.take(bill) == Lack("allowance")
        assert members[1].counts.look(bill) == ((0, 600.0),)
        assert len({one.runs[-1] for one in members}) == 1
        assert [one.instances.count for one in members] == [3, 3, 3]


async def test_a_new_instance_ends_no_token_of_the_others(redis: RunningRedis) -> None:
    """It is the first to ask a Redis that has forgotten everything: the run is still theirs."""
    async with together(redis.url, 2) as [one, other]:
        while not one.instances._agreed > instances.MISSED:
            await one.instances.beat()
        theirs = one.runs[-1]
        redis.say("DEL", one.engine.key("instances", "all", "facts"))
        other.instances._run, other.instances._memory, other.instances._agreed = "new", "", 0
        for _ in range(2):
            for member in (other, one):
                await member.instances.beat()
        assert (one.runs[-1], other.runs[-1]) == (theirs, theirs)
        assert len(one.runs) == 1


async def test_short_lived_tokens_fill_no_memory(
    redis: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may make one may make any number: those that are known go on, the others wait until
    some are over. Budgets need no such room."""
    monkeypatch.setattr(totals, "MOST", 2)
    async with together(redis.url, 1) as [one]:
        ends = one.clock.now() + totals.SWEEP_SECONDS
        first, second, third = (Allowance(name, 9, ends) for name in "abc")
        said = [
            await one.counts.take(one.coming(allowance=each))
            for each in (first, second, third, first, second)
        ]
        assert said == [None, None, Lack("memory"), None, None]
        assert await one.send(budget=1)
        one.clock.advance(totals.SWEEP_SECONDS)
        assert await one.call(allowance=third._replace(until=ends + 60))


def test_the_library_lets_as_many_through(redis: RunningRedis) -> None:
    """`limits` on the same Redis is the oracle for calls at one time."""

    async def ours(amount: int, kind: Kind) -> int:
        async with together(redis.url, 2, kind=kind) as members:
            return await through(members, 30, calls=(f"{amount}/day", f"{amount + 3}/week"))

    library = RedisStorage(redis.url)
    strategies = {"sliding": SlidingWindowCounterRateLimiter, "moving": MovingWindowRateLimiter}
    for kind, strategy in strategies.items():
        for amount in (1, 7, 29):
            item = parse(f"{amount}/day")
            theirs = sum(strategy(library).hit(item, kind, str(amount)) for _ in range(30))
            assert asyncio.run(ours(amount, kind)) == theirs == amount  # type: ignore[arg-type]
    library.storage.close()


Step = tuple[int, bool]
"""Seconds before a call, and whether the one that was let through last is given back then."""


@kinds
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.sampled_from([0, 0, 3, 12, 30, 66, 129]), st.booleans()), max_size=30
    ),
    amount=st.integers(1, 5),
)
def test_one_process_would_let_the_same_calls_through(
    redis: RunningRedis, kind: Kind, steps: list[Step], amount: int
) -> None:
    """Step by step, by a clock that a test moves; and both say the same of how they stand. What is
    given back late is of its own time: it frees no slot of a later window."""
    windows = (Window("k/64", amount, 64, "k", "k"), Window("k/256", 2 * amount, 256, "k", "k"))
    asyncio.run(_like_one_process(redis.url, kind, windows, steps))


async def _like_one_process(
    url: str, kind: Kind, windows: tuple[Window, ...], steps: list[Step]
) -> None:
    clock, taken = FakeClock(now=float(2**20)), None
    alone, bill = LIMITERS[kind](clock), Bill("t", windows)
    with pytest.MonkeyPatch.context() as moved:
        moved.setattr(shared, "SCRIPT", SCRIPT.replace("'TIME'", "'LRANGE', 'time', 0, 1"))
        moved.setattr(shared, "_NAME", "0" * 40)
        async with together(url, 2, kind=kind) as members:
            for (step, back), one in zip(steps, cycle(members), strict=False):
                for each in (clock, *(member.clock for member in members)):
                    each.advance(step)
                await one.engine.run(partial(_set_time, now=int(clock.monotonic())), 20)
                if back and taken is not None:
                    alone.give_back(windows, taken)
                    one.counts.give_back(bill, taken - clock.monotonic() + one.clock.monotonic())
                    taken = None
                lack = await one.counts.take(bill)
                assert (lack is None) == alone.take(windows)[0]
                taken = clock.monotonic() if lack is None else taken
                if kind == "sliding":
                    pairs = zip(one.counts.look(bill), alone.look(windows), strict=True)
                    assert all(mine == pytest.approx(its) for mine, its in pairs)


async def _set_time(client: Any, now: int) -> None:
    await client.eval(_SET, 1, "time", now)


_SET = "redis.call('DEL', KEYS[1]) redis.call('RPUSH', KEYS[1], ARGV[1], 0)"


async def test_a_cluster_counts_the_calls_of_each_tenant() -> None:
    """What comes together goes to the node of each; nothing is mixed up."""
    with cluster_running() as nodes:
        url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        async with together(url, 2) as members:
            own = {"upstream_calls": ("9/day",), "budget": 5}
            calls = [
                one.send(token=f"of-{tenant}", tenant=tenant, **own)
                for one in members
                for tenant in "abcd" * 4
            ]
            assert sum(await asyncio.gather(*calls)) == 4 * 5
            assert [one.engine.failures for one in members] == [0, 0]


# Budgets.


async def test_a_budget_is_never_exceeded(redis: RunningRedis) -> None:
    """However many go out at once; each instance writes down its own calls."""
    books = [Book(), Book(), Book()]
    async with together(redis.url, books=books) as members:
        assert await sent(members, 200, budget=50) == 50
        with pytest.raises(BudgetSpent, match="50 upstream calls"):
            await members[0].limits.spend(members[0].sending(budget=50))
    assert sum(book.counts.get(("id-ann", MONTH), 0) for book in books) == 50


async def test_a_call_of_last_month_frees_none_of_this_one(redis: RunningRedis) -> None:
    """It went out before the month's end, and was not made after all."""
    async with together(redis.url, 1) as [one]:
        bill = one.sending(budget=3)
        taken = await one.limits.spend(bill)
        one.clock.advance(month_of(one.clock.now())[2] - one.clock.now())
        assert await sent([one], 2, budget=3) == 2
        one.limits.give_back(bill, taken)
        one.limits.give_back(bill, await one.limits.spend(bill))
        assert await sent([one], 9, budget=3) == 1


async def test_a_budget_goes_on_where_redis_has_forgotten_it(redis: RunningRedis) -> None:
    """From what this instance knew, at once; a beat later, from what any of them knew."""
    async with together(redis.url) as members:
        assert await sent(members, 30, budget=100) == 30
        await members[2].send(budget=100)
        redis.say("FLUSHALL")
        assert await members[2].send(budget=100)
        redis.say("FLUSHALL")
        for one in members:
            await one.instances.beat()
        assert await sent(members, 100, budget=100) == 68


async def test_an_instance_goes_on_asking_for_what_it_knows(redis: RunningRedis) -> None:
    """Long after its last call: so a full Redis doesn't take a budget for what nobody uses, and
    what was counted elsewhere is known where it was evicted all the same."""
    async with together(redis.url, 2) as [one, other]:
        await one.send(budget=50)
        for _ in range(2 * RECENT):
            await one.instances.beat()
        assert await sent([other], 20, budget=50) == 20
        await all_know([one], 50, 21)
        redis.say("DEL", redis.say("KEYS", "*:budget:*"))
        assert await sent([one], 40, budget=50) == 29


async def test_a_budget_goes_on_after_all_have_ended(redis: RunningRedis) -> None:
    """From what is written."""
    book = Book({("id-ann", MONTH): 40})
    async with together(redis.url, 1, books=[book]) as members:
        assert await sent(members, 20, budget=45) == 5


# Calls in all.


async def test_calls_in_all_are_never_exceeded(redis: RunningRedis) -> None:
    """However many come at once, wherever; and in the next month not either."""
    books = [Book(), Book(), Book()]
    async with together(redis.url, books=books) as members:
        assert await through(members, 107, ever=57, calls=("80/month",)) == 57
        account = Account()
        with pytest.raises(CallsSpent, match="57 in all"):
            await members[0].limits.check(granted(ever=57), account)
        assert standing(account)["ratelimit"] == '"calls";r=0'
        for one in members:
            one.clock.advance(40 * 86_400)
        assert await through(members, 9, ever=60) == 3
    assert sum(book.counts.get(("id-ann", EVER), 0) for book in books) == 60


async def test_calls_in_all_go_on_where_redis_has_forgotten_them(redis: RunningRedis) -> None:
    """From what is written, also where it knows of fewer: it was put back to what it was, or the
    others made theirs without it."""
    book = Book({("id-ann", EVER): 40})
    async with together(redis.url, 1, books=[book]) as [one]:
        name = one.engine.key("limits", "default", "budget", EVER, "id-ann")
        redis.say("SET", name, "7")
        assert await through([one], 20, ever=45) == 5
        assert int(redis.say("TTL", name)) > 9 * 365 * 86_400
        redis.say("FLUSHALL")
        assert await through([one], 20, ever=46) == 1


async def test_a_short_lived_token_counts_for_its_parent(redis: RunningRedis) -> None:
    """And gives back its own where that has no more."""
    async with together(redis.url) as members:
        short = Allowance("serial", 9, FakeClock().now() + 600)
        assert await through(members, 30, allowance=short, ever=5) == 5
        assert await through(members, 30, allowance=short, ever=99) == 4
        assert await through(members, 30, ever=10) == 1


# Apart.


async def test_without_redis_each_has_its_share_of_calls_in_all() -> None:
    """Of what was left; all of it counts when Redis is there again."""
    with redis_running() as redis:
        async with together(redis.url, 2) as members:
            assert await through(members, 10, ever=20) == 10
            await all_heard(members, 10)
            redis.kill()
            for one in members:
                assert await through([one], 40, ever=20) == 5
            redis.start_again()
            redis.wait()
            for one in members:
                await one.find_again()
            await all_heard(members, 0)
            assert await through(members, 40, ever=24) == 4


async def all_heard(members: Sequence[Member], rest: int) -> None:
    """How many of 20 calls are left."""
    async with asyncio.timeout(20):
        for one in members:
            while left(one, one.coming(ever=20)) != [rest]:
                await one.instances.beat()
                await asyncio.sleep(0.01)


async def test_without_redis_each_has_its_share(caplog: pytest.LogCaptureFixture) -> None:
    """Of the windows what each may let through in all, of budgets what was left; when Redis is
    there again, empty, everything counts that was sent."""
    with redis_running() as redis:
        async with together(redis.url) as members:
            own = {"upstream_calls": ("30/day",), "budget": 100}
            assert await sent(members, 12, **own) == 12  # of the day's 30 each has sent 4
            assert await sent(members, 28, budget=100) == 28
            await all_know(members, 100, 40)
            redis.kill()
            for one in members:
                assert await sent([one], 30, **own) == 6
                assert left(one, one.sending(**own)) == [0, 14]
            assert await sent(members, 99, budget=100) == 42
            redis.start_again()
            redis.wait()
            for one in members:
                await one.find_again()
            await all_know(members, 104, 100)
            assert await sent(members, 99, budget=104) == 4
    assert sum("can't be used" in line for line in caplog.messages) == 3
    assert sum("answers again" in line for line in caplog.messages) == 3


async def test_a_replica_that_lacks_the_last_calls_hears_of_them() -> None:
    """It stands in for its master, whose memory it has but for the last writes."""
    with redis_running() as redis:
        async with together(redis.url, 2) as members:
            assert await sent(members, 2, budget=10) == 2
            count, facts = redis.say("KEYS", "*:budget:*"), redis.say("KEYS", "*:facts")
            known, memory = redis.say("GET", count), redis.say("HGETALL", facts).split()
            assert await sent(members, 6, budget=10) == 6
            await all_know(members, 10, 8)
            redis.kill()
            assert await sent(members, 20, budget=8) == 0
            redis.start_again()
            redis.wait()
            redis.say("SET", count, known)
            redis.say("HSET", facts, *memory)
            for one in members:
                await one.find_again()
            assert await sent(members, 20, budget=10) == 2


async def test_a_redis_that_stands_still_delays_nobody_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those who were asking wait half a second, the others not at all; what it knew still counts
    when it goes on, and what was sent meanwhile is added."""
    with redis_running() as redis:
        async with together(redis.url, 2) as members:
            assert await sent(members, 4, budget=10) == 4
            await all_know(members, 10, 4)
            redis.pause()
            monkeypatch.setattr(shared, "SECONDS", 0.05)
            assert await sent(members, 20, budget=10) == 6
            assert await through(members, 50, calls=("10/day",)) == 10
            redis.go_on()
            monkeypatch.setattr(shared, "SECONDS", 20.0)
            for one in members:
                await one.find_again()
            await all_know(members, 11, 10)
            assert await sent(members, 20, budget=11) == 1


async def test_what_is_given_back_meanwhile_is_told_later() -> None:
    """A call that was counted together and was not made."""
    with redis_running() as redis:
        async with together(redis.url, 1) as [one]:
            assert await sent([one], 3, budget=3) == 3
            redis.kill()
            assert not await one.send(budget=3)
            one.limits.give_back(one.sending(budget=3))
            redis.start_again()
            redis.wait()
            await one.find_again()
            await all_know([one], 3, 2)
            assert await sent([one], 9, budget=3) == 1


async def test_a_redis_that_refuses_is_no_refusal_of_calls(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is full: each has its share, and the log says so once."""
    with redis_running("--maxmemory", "20mb") as redis:
        async with together(redis.url, 2) as members:
            assert await through(members, 2, calls=("10/day",)) == 2
            redis.say("CONFIG", "SET", "maxmemory", "1")
            assert await through(members, 40, calls=("10/day",)) == 8
            for one in members:
                assert left(one, one.coming(calls=("10/day",))) == [0]
                one.clock.advance(PAUSE_SECONDS)
            assert await through(members, 9, calls=("10/day",)) == 0
            redis.say("CONFIG", "SET", "maxmemory", "0")
            for one in members:
                one.clock.advance(PAUSE_SECONDS)
            assert await through(members, 9, calls=("10/day",)) == 8
    said = [one for one in caplog.messages if "this instance's share" in one]
    assert len(said) == 2
    assert len(caplog.records) == 2


async def test_an_instance_that_ends_counts_no_more(redis: RunningRedis) -> None:
    """The others have larger shares then."""
    async with together(redis.url) as members:
        await members[0].instances.stop()
        await members[1].instances.beat()
        assert members[1].instances.count == 2
