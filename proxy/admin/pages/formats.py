"""Numbers, times and shares as people read them; pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

NOTHING: Final = "–"
"""Stands where there is no number."""

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_STEPS: Final = ((2 * 365 * _DAY, 365 * _DAY, "year"), (2 * _DAY, _DAY, "day"))


def count(number: float | None) -> str:
    """12,345."""
    return NOTHING if number is None else f"{number:,.0f}"


def short(number: float | None) -> str:
    """Four digits at most: 9,876, 12.3k, 4.56M."""
    if number is None or number < 9999.5:
        return count(number)
    return "".join(_three(number, ((1e9, "G"), (1e6, "M"), (1e3, "k"))))


def share(part: float | None, whole: float = 1.0) -> str:
    """A percentage; one that is not quite all or nothing never looks like it."""
    if part is None or not whole:
        return NOTHING
    percent = 100 * part / whole
    if 99.9 < percent < 100:
        return "99.9%"
    if 0 < percent < 0.1:
        return "<0.1%"
    return f"{percent:.0f}%" if percent in (0, 100) else f"{percent:.1f}%"


def money(amount: float | None) -> str:
    """In whatever currency the price table counts."""
    if amount is None:
        return NOTHING
    if amount and abs(amount) < 0.01:
        return f"{amount:.4f}"
    return f"{amount:,.2f}"


def seconds(duration: float | None) -> str:
    """0.4 ms, 37 ms, 1.24 s, 3 min 20 s."""
    if duration is None:
        return NOTHING
    if duration < 0.00995:
        return f"{duration * 1e3:.1f} ms"
    if duration < 0.9995:
        return f"{duration * 1e3:.0f} ms"
    if duration < 59.95:
        return " ".join(_three(duration, ((1, "s"),)))
    minutes, rest = divmod(round(duration), _MINUTE)
    return f"{minutes} min {rest} s"


def octets(size: int) -> str:
    """640 B, 12.3 kB."""
    if size < 1000:
        return f"{size} B"
    return " ".join(_three(size, ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))))


def span(duration: float) -> str:
    """How long something lasts or is ago, in one unit: 5 min, 3 h, 41 days."""
    if duration < _MINUTE:
        return f"{max(int(duration), 0)} s"
    if duration < 2 * _HOUR:
        return f"{duration // _MINUTE:.0f} min"
    if duration < 2 * _DAY:
        return f"{duration // _HOUR:.0f} h"
    unit, name = next((unit, name) for limit, unit, name in _STEPS if duration >= limit)
    return f"{duration // unit:.0f} {name}s"


def moment(at: float) -> str:
    """2026-03-01 14:05 UTC."""
    return _utc(at).strftime("%Y-%m-%d %H:%M UTC")


def clock(at: float) -> str:
    """14:05:09."""
    return _utc(at).strftime("%H:%M:%S")


def machine(at: float) -> str:
    """As an attribute `datetime` has it."""
    return _utc(at).strftime("%Y-%m-%dT%H:%M:%SZ")


def _three(number: float, units: Sequence[tuple[float, str]]) -> tuple[str, str]:
    """Three digits and a unit; what would be rounded to 1000 of one is 1.00 of the next."""
    size, unit = next((one for one in units if number >= 0.9995 * one[0]), units[-1])
    scaled = number / size
    return (f"{scaled:#.3g}".rstrip(".") if scaled < 999.5 else f"{scaled:,.0f}", unit)


def _utc(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
