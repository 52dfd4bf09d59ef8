"""How many calls each short-lived token with a number of them has made; in memory alone.

Who has made how many is forgotten when the server stops, and with it these tokens end.
"""

from __future__ import annotations

from typing import Final

from proxy.clock import Clock
from proxy.errors import CallsSpent, Unavailable
from proxy.grant import Allowance

MOST: Final = 65_536
SWEEP_SECONDS: Final = 60.0


class Allowances:
    """Counts by serial, for as long as a token is good."""

    def __init__(self, clock: Clock, most: int = MOST) -> None:
        self._clock = clock
        self._most = most
        self._made: dict[str, tuple[float, int]] = {}
        self._sweep_at = 0.0

    def __len__(self) -> int:
        return len(self._made)

    def take(self, allowance: Allowance) -> None:
        """Counts a call; raises CallsSpent, and Unavailable where too many are counted already."""
        made = self._count(allowance)
        if made >= allowance.calls:
            raise CallsSpent(
                f"The {allowance.calls} calls of this short-lived token are made; "
                "get another one with: POST /tokens"
            )
        if not made:
            self._sweep()
        self._made[allowance.serial] = (allowance.until, made + 1)

    def give_back(self, allowance: Allowance) -> None:
        """Counts a call less that was refused after all."""
        made = self._count(allowance)
        if made:
            self._made[allowance.serial] = (allowance.until, made - 1)

    def left(self, allowance: Allowance) -> int:
        """How many more there may be."""
        return max(0, allowance.calls - self._count(allowance))

    def _count(self, allowance: Allowance) -> int:
        return self._made.get(allowance.serial, (0.0, 0))[1]

    def _sweep(self) -> None:
        now = self._clock.now()
        if now >= self._sweep_at or len(self._made) >= self._most:
            self._sweep_at = now + SWEEP_SECONDS
            self._made = {serial: one for serial, one in self._made.items() if one[0] > now}
        if len(self._made) >= self._most:
            raise Unavailable(
                "Too many short-lived tokens with a number of calls are in use; try again later.",
                retry_after=30,
            )
