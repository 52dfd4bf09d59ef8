"""The calls of short-lived tokens with a number of them."""

from __future__ import annotations

from proxy.grant import Allowance
from proxy.limits.allowances import Allowances
from tests.support.clock import FakeClock


def test_so_many_calls_and_no_more() -> None:
    """Each token by itself; one given back can be made."""
    counts = Allowances(FakeClock())
    one, other = Allowance("a", 2, 1e12), Allowance("b", 1, 1e12)
    counts.take(one)
    counts.take(other)
    counts.take(one)
    assert (counts.left(one), counts.left(other)) == (0, 0)
    assert counts.take(one) == "allowance"
    counts.give_back(one)
    assert counts.left(one) == 1
    counts.take(one)


def test_what_is_over_is_forgotten_and_nothing_else() -> None:
    """Bounded; where all that are counted are still good, another one can't be."""
    clock = FakeClock()
    counts = Allowances(clock, most=2)
    counts.take(Allowance("a", 9, clock.now() + 60))
    counts.take(Allowance("b", 9, clock.now() + 90))
    late = Allowance("c", 9, clock.now() + 999)
    assert counts.take(late) == "memory"
    clock.advance(60)
    counts.take(late)
    assert len(counts) == 2
    assert counts.left(Allowance("b", 9, 0)) == 8
