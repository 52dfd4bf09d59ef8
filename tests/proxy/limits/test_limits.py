"""Windows, atomically, by a clock that a test moves."""

from __future__ import annotations

import asyncio
from collections import deque
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter, SlidingWindowCounterRateLimiter

from proxy.config import Limits as Section
from proxy.errors import BudgetSpent, CallsSpent, TooManyRequests
from proxy.grant import Allowance
from proxy.limits.budgets import month_of
from proxy.limits.counts import Kind
from proxy.limits.grammar import parse_rate
from proxy.limits.limiter import LIMITERS, MemoryLimiter
from proxy.limits.limits import Limits
from proxy.limits.rules import Bill, Rule, Window
from proxy.record import Account
from tests.proxy.limits.conftest import granted, limits_of, standing
from tests.support.clock import FakeClock

kinds = pytest.mark.parametrize("kind", ["sliding", "moving"])


def window(amount: int, seconds: int, key: str = "k") -> Window:
    return Window(f"{key}/{seconds}", amount, seconds, key, key)


async def allowed(limits: Limits, tries: int, **grant: object) -> int:
    """How many of so many calls get through."""
    through = 0
    for _ in range(tries):
        try:
            await limits.check(granted(**grant), Account())  # type: ignore[arg-type]
        except TooManyRequests:
            continue
        through += 1
    return through


def test_the_kinds_are_those_of_the_configuration() -> None:
    """`limits.window` is a row of LIMITERS."""
    for kind in LIMITERS:
        assert Section(window=kind).window == kind  # type: ignore[arg-type]
    assert set(LIMITERS) == {"sliding", "moving"}


@kinds
async def test_a_window_has_room_for_so_many_calls(kind: Kind) -> None:
    """And for as many again once it is over."""
    clock = FakeClock()
    limits = limits_of(clock, kind=kind)
    assert await allowed(limits, 9, calls=("5/minute",)) == 5
    clock.advance(59)
    assert await allowed(limits, 9, calls=("5/minute",)) == 0
    clock.advance(61)
    assert await allowed(limits, 9, calls=("5/minute",)) == 5


async def test_a_sliding_window_weighs_the_one_before() -> None:
    """Half a window later half of its calls count."""
    clock = FakeClock(now=60_000.0)
    limits = limits_of(clock)
    assert await allowed(limits, 20, calls=("10/minute",)) == 10
    clock.advance(90)
    assert await allowed(limits, 20, calls=("10/minute",)) == 5


@kinds
async def test_a_refused_call_takes_no_slot_of_another_window(kind: Kind) -> None:
    """The first window has room, the second has not: neither has counted the call."""
    clock = FakeClock(now=60_000.0)
    limiter = LIMITERS[kind](clock)
    windows = (window(10, 60), window(3, 3600))
    for _ in range(3):
        assert (limiter.take(windows))[0]
    taken, states = limiter.take(windows)
    assert not taken
    assert [state.left for state in states] == [7, 0]
    for _ in range(20):
        limiter.take(windows)
    assert limiter.look(windows)[0].left == 7


@kinds
async def test_no_call_slips_through_beside_another(kind: Kind) -> None:
    """A thousand at once, and exactly as many pass as there are slots."""
    limits = limits_of(FakeClock(), kind=kind)
    grant = granted(calls=("100/minute", "150/hour"))

    async def one() -> bool:
        try:
            await limits.check(grant, Account())
        except TooManyRequests:
            return False
        return True

    assert sum(await asyncio.gather(*(one() for _ in range(1000)))) == 100


@settings(deadline=None)
@given(
    kind=st.sampled_from(["sliding", "moving"]),
    amount=st.integers(1, 6),
    steps=st.lists(st.floats(0, 30), min_size=1, max_size=60),
)
async def test_the_wait_that_is_told_is_enough(kind: str, amount: int, steps: list[float]) -> None:
    """Whoever waits as long as a refusal says gets through; and never are there too many."""
    clock = FakeClock(now=1000.0)
    limiter = LIMITERS[kind](clock)
    windows = (window(amount, 20), window(amount * 2, 60))
    passed: deque[float] = deque()
    for step in steps:
        clock.advance(step)
        taken, states = limiter.take(windows)
        if taken:
            passed.append(clock.now())
        else:
            clock.advance(max(state.seconds for state in states if not state.left) + 0.001)
            assert (limiter.take(windows))[0]
            passed.append(clock.now())
        if kind == "moving":
            assert len([at for at in passed if at > clock.now() - 20]) <= amount


