"""How many calls each short-lived token with a number of them has made; in memory alone.

Who has made how many is forgotten when the server stops, and with it these tokens end.
"""

from __future__ import annotations

from typing import Final, Literal

from proxy.clock import Clock
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

    def take(self, allowance: Allowance) -> Literal["allowance", "memory"] | None:
        """Counts a call, or says what there is too little of: calls that it may make, or room to
        count another token's."""
        made = self._count(allowance)
        if made >= allowance.calls:
            return "allowance"
        if not made and not self._has_room():
            return "memory"
        self._made[allowance.serial] = (allowance.until, made + 1)
        return None

    def give_back(self, allowance: Allowance) -> None:
        """Counts a call less that was refused after all."""
        made = self._count(allowance)
        if made:
            self._made[allowance.serial] = (allowance.until, made - 1)

    def recall(self, allowance: Allowance, calls: int) -> None:
        """So many calls were made that were not counted here."""
        self._made[allowance.serial] = (allowance.until, self._count(allowance) + calls)

    def left(self, allowance: Allowance) -> int:
        """How many more there may be."""
        return max(0, allowance.calls - self._count(allowance))

    def _count(self, allowance: Allowance) -> int:
        return self._made.get(allowance.serial, (0.0, 0))[1]

    def _has_room(self) -> bool:
        now = self._clock.now()
        if now >= self._sweep_at or len(self._made) >= self._most:
            self._sweep_at = now + SWEEP_SECONDS
            self._made = {serial: one for serial, one in self._made.items() if one[0] > now}
        return len(self._made) < self._most
