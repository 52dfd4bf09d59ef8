"""The table of all rows, as text."""

from __future__ import annotations

from collections.abc import Sequence

from bench.reach import Goal
from bench.summary import Row

GOAL_HEADINGS = ("path", "in", "measured", "at least", "aim", "")
HEADINGS = ("server", "case", "us CPU", "spread", "per second", "p50", "p99", "failed")


def columns(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Text in columns: numbers to the right; the first two, and one without a heading, left."""
    every = [headings, *lines]
    widths = [max(len(line[at]) for line in every) for at in range(len(headings))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if at < 2 or not headings[at] else text.rjust(width)
            for at, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in every
    )


def rows(found: Sequence[Row]) -> str:
    """One line per server and case."""
    return columns(HEADINGS, [_line(row) for row in found])


def _line(row: Row) -> list[str]:
    return [
        row.server,
        row.case,
        f"{row.cpu:,.1f}",
        f"{row.spread:.0%}",
        f"{row.per_second:,.0f}",
        milliseconds(row.p50),
        milliseconds(row.p99),
        f"{row.failed:,}" if row.failed else "",
    ]


def milliseconds(microseconds: float) -> str:
    """`1.25 ms`."""
    return f"{microseconds / 1000:,.2f} ms"


def goals(found: Sequence[Goal]) -> str:
    """One line per goal."""
    return columns(GOAL_HEADINGS, [_goal(goal) for goal in found])


def _goal(goal: Goal) -> list[str]:
    numbers = [number(one) for one in (goal.value, goal.least, goal.aim)]
    return [goal.path, goal.unit, *numbers, goal.verdict]


def number(value: float | None) -> str:
    """Short: three significant digits below a hundred."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