@kinds
@pytest.mark.parametrize(("lowered", "start"), [(1, 960.0), (3, 1000.0), (9, 1010.0)])
async def test_the_wait_is_enough_under_a_limit_that_was_lowered(
    kind: Kind, lowered: int, start: float
) -> None:
    """More calls count than there may be: it is told when so many of them have left."""
    clock = FakeClock(now=start)
    limiter = LIMITERS[kind](clock)
    for _ in range(10):
        limiter.take((window(10, 60),))
        clock.advance(1)
    lower = (window(lowered, 60),)
    [(left, seconds)] = limiter.look(lower)
    assert left == 0
    clock.advance(seconds - 0.5)
    assert not (limiter.take(lower))[0]
    clock.advance(0.501)
    assert (limiter.take(lower))[0]


async def test_an_answer_tells_how_limits_stand_when_it_is_written() -> None:
    """Not when its call began, which may be minutes ago."""
    clock = FakeClock(now=960.0)
    limits, account = limits_of(clock), Account()
    await limits.check(granted(calls=("2/minute",)), account)
    await limits.check(granted(calls=("2/minute",)), Account())
    clock.advance(45)
    assert standing(account)["ratelimit"] == '"token-minute";r=0;t=15'
    assert standing(account)["x-ratelimit-reset"] == "1020"
    clock.advance(115)
    assert standing(account)["ratelimit"] == '"token-minute";r=2;t=20'


@kinds
async def test_a_slot_that_is_given_back_is_free_again(kind: Kind) -> None:
    """And what was never taken gives nothing back."""
    limiter = LIMITERS[kind](FakeClock())
    windows = (window(1, 60), window(1, 3600))
    limiter.give_back(windows)
    assert (limiter.take(windows))[0]
    assert not (limiter.take(windows))[0]
    limiter.give_back(windows)
    assert (limiter.take(windows))[0]


@kinds
async def test_a_slot_is_given_back_to_the_window_that_it_was_taken_from(kind: Kind) -> None:
    """Or, where that is over, to none: what has been taken since stays taken."""
    clock = FakeClock(now=960.0)
    limiter, windows = LIMITERS[kind](clock), (window(2, 60),)
    clock.advance(30)
    taken = clock.monotonic()
    assert limiter.take(windows)[0]
    clock.advance(130)
    for _ in range(2):
        assert limiter.take(windows)[0]
    limiter.give_back(windows, taken)
    assert not limiter.take(windows)[0]


async def test_a_slot_of_the_window_before_weighs_no_more() -> None:
    """It was to weigh on in this one as long as a part of the other is within the time."""
    clock = FakeClock(now=960.0)
    limiter, windows = LIMITERS["sliding"](clock), (window(4, 60),)
    clock.advance(59)
    taken = clock.monotonic()
    for _ in range(4):
        assert limiter.take(windows)[0]
    clock.advance(1)
    assert not limiter.take(windows)[0]
    limiter.give_back(windows, taken)
    assert limiter.take(windows)[0]
    assert not limiter.take(windows)[0]


@kinds
async def test_the_counters_of_ten_thousand_tokens_are_dropped(kind: Kind) -> None:
    """Once what they counted is over; no thread is needed for that."""
    clock = FakeClock()
    limiter = LIMITERS[kind](clock)
    assert isinstance(limiter, MemoryLimiter)
    for number in range(10_000):
        limiter.take((window(5, 60, f"token-{number}"),))
    assert len(limiter) == 10_000
    clock.advance(30)
    limiter.take((window(5, 60, "late"),))
    clock.advance(100)
    limiter.take((window(5, 60, "other"),))
    assert len(limiter) <= 2


class RunningClock(FakeClock):
    """Goes on whenever somebody looks, as clocks do."""

    def monotonic(self) -> float:
        self.advance(0.0021)
        return super().monotonic()


@kinds
async def test_a_refusal_says_how_windows_stood_when_there_was_no_room(kind: Kind) -> None:
    """A moment later there may be some; then nothing would say for which of them to wait."""
    clock = RunningClock()
    limits, refused = limits_of(clock, kind=kind), 0
    for _ in range(1500):
        try:
            await limits.check(granted(calls=("300/second",)), Account())
        except TooManyRequests:
            refused += 1
    assert refused > 100


@kinds
async def test_a_sweep_drops_no_counter_that_is_about_to_count(kind: Kind) -> None:
    """Also where the call that begins another counter finds the first one empty."""
    clock = FakeClock()
    limiter, idle, fresh = LIMITERS[kind](clock), window(1, 60, "idle"), window(9, 60, "fresh")
    limiter.take((idle,))
    clock.advance(200)
    assert limiter.take((idle, fresh))[0]
    assert not (limiter.take((idle,)))[0]


