"""What waits for the store: as much as memory allows, and no more than the store could hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from proxy.cache.spool import Spool

WEIGHT = 8192
"""Octets of memory that an answer takes while it waits, beside its body."""


class Backlog:
    """Bodies that wait to be written. `memory`: octets held there; `disk`: octets of them all.

    A disk slower than the upstreams must not fill the memory. Most of a large body waits in a file.
    """

    def __init__(self, memory: int, disk: int) -> None:
        self._memory = memory
        self._disk = disk
        self._held = 0
        self._octets = 0

    @property
    def full(self) -> bool:
        """Whether one more would be too much."""
        return self._held > self._memory or self._octets > self._disk

    @contextmanager
    def holding(self, body: Spool) -> Iterator[None]:
        """Counts a whole body while it waits."""
        held, octets = body.held + WEIGHT, body.size
        self._held += held
        self._octets += octets
        try:
            yield
        finally:
            self._held -= held
            self._octets -= octets
