"""The library's counters in memory, by our clock.

Those of the library read the time themselves, and start a thread every 10 ms that looks through
every counter; here what is over is dropped once a minute, on the way.
"""

from __future__ import annotations

from collections import deque
from math import floor
from typing import Final

from limits.storage import MemoryStorage

from proxy.clock import Clock

SWEEP_SECONDS: Final = 60.0


class _Pair:
    """The counts of a window and of the one before; `index`: which window."""

    __slots__ = ("current", "index", "previous", "seconds")

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self.index = self.previous = self.current = 0

    def turn(self, index: int) -> None:
        """Goes on to a window."""
        if index != self.index:
            self.previous = self.current if index == self.index + 1 else 0
            self.current, self.index = 0, index


class Counters(MemoryStorage):
    """Counts of calls by key: two numbers for a sliding window, the times for a moving one.

    Times are those of the clock that never goes back.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._pairs: dict[str, _Pair] = {}
        self._times: dict[str, tuple[int, deque[float]]] = {}
        self._sweep_at = clock.monotonic() + SWEEP_SECONDS

    @property
    def now(self) -> float:
        """The time that the counts go by."""
        return self._clock.monotonic()

    def __len__(self) -> int:
        return len(self._pairs) + len(self._times)

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Calls in the window before, how long it still weighs, calls in this one, its seconds."""
        index, passed = divmod(self._clock.monotonic(), expiry)
        pair = self._pairs.get(key)
        if pair is None:
            return 0, 0.0, 0, 2 * expiry - passed
        pair.turn(int(index))
        weighs = expiry - passed if pair.previous else 0.0
        return pair.previous, weighs, pair.current, 2 * expiry - passed

    def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        """Counts calls, if there is room for them."""
        previous, weighs, current, _ = self.get_sliding_window(key, expiry)
        if floor(previous * weighs / expiry + current) + amount > limit:
            return False
        pair = self._pairs.get(key)
        if pair is None:
            self._sweep()
            pair = self._pairs[key] = _Pair(expiry)
            pair.turn(int(self._clock.monotonic() // expiry))
        pair.current += amount
        return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:  # noqa: ARG002
        """The time of the oldest call that counts, and how many do."""
        now = self._clock.monotonic()
        times = self._times.get(key, (0, ()))[1]
        while times and times[0] <= now - expiry:
            times.popleft()
        return (times[0] if times else now), len(times)

    def time_of(self, key: str, number: int) -> float:
        """The time of a call that counts, by its number from the oldest, which is 0."""
        return self._times[key][1][number]

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Counts calls, if there is room for them."""
        if self.get_moving_window(key, limit, expiry)[1] + amount > limit:
            return False
        if key not in self._times:
            self._sweep()
            self._times[key] = (expiry, deque())
        self._times[key][1].extend([self._clock.monotonic()] * amount)
        return True

    def give_back(self, key: str) -> None:
        """Counts one call less: it was not made."""
        pair = self._pairs.get(key)
        if pair is not None and pair.current:
            pair.current -= 1
        if self._times.get(key, (0, ()))[1]:
            self._times[key][1].pop()

    def _sweep(self) -> None:
        now = self._clock.monotonic()
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_SECONDS
        pairs, times = self._pairs, self._times
        self._pairs = {k: p for k, p in pairs.items() if now // p.seconds <= p.index + 1}
        self._times = {k: t for k, t in times.items() if t[1] and t[1][-1] > now - t[0]}
