"""Medians, spread, percentiles, and what they say of the goals."""

from __future__ import annotations

import pytest

from bench.figures import Figures
from bench.huge import Huge
from bench.latency import Latency
from bench.reach import Goal, goals
from bench.slow import Slow
from bench.start import Start
from bench.summary import Sample, percentile, summarise


def sample(server: str, case: str, cpu: float, failed: int = 0) -> Sample:
    return Sample(server, case, cpu, 1e6 / cpu, 100.0, 200.0, failed)


def test_rows_are_medians_of_rounds() -> None:
    """The median is told, with the least and the most; failures add up."""
    rounds = [sample("keyrelay", "hit", cpu, 1) for cpu in (60.0, 50.0, 90.0)]
    row = summarise([*rounds, sample("nginx", "hit", 10.0)])["keyrelay", "hit"]
    assert (row.cpu, row.cpu_least, row.cpu_most, row.rounds) == (60.0, 50.0, 90.0, 3)
    assert row.spread == pytest.approx(40 / 60)
    assert row.failed == 3


def test_rows_keep_their_order() -> None:
    """In the order in which they first came."""
    samples = [sample("b", "x", 1.0), sample("a", "x", 1.0), sample("b", "x", 1.0)]
    assert list(summarise(samples)) == [("b", "x"), ("a", "x")]


def test_spread_of_nothing() -> None:
    """A case without a request costs nothing, and has no spread."""
    free = Sample("keyrelay", "hit", 0.0, 0.0, 0.0, 0.0)
    assert summarise([free])["keyrelay", "hit"].spread == 0.0


def test_percentile_is_a_value_that_was_measured() -> None:
    """Nearest rank: half of a hundred is the fiftieth."""
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, part) for part in (0.0, 0.5, 0.99, 1.0)] == [1, 50, 99, 100]


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(None, "not measured"), (4.0, "not reached"), (2.5, "reached"), (2.0, "aim reached")],
)
def test_small_is_good(value: float | None, verdict: str) -> None:
    """At most what is wanted; the aim is stricter."""
    assert Goal("path", "x", value, 3.0, 2.0).verdict == verdict


@pytest.mark.parametrize(("value", "verdict"), [(99.0, "not reached"), (100.0, "reached")])
def test_large_is_good(value: float, verdict: str) -> None:
    """At least what is wanted, where one is so many times lighter."""
    assert Goal("path", "x lighter", value, 100.0, more=True).verdict == verdict


def test_aim_alone() -> None:
    """A goal may be hoped for only."""
    assert Goal("path", "x", 5.0, None, 4.0).verdict == "aim not reached"


def test_goals_are_ratios_of_one_run() -> None:
    """Every cost by what it is compared with."""
    costs = {
        ("uvicorn", "bare"): 20.0,
        ("keyrelay", "hit"): 50.0,
        ("keyrelay", "forward"): 80.0,
        ("keyrelay", "sse"): 15.0,
        ("nginx", "forward"): 16.0,
        ("varnish", "hit"): 25.0,
        ("portkey", "forward"): 1200.0,
        ("litellm", "forward"): 8000.0,
        ("litellm-cache", "hit"): 6000.0,
    }
    rows = summarise(sample(*key, cpu) for key, cpu in costs.items())
    found = [goal.value for goal in goals(rows, Figures())]
    assert found[:8] == [2.5, 120.0, 2.0, 4.0, 15.0, 100.0, 5.0, 0.75]
    assert set(found[8:]) == {None}


def test_goals_of_figures() -> None:
    """Milliseconds, kB and MB, seconds; nothing of them is a ratio."""
    figures = Figures(
        Start(0.7, 70e6),
        Latency(1e3, 1e3, 0, 0, 0, 0, 300, 1500),
        Slow(1000, 35e3, 1),
        Huge(9, 0, 0, 0),
    )
    found = [(goal.value, goal.verdict) for goal in goals({}, figures)[12:]]
    assert found == [
        (0.3, "reached"),
        (1.5, "reached"),
        (35.0, "aim reached"),
        (1.0, "not reached"),
        (9e-6, "aim reached"),
        (0.0, "aim reached"),
        (0.7, "aim reached"),
        (70.0, "aim reached"),
    ]