async def test_without_a_limit_nothing_is_noted() -> None:
    """No field, no counter."""
    limits, account = limits_of(FakeClock()), Account()
    await limits.check(granted(), account)
    assert (account.limited, account.standing) == (None, b"")
    limits = limits_of(FakeClock(), Rule(tenant="other", calls=(parse_rate("1/day"),)))
    await limits.check(granted(), account)
    assert account.limited is None


async def test_the_fields_are_those_of_the_draft() -> None:
    """A member for each window; the three older fields tell of the one with the least left."""
    limits, account = limits_of(FakeClock(now=86_400.0 * 1000)), Account()
    grant = granted(calls=("100/minute", "120/day"), upstream_calls=("openai=10/hour",), budget=50)
    await limits.check(grant, account)
    assert standing(account) == {
        "ratelimit-policy": '"token-minute";q=100;w=60, "token-day";q=120;w=86400, '
        '"token-openai-upstream-hour";q=10;w=3600, "budget";q=50',
        "ratelimit": '"token-minute";r=99;t=60, "token-day";r=119;t=86400, '
        '"token-openai-upstream-hour";r=10;t=3600, "budget";r=50;t=345600',
        "x-ratelimit-limit": "10",
        "x-ratelimit-remaining": "10",
        "x-ratelimit-reset": str(86_400 * 1000 + 3600),
    }


async def test_a_refusal_says_how_long_to_wait() -> None:
    """The true time in the sentence; beyond a minute a retry of the SDK's own can't help."""
    limits = limits_of(FakeClock(now=60_000.0))
    await limits.check(granted(calls=("1/minute",)), Account())
    account = Account()
    with pytest.raises(TooManyRequests) as refused:
        await limits.check(granted(calls=("1/minute",)), account)
    assert refused.value.detail == (
        "This token may make 1 call per minute; try again in 60 seconds."
    )
    assert (refused.value.retry_after, refused.value.fields) == (60, ())
    assert standing(account)["ratelimit"] == '"token-minute";r=0;t=60'
    with pytest.raises(TooManyRequests) as refused:
        await allowed_once(limits, "1/day")
        await limits.check(granted(calls=("1/day",)), Account())
    assert refused.value.fields == ((b"x-should-retry", b"false"),)
    assert refused.value.retry_after is not None
    assert refused.value.retry_after > 60


async def allowed_once(limits: Limits, text: str) -> None:
    await limits.check(granted(calls=(text,)), Account())


async def test_another_amount_goes_on_with_what_was_counted() -> None:
    """A raised limit gives the difference, no fresh start."""
    limits = limits_of(FakeClock())
    assert await allowed(limits, 9, calls=("5/minute",)) == 5
    assert await allowed(limits, 9, calls=("8/minute",)) == 3
    assert await allowed(limits, 9, calls=("2/minute",)) == 0


async def test_other_rules_hold_at_once() -> None:
    """As after a reload of the configuration."""
    limits = limits_of(FakeClock(), Rule(token="*", calls=(parse_rate("2/day"),)))
    assert await allowed(limits, 5) == 2
    limits.become([Rule(token="*", calls=(parse_rate("3/day"),))], "sliding")
    assert await allowed(limits, 5) == 1
    limits.become([], "moving")
    assert await allowed(limits, 5) == 5


async def test_upstream_calls_and_the_budget_are_counted_apart() -> None:
    """All or none: with no slot the budget is whole, with no budget the slots are."""
    limits = limits_of(FakeClock())
    bill = sending(limits, upstream_calls=("2/minute",), budget=5)
    await limits.spend(bill)
    await limits.spend(bill)
    for _ in range(5):
        with pytest.raises(TooManyRequests) as refused:
            await limits.spend(bill)
        assert refused.value.code == "rate_limited"
    assert limits._counts.look(bill)[-1].left == 3
    spent = sending(limits, upstream_calls=("9/minute",), budget=2)
    for _ in range(20):
        with pytest.raises(BudgetSpent, match="begins on 2027-02-01"):
            await limits.spend(spent)
    limits.give_back(spent)
    await limits.spend(spent)


