"""A clock that stands still until a test moves it."""

from __future__ import annotations

_DAY = 86_400.0


class FakeClock:
    """The time of day, and the seconds that only go on: two numbers that are never the same, so
    that who takes one for the other is found. What divides a day divides both alike."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._monotonic = now % _DAY + 7 * _DAY

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self._now += seconds
        self._monotonic += seconds

    def be_set(self, seconds: float) -> None:
        """Somebody sets the time of day, forward or back; no time passes."""
        self._now += seconds
