"""What was taken up last, in memory that all processes of one start share: a worker that begins
while the files can't be read goes on with it. It is as secret as they are, and ends with them."""

from __future__ import annotations

import mmap
from hashlib import sha256
from typing import Final

ROOM: Final = 1 << 20
"""Octets; nothing of it is in use before something is kept."""

_DIGEST: Final = 32
_HEAD: Final = _DIGEST + 8


class TooLarge(Exception):
    """Something was kept that had no room."""


class LastGood:
    """To be made before the processes are. They all write the same; what is read while another one
    is written is nothing."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, ROOM)

    def keep(self, octets: bytes) -> None:
        """In place of what was kept before."""
        kept = octets if len(octets) <= ROOM - _HEAD else b""
        head = sha256(kept).digest() + len(octets).to_bytes(8)
        self._shared[: _HEAD + len(kept)] = head + kept

    def read(self) -> bytes | None:
        """None: nothing was kept yet. Raises TooLarge."""
        size = int.from_bytes(self._shared[_DIGEST:_HEAD])
        kept = self._shared[_HEAD : _HEAD + size]
        if not size:
            return None
        if sha256(kept).digest() != self._shared[:_DIGEST]:
            raise TooLarge
        return kept
