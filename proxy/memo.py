"""Remembers what was worked out from equal input, until what it was worked out from changes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memo(Generic[K, V]):
    """At most `size` values, the oldest leave first. `basis` is all that they depend on besides
    their key: when it is another one than before, everything is forgotten."""

    def __init__(self, size: int, basis: Callable[[], object]) -> None:
        self._size = size
        self._read_basis = basis
        self._basis: object = None
        self._kept: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """What was put under the key, if nothing has changed since."""
        return self._kept.get(key) if self._read_basis() == self._basis else None

    def basis(self) -> object:
        """To be read before a value is worked out, and given with it."""
        return self._read_basis()

    def put(self, key: K, value: V, basis: object) -> None:
        """Keeps a value that was worked out from this basis, unless that is over."""
        if basis != self._read_basis():
            return
        if basis != self._basis:
            self._basis, self._kept = basis, {}
        bounded_put(self._kept, key, value, self._size)


def bounded_put(kept: dict[K, V], key: K, value: V, size: int) -> None:
    """Puts a value into a dictionary of at most `size`; the oldest leaves first."""
    if len(kept) >= size:
        del kept[next(iter(kept))]
    kept[key] = value
