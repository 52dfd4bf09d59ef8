"""Counts of calls in one window: two numbers for a sliding one, the times for a moving one.

Times are seconds of a clock that never goes back; each method is told the present one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import NamedTuple, Protocol


class State(NamedTuple):
    """How a window stands: calls that are left, and seconds until there is room for one more."""

    left: int
    seconds: float


class Counter(Protocol):
    """The calls of one window. Its amount is told with every question: it may change."""

    def has_room(self, amount: int, now: float) -> bool:
        """Whether one more call is within the amount."""
        ...

    def add(self, now: float) -> None:
        """Counts a call."""
        ...

    def give_back(self, taken: float, now: float) -> None:
        """Counts one call less of those of that time: it was not made."""
        ...

    def state(self, amount: int, now: float) -> State:
        """How the window stands."""
        ...

    def is_over(self, now: float) -> bool:
        """Whether it has nothing left to count."""
        ...


class Sliding:
    """About right where calls come in bursts: the calls of this fixed window, and as many of that
    before it as the last `seconds` still hold."""

    __slots__ = ("_current", "_index", "_previous", "_seconds")

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self._index = self._previous = self._current = 0

    def learn(self, now: float, previous: int, current: int) -> None:
        """What somebody else has counted until then."""
        self._index = int(now // self._seconds)
        self._previous, self._current = previous, current

    def has_room(self, amount: int, now: float) -> bool:
        """Whether one more call is within the amount."""
        rest = self._turn(now)
        return int(self._previous * rest / self._seconds + self._current) < amount

    def add(self, now: float) -> None:
        """Counts a call."""
        self._turn(now)
        self._current += 1

    def give_back(self, taken: float, now: float) -> None:
        """Counts one call less, in the window of that time if it weighs still."""
        self._turn(now)
        index = taken // self._seconds
        if index == self._index and self._current:
            self._current -= 1
        elif index == self._index - 1 and self._previous:
            self._previous -= 1

    def state(self, amount: int, now: float) -> State:
        """How the window stands."""
        rest, seconds = self._turn(now), self._seconds
        before, current = self._previous, self._current
        left = amount - int(before * rest / seconds + current)
        if left > 0:
            return State(left, rest)
        if current < amount:  # enough of the earlier ones will have left in this window
            return State(0, rest - (amount - current) * seconds / before)
        return State(0, rest + seconds * (1 - amount / current))  # or of these, in the next

    def is_over(self, now: float) -> bool:
        """Whether neither window weighs any more."""
        return now // self._seconds > self._index + 1

    def _turn(self, now: float) -> float:
        """Goes on to the window of this time; the seconds that are left of it."""
        seconds = self._seconds
        index, passed = divmod(now, seconds)
        if index != self._index:
            self._previous = self._current if index == self._index + 1 else 0
            self._current, self._index = 0, int(index)
        return seconds - passed


class Moving:
    """Exact: the time of every call that counts."""

    __slots__ = ("_seconds", "_times")

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self._times: deque[float] = deque()

    def has_room(self, amount: int, now: float) -> bool:
        """Whether one more call is within the amount."""
        return len(self._left(now)) < amount

    def add(self, now: float) -> None:
        """Counts a call."""
        self._times.append(now)

    def give_back(self, taken: float, now: float) -> None:
        """Counts one call less: the first from that time on, or the last, if it counts still."""
        times = self._left(now)
        if times and taken > now - self._seconds:
            del times[min(bisect_left(times, taken), len(times) - 1)]

    def state(self, amount: int, now: float) -> State:
        """How the window stands."""
        times = self._left(now)
        if not times:
            return State(amount, self._seconds)
        above = max(0, len(times) - amount)  # it was lowered: more than one must leave
        return State(max(0, amount - len(times)), times[above] + self._seconds - now)

    def is_over(self, now: float) -> bool:
        """Whether every call has left."""
        return not self._left(now)

    def _left(self, now: float) -> deque[float]:
        times, until = self._times, now - self._seconds
        while times and times[0] <= until:
            times.popleft()
        return times
