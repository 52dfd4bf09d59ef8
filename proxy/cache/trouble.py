"""What the disk refuses: in the log now and then, in Cache-Status until it takes something."""

from __future__ import annotations

import logging

from proxy.clock import Clock

QUIET_SECONDS = 10.0

logger = logging.getLogger("keyrelay.cache")


class Trouble:
    """`lasts`: something was refused, and nothing has been written since."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._quiet_until = 0.0
        self.lasts = False

    def tell(self, what: str, error: Exception) -> None:
        """Logs what the cache can't do, but not with every call."""
        self.lasts = True
        now = self._clock.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET_SECONDS
            logger.warning("cache can't %s; calls go on without it: %s", what, error)

    def end(self) -> None:
        """Something has been written."""
        self.lasts = False
