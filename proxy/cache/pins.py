"""Rows that are being read piece by piece: they stay until their last reader is done."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable


class Pins:
    """Which rows are read, and which of them are to go.

    The writer holds `lock` through each of its transactions, so a row is either pinned before it is
    removed, or seen to be gone.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._readers: Counter[int] = Counter()
        self._doomed: set[int] = set()

    def take(self, number: int, is_there: Callable[[], bool]) -> bool:
        """Pins a row if it is still there."""
        with self.lock:
            there = is_there()
            if there:
                self._readers[number] += 1
        return there

    def give_back(self, number: int) -> None:
        """Takes one pin away."""
        with self.lock:
            self._readers[number] -= 1
            if self._readers[number] <= 0:
                del self._readers[number]

    def doom(self, number: int) -> bool:
        """Notes that a row is to go; False when nobody reads it. Called with the lock held."""
        if number in self._readers:
            self._doomed.add(number)
        return number in self._readers

    def released(self) -> set[int]:
        """The doomed rows that nobody reads any more. Called with the lock held."""
        free = self._doomed - self._readers.keys()
        self._doomed -= free
        return free
