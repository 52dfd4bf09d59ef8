"""Limits as people write them: `60/minute`, `1000 per day`, `openai=100/5 minutes`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Final, NamedTuple

EXPECTED: Final = "expected a limit such as 60/minute, 1000/day or 100/5 minutes"
_UNITS: Final = {
    "second": 1,
    "minute": 60,
    "hour": 3600,
    "day": 86_400,
    "week": 7 * 86_400,
    "month": 30 * 86_400,
}
_MOST: Final = 10**9
_LONGEST: Final = 366 * 86_400
_RATE: Final = re.compile(
    r"\s*([0-9]{1,10})\s*(?:/|\s+per\s+)\s*(?:([0-9]{1,8})\s*)?([a-z]+?)s?\s*",
    re.ASCII | re.IGNORECASE,
)
_SERVICE: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)


class Rate(NamedTuple):
    """So many calls in so many seconds. `period`: those in words, such as `minute`, `5minutes`."""

    amount: int
    seconds: int
    period: str

    def __str__(self) -> str:
        """The canonical text."""
        return f"{self.amount}/{self.period}"


class Limit(NamedTuple):
    """A rate, for one service or (None) for all of them together."""

    service: str | None
    rate: Rate

    def __str__(self) -> str:
        """The canonical text."""
        return f"{self.rate}" if self.service is None else f"{self.service}={self.rate}"


def parse_rate(text: str) -> Rate:
    """`N/unit`, `N/M units` or the same with `per`; a unit is second, minute, hour, day, week (7
    days) or month (30 days). Raises ValueError with a sentence that says what was expected."""
    match = _RATE.fullmatch(text)
    unit = match[3].lower() if match else ""
    if match is None or unit not in _UNITS:
        raise ValueError(f"{EXPECTED}; a unit is one of {', '.join(_UNITS)}")
    amount, times = int(match[1]), int(match[2] or 1)
    seconds = times * _UNITS[unit]
    if not 0 < amount <= _MOST or not 0 < seconds <= _LONGEST:
        raise ValueError(f"{EXPECTED}: from 1 to {_MOST} calls, in at most 366 days")
    return Rate(amount, seconds, unit if times == 1 else f"{times}{unit}s")


def parse_limit(text: str) -> Limit:
    """A rate, or `SERVICE=RATE`; raises ValueError."""
    service, equals, rate = text.rpartition("=")
    if not equals:
        return Limit(None, parse_rate(rate))
    if not _SERVICE.fullmatch(service.strip()):
        raise ValueError(f"{EXPECTED}, or openai=60/minute for one service")
    return Limit(service.strip(), parse_rate(rate))


def in_order(limits: Iterable[Limit]) -> tuple[Limit, ...]:
    """Each once, by service and then the shortest period first; raises ValueError where two differ
    in nothing but the number."""
    ordered = sorted(
        set(limits), key=lambda one: (one.service or "", one.rate.seconds, one.rate.amount)
    )
    for one, other in pairwise(ordered):
        if (one.service, one.rate.seconds) == (other.service, other.rate.seconds):
            raise ValueError(f"expected one limit for each period, found {one} and {other}")
    return tuple(ordered)
