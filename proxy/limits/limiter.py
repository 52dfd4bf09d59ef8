"""What counts calls by window and says no, in the memory of one process.

Written by hand: with the library's strategies a call that has four windows takes more than three
times as long to be counted (docs/performance.md). The tests compare with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from proxy.clock import Clock
from proxy.limits.counters import Counter, Moving, Sliding, State
from proxy.limits.rules import Window

Windows = tuple[Window, ...]
States = tuple[State, ...]

SWEEP_SECONDS: Final = 60.0
"""How often counters that are over are dropped, on the way of a call."""


class MemoryLimiter:
    """A call takes its slot in every window, or in none; no two get the same slot, since nothing
    is awaited between looking and taking."""

    def __init__(self, open_counter: Callable[[int], Counter], clock: Clock) -> None:
        self._open_counter = open_counter
        self._clock = clock
        self._counters: dict[str, Counter] = {}
        self._sweep_at = clock.monotonic() + SWEEP_SECONDS

    def __len__(self) -> int:
        return len(self._counters)

    def take(self, windows: Windows) -> tuple[bool, States]:
        """Whether there was room in every window; where there was none, how they stand."""
        now, found = self._clock.monotonic(), []
        if now >= self._sweep_at:
            self._sweep(now)
        for window in windows:
            counter = self._counters.get(window.key) or self._begin(window)
            if not counter.has_room(window.amount, now):
                return False, self._states(windows, now)  # a later time could find room
            found.append(counter)
        for counter in found:
            counter.add(now)
        return True, ()

    def note(self, windows: Windows) -> None:
        """Counts a call in each, room or not: it was let through by somebody else's count."""
        now = self._clock.monotonic()
        if now >= self._sweep_at:
            self._sweep(now)
        for window in windows:
            (self._counters.get(window.key) or self._begin(window)).add(now)

    def look(self, windows: Windows) -> States:
        """How windows stand."""
        return self._states(windows, self._clock.monotonic())

    def give_back(self, windows: Windows, taken: float | None = None) -> None:
        """A slot in each, which was taken at that time (monotonic); None: just now."""
        now = self._clock.monotonic()
        for window in windows:
            if counter := self._counters.get(window.key):
                counter.give_back(now if taken is None else taken, now)

    def _states(self, windows: Windows, now: float) -> States:
        counters = self._counters
        return tuple(
            [
                (counters.get(window.key) or self._begin(window)).state(window.amount, now)
                for window in windows
            ]
        )

    def _begin(self, window: Window) -> Counter:
        counter = self._counters[window.key] = self._open_counter(window.seconds)
        return counter

    def _sweep(self, now: float) -> None:
        """Before counters are taken up: one that is swept in between would count in vain."""
        self._sweep_at = now + SWEEP_SECONDS
        self._counters = {key: one for key, one in self._counters.items() if not one.is_over(now)}


LIMITERS: Final[Mapping[str, Callable[[Clock], MemoryLimiter]]] = {
    "sliding": lambda clock: MemoryLimiter(Sliding, clock),
    "moving": lambda clock: MemoryLimiter(Moving, clock),
}
"""By the name in `limits.window`."""
