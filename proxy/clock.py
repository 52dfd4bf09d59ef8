"""The one place where the process reads the time."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What machines hold instead of the time module, so that a test can move it."""

    def now(self) -> float:
        """Seconds since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean something."""
        ...


class SystemClock:
    """The machine's own clocks. The very functions: a call asks a dozen times."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
