"""Which keys the store may hold: says that one is certainly not there, without asking the disk."""

from __future__ import annotations

from collections.abc import Iterable

SLOTS = 1 << 22
"""Counters of one octet each. Among 100,000 keys one look-up in 40 asks the disk for nothing."""

MOST = 255
"""A counter that got here stays: it no longer knows how many keys it stands for."""


class Presence:
    """Counts keys by their first octets, which are those of a HMAC and so evenly spread.

    It may take a key for present that is not, and never the other way round. One thread changes it;
    any may ask.
    """

    def __init__(self) -> None:
        self._counts: bytearray | None = None

    def may_hold(self, key: bytes) -> bool:
        """Whether the key may be there; before the first `count` every key may."""
        counts = self._counts
        return counts is None or counts[_slot(key)] > 0

    def count(self, keys: Iterable[bytes]) -> None:
        """Counts all keys anew; where that fails, every key may be there."""
        self._counts, counts = None, bytearray(SLOTS)
        for key in keys:
            slot = _slot(key)
            counts[slot] = min(counts[slot] + 1, MOST)
        self._counts = counts

    def add(self, key: bytes) -> None:
        """A key is about to be there."""
        if self._counts is not None:
            slot = _slot(key)
            self._counts[slot] = min(self._counts[slot] + 1, MOST)

    def discard(self, key: bytes) -> None:
        """A key is there once less."""
        if self._counts is not None:
            slot = _slot(key)
            if 0 < self._counts[slot] < MOST:
                self._counts[slot] -= 1


def _slot(key: bytes) -> int:
    return int.from_bytes(key[:3], "big") % SLOTS
