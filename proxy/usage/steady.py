"""The time by which old usage is swept: a clock that jumps forward takes nothing with it."""

from __future__ import annotations

import logging
from typing import Final

from proxy.clock import Clock

JUMP: Final = 3600.0
"""Seconds that the clock may gain on the one that never jumps, from one question to the next."""

BELIEVED: Final = 86_400.0
"""Seconds after which a jump further is no mistake of somebody who sets the clock right again."""

_log = logging.getLogger("keyrelay.usage")


class SteadyTime:
    """Goes on at the old pace for a day after a jump forward; follows every step back at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._gap = clock.now() - clock.monotonic()
        self._jumped_at: float | None = None

    def now(self) -> float:
        """Unix seconds."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        if now - monotonic <= self._gap + JUMP or self._believes(monotonic):
            self._gap, self._jumped_at = now - monotonic, None
        return monotonic + self._gap

    def _believes(self, monotonic: float) -> bool:
        if self._jumped_at is None:
            self._jumped_at = monotonic
            _log.warning("the clock has jumped forward: no usage is swept by it for a day")
        return monotonic - self._jumped_at >= BELIEVED
