"""A clock that is set takes no usage away before anybody could set it right."""

from __future__ import annotations

import pytest

from proxy.usage import Prices, Usage, UsageSettings, UsageStore, Which
from proxy.usage.steady import BELIEVED, JUMP, SteadyTime
from proxy.usage.store import DAY
from tests.proxy.usage.conftest import NOON, a_row


class TwoClocks:
    """One that somebody sets, and one that nobody can."""

    def __init__(self) -> None:
        self.wall, self.steady = NOON, 1000.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def go(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


def test_a_jump_forward_is_believed_after_a_day(caplog: pytest.LogCaptureFixture) -> None:
    """Until then time goes on as if nothing had happened; said once."""
    clocks = TwoClocks()
    time = SteadyTime(clocks)
    clocks.wall += 30 * DAY
    assert time.now() == NOON
    clocks.go(BELIEVED - 1)
    assert time.now() == NOON + BELIEVED - 1
    assert caplog.text.count("jumped forward") == 1
    clocks.go(1)
    assert time.now() == clocks.wall == NOON + 30 * DAY + BELIEVED
    assert caplog.text.count("jumped forward") == 1


def test_a_clock_that_is_set_right_again_was_never_believed() -> None:
    """Nor does the next jump inherit the time of the first."""
    clocks = TwoClocks()
    time = SteadyTime(clocks)
    for _ in range(3):
        clocks.wall += 30 * DAY
        assert time.now() < NOON + DAY
        clocks.go(BELIEVED / 4)
        clocks.wall -= 30 * DAY
        assert time.now() == clocks.wall


def test_small_steps_and_steps_back_are_followed_at_once() -> None:
    """Drift is made good all the time; too young a time sweeps nothing."""
    clocks = TwoClocks()
    time = SteadyTime(clocks)
    for step in (JUMP, JUMP, -DAY, JUMP):
        clocks.wall += step
        clocks.go(60)
        assert time.now() == pytest.approx(clocks.wall)


def test_usage_outlives_a_clock_that_jumps(store: UsageStore) -> None:
    """Rows of today are there after a sweep in a year that is none."""
    clocks = TwoClocks()
    usage = Usage(store, Prices({}), clocks, UsageSettings())
    store.open()
    store.write([a_row(began=NOON)])
    for jump, left in ((3 * 365 * DAY, 1), (0, 1)):
        clocks.wall += jump
        usage._sweep()
        assert len(store.calls(Which(0, 10**11), "newest", 9)) == left
    clocks.go(BELIEVED)
    usage._sweep()
    assert store.calls(Which(0, 10**11), "newest", 9) == []
    usage._executor.shutdown()
    usage._readers.shutdown()
