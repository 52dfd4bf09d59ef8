"""One deadline that moves with every step of a call, for the price of an assignment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Final

NEVER: Final = inf


class Alarm:
    """Rings once its deadline has passed.

    A deadline that moves away leaves the timer of the event loop where it is: when that fires too
    early, it is set anew. So a connection that serves thousands of calls costs a timer a minute,
    not several a call.
    """

    __slots__ = ("_at", "_due", "_loop", "_ring", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._due = NEVER
        self._at = NEVER
        self._timer: asyncio.TimerHandle | None = None

    def set(self, due: float) -> None:
        """Ring at `due`, in seconds of the event loop; NEVER: don't."""
        self._due = due
        if due < self._at:
            self._start(due)

    def stop(self) -> None:
        """Let go of the timer."""
        self._due = self._at = NEVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._at = at
        self._timer = self._loop.call_at(at, self._fired)

    def _fired(self) -> None:
        self._at = NEVER
        self._timer = None
        if self._due == NEVER:
            return
        if self._due > self._loop.time():
            self._start(self._due)
        else:
            self._due = NEVER
            self._ring()