async def test_a_call_of_last_month_frees_none_of_this_one() -> None:
    """It went out before the month's end, and was not made after all."""
    clock = FakeClock()
    limits = limits_of(clock)
    bill = sending(limits, budget=1)
    taken = await limits.spend(bill)
    clock.advance(month_of(clock.now())[2] - clock.now())
    limits.give_back(bill, await limits.spend(bill))
    await limits.spend(bill)
    limits.give_back(bill, taken)
    with pytest.raises(BudgetSpent):
        await limits.spend(bill)


async def test_so_many_calls_in_all_and_no_more() -> None:
    """At once or one by one, in any month; more are the difference, and fewer than were made are
    none."""
    clock = FakeClock()
    limits = limits_of(clock)
    tries = await asyncio.gather(*(allowed(limits, 1, ever=7) for _ in range(57)))
    assert sum(tries) == 7
    clock.advance(400 * 86_400)
    assert await allowed(limits, 9, ever=7) == 0
    assert await allowed(limits, 9, ever=10) == 3
    assert await allowed(limits, 9, ever=2) == 0
    assert await allowed(limits, 9, token="bob", ever=2) == 2


async def test_calls_in_all_are_told_without_a_time() -> None:
    """There never is room again."""
    limits, account = limits_of(FakeClock(now=86_400.0 * 1000)), Account()
    grant = granted(calls=("5/day",), ever=2)
    await limits.check(grant, account)
    assert standing(account) == {
        "ratelimit-policy": '"token-day";q=5;w=86400, "calls";q=2',
        "ratelimit": '"token-day";r=4;t=86400, "calls";r=1',
        "x-ratelimit-limit": "2",
        "x-ratelimit-remaining": "1",
    }
    await limits.check(grant, account)
    with pytest.raises(CallsSpent) as refused:
        await limits.check(grant, account)
    assert refused.value.detail == (
        "This platform token has made all calls that it may, 2 in all; the admin can allow more "
        "with: keyrelay token set NAME --calls N"
    )
    assert refused.value.retry_after is None
    assert standing(account)["ratelimit"] == '"token-day";r=3;t=86400, "calls";r=0'


async def test_a_call_that_a_window_refuses_is_none_of_all() -> None:
    """Nor one of the short-lived token that made it; and the other way round."""
    limits = limits_of(FakeClock())
    short = Allowance("serial", 5, 1e12)
    assert await allowed(limits, 9, calls=("2/day",), ever=5, allowance=short) == 2
    assert await allowed(limits, 9, ever=4, allowance=short) == 2
    assert await allowed(limits, 9, ever=9, allowance=short) == 1
    assert await allowed(limits, 9, ever=9) == 4
    with pytest.raises(CallsSpent, match="This platform token"):
        await limits.check(granted(ever=9, allowance=short._replace(serial="other")), Account())
    with pytest.raises(CallsSpent, match="of this short-lived token are made"):
        await limits.check(granted(ever=99, allowance=short), Account())


def sending(limits: Limits, **own: object) -> Bill:
    """What a call takes that goes out."""
    plan = limits.plan(granted(**own))  # type: ignore[arg-type]
    assert plan is not None
    assert plan.upstream_calls is not None
    return plan.upstream_calls


class Unswept(MemoryStorage):
    """The library's counters without the threads that drop them."""

    _MemoryStorage__schedule_expiry = staticmethod(lambda: None)


@kinds
@given(st.lists(st.sampled_from([0, 3, 3, 12, 30, 66, 129]), max_size=60), st.integers(1, 12))
async def test_the_library_would_let_the_same_calls_through(
    kind: Kind, steps: list[int], amount: int
) -> None:
    """`limits` is the oracle. Seconds that floats hold exactly; where a call leaves on the dot of a
    moving window, it keeps it a moment longer: no step is a whole window."""
    clock = FakeClock(now=float(2**20))
    limiter, item = LIMITERS[kind](clock), RateLimitItemPerSecond(amount, 64)
    with patch("limits.storage.memory.time", SimpleNamespace(time=clock.monotonic)):
        strategies = {"sliding": SlidingWindowCounterRateLimiter, "moving": MovingWindowRateLimiter}
        library = strategies[kind](Unswept())
        for step in steps:
            clock.advance(step)
            assert (limiter.take((window(amount, 64),)))[0] == library.hit(item)


async def test_a_grant_that_takes_the_place_of_another_has_its_own_plan() -> None:
    """Plans are remembered by the grant itself, not by where it lay in memory."""
    limits = limits_of(FakeClock())
    amounts = []
    for amount in range(1, 200):
        found = limits.plan(granted(calls=(f"{amount}/minute",)))
        assert found is not None
        amounts += [amount for _, amount in found.quotas]
    assert amounts == list(range(1, 200))
