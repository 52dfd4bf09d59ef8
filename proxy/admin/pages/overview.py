"""The overview: calls over time, what they took and cost, who made them, how the services fare."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from starlette.responses import RedirectResponse, Response

from proxy.admin.pages.board import Board, Figures, Visit, example, signed
from proxy.admin.pages.formats import count, money, seconds, share
from proxy.health.watch import Standing
from proxy.usage.store import DAY, HOUR, Trouble, UsageError, Which
from proxy.usage.sums import Sums

MOST_USERS: Final = 12
MOST_CALLS: Final = 6
MOST_TROUBLES: Final = 8

_OFF: Final = "Usage is switched off: set usage.enabled in keys.yaml to see figures here."
_UNREADABLE: Final = "Usage can't be read now; the log says why. Calls go on."
_STATES: Final = {
    "unknown": "not called yet",
    "healthy": "healthy",
    "unhealthy": "failing",
    "key_refused": "refuses our key",
}


@dataclass(frozen=True, slots=True)
class Range:
    """How far back, in steps of which width (seconds)."""

    name: str
    words: str
    step: Literal["minute", "hour", "day"]
    width: int
    steps: int

    def which(self, now: float, tenant: str) -> Which:
        """Whole steps, of which the last one is under way."""
        until = (int(now // self.width) + 1) * self.width
        since = until - self.steps * self.width
        return Which(since, until, tenant)


RANGES: Final = {
    one.name: one
    for one in (
        Range("1h", "hour", "minute", 60, 60),
        Range("24h", "24 hours", "hour", HOUR, 24),
        Range("7d", "7 days", "hour", HOUR, 168),
        Range("30d", "30 days", "day", DAY, 30),
    )
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line, or one layer of bars."""

    name: str
    colour: str
    value: Callable[[Sums], float | None]


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn, and the same as a table."""

    title: str
    unit: str
    stacked: bool
    lines: tuple[Line, ...]
    words: Callable[[float | None], str]
    times: Sequence[int] = ()
    sums: Sequence[Sums] = ()
    width: int = HOUR
    height: int = 190

    @property
    def json(self) -> str:
        """For the script that draws."""
        lines = [
            {
                "name": line.name,
                "colour": line.colour,
                "values": [line.value(one) for one in self.sums],
            }
            for line in self.lines
        ]
        drawn = {"unit": self.unit, "stacked": self.stacked, "height": self.height}
        span = {"step": self.width, "span": self.width * len(self.times)}
        return json.dumps({**drawn, **span, "x": list(self.times), "lines": lines})

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """The newest first, without the empty ones."""
        found = zip(reversed(self.times), reversed(self.sums), strict=True)
        return [
            (at, *(self.words(line.value(one)) for line in self.lines))
            for at, one in found
            if one.calls
        ]


def _spared(one: Sums) -> int:
    return one.hits + one.joined


def _failed(one: Sums) -> int:
    return one.calls - one.successful


CHARTS: Final = (
    Chart(
        "Calls",
        "count",
        True,
        (
            Line("from the cache", "hit", _spared),
            Line("upstream", "up", lambda one: max(one.calls - _spared(one) - _failed(one), 0)),
            Line("failed", "error", lambda one: min(_failed(one), one.calls - _spared(one))),
        ),
        count,
        height=230,
    ),
    Chart(
        "Time to the end of a call",
        "seconds",
        False,
        (
            Line("p50", "p50", lambda one: one.percentile(0.5)),
            Line("p90", "p90", lambda one: one.percentile(0.9)),
            Line("p99", "p99", lambda one: one.percentile(0.99)),
        ),
        seconds,
    ),
    Chart(
        "Hit rate",
        "share",
        False,
        (Line("of all calls", "hit", lambda one: _spared(one) / one.calls if one.calls else None),),
        share,
    ),
    Chart(
        "Money",
        "money",
        True,
        (
            Line("saved", "saved", lambda one: one.saved),
            Line("spent", "spent", lambda one: one.cost),
        ),
        money,
    ),
)


@dataclass(frozen=True, slots=True)
class Fare:
    """How a service fares, in words."""

    service: str
    state: str
    words: str
    heard: float
    trouble: str

    @classmethod
    def of(cls, one: Standing) -> Fare:
        """Only what goes wrong now has a trouble."""
        failing = [place.tally for place in one.places if place.tally.failures]
        refusing = [place.tally for place in one.places if place.tally.refusals]
        trouble = ""
        if failing:
            trouble = f"{failing[0].failures} failed in a row, the last with {failing[0].trouble}"
        elif refusing:
            trouble = (
                f"{refusing[0].refusals} refused in a row, the last with {refusing[0].trouble}"
            )
        return cls(one.service, one.state, _STATES[one.state], one.heard, trouble)


async def overview(board: Board, visit: Visit) -> Response:
    """The page."""
    if "begun" in visit.request.query_params:
        return RedirectResponse("/admin", 303)
    span = RANGES.get(visit.asked("range"), RANGES["24h"])
    keys = await board.admin.acts.keys(visit.who)
    values: dict[str, Any] = {
        "ranges": RANGES,
        "range": span,
        "keys": keys,
        "example": example(visit, keys),
        "health": [Fare.of(one) for one in await board.standings(visit.who)],
        "trouble": _OFF,
        "total": Sums({}),
    }
    if board.figures is not None:
        try:
            values |= await _figures(board.figures, span, board.now, visit.who.tenant)
        except UsageError:
            values["trouble"] = _UNREADABLE
    return signed(board, visit, "overview", "overview.html", **values)


async def _figures(asked: Figures, span: Range, now: float, tenant: str) -> dict[str, Any]:
    which = span.which(now, tenant)
    summed = asked.minutes if span.step == "minute" else asked.sums
    [total, steps, services, users] = await summed(
        which, (), (span.step,), ("service",), ("token", "service")
    )
    users.sort(key=_most)
    costliest = await asked.calls(which, "costliest", MOST_CALLS)
    return {
        "trouble": "",
        "total": next(iter(total), Sums({})),
        "charts": _charts(span, which, steps),
        "services": sorted(services, key=_most),
        "users": users[:MOST_USERS],
        "more_users": max(len(users) - MOST_USERS, 0),
        "slowest": await asked.calls(which, "slowest", MOST_CALLS),
        "costliest": [one for one in costliest if one.cost],
        "errors": [Mishap.of(one) for one in await asked.troubles(which, MOST_TROUBLES)],
    }


def _most(one: Sums) -> int:
    return -one.calls


def _charts(span: Range, which: Which, found: Sequence[Sums]) -> list[Chart]:
    """Every step stands there, also one without calls."""
    by_time = {one.group[span.step]: one for one in found}
    times = range(int(which.since), int(which.until), span.width)
    sums = [by_time.get(at, Sums({})) for at in times]
    priced = any(one.cost is not None for one in found)
    charts = CHARTS if priced else CHARTS[:-1]
    return [replace(chart, times=times, sums=sums, width=span.width) for chart in charts]


@dataclass(frozen=True, slots=True)
class Mishap:
    """One kind of failure, in words."""

    status: int
    words: str
    service: str
    calls: int
    newest: float

    @classmethod
    def of(cls, one: Trouble) -> Mishap:
        """An upstream's own error has no code of ours."""
        words = one.code.replace("_", " ") or ("answered by the upstream" if one.status else "")
        if not words:
            words = "the caller hung up"
        return cls(one.status, words, one.service, one.calls, one.newest)
