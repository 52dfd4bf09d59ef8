"""Gives memory back to the system that a crowd has left behind.

glibc keeps what is free between pieces in use. Its thresholds would give large pieces back at once,
at four times the processor time of every large answer; so it is asked once a crowd has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

LOOK_SECONDS: Final = 10.0
WORTH_BYTES: Final = 16 * 2**20
"""What must have become free since the last time before it is asked again."""

_MEMBERS: Final = 10
_USED: Final = 7
"""Of struct mallinfo2: how many, and the one that tells what is in use."""


class Heap:
    """When to ask. `used`: octets in use now; `trim`: asks."""

    def __init__(self, used: Callable[[], int], trim: Callable[[], object]) -> None:
        self._used = used
        self._trim = trim
        self._most = 0

    def look(self) -> None:
        """Asks where much of what was once in use is free now."""
        now = self._used()
        self._most = max(self._most, now)
        if self._most - now > WORTH_BYTES:
            self._most = now
            self._trim()


@contextlib.asynccontextmanager
async def given_back() -> AsyncIterator[None]:
    """Looks now and then as long as the context lasts, where the C library can be asked."""
    heap = of_process()
    looking = None if heap is None else asyncio.create_task(_look(heap))
    try:
        yield
    finally:
        if looking is not None:
            looking.cancel()


async def _look(heap: Heap) -> None:
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        await asyncio.to_thread(heap.look)  # it takes its time


def of_process() -> Heap | None:
    """None where the C library is not glibc, or older than 2.33."""
    if sys.platform != "linux":
        return None
    try:
        import ctypes  # noqa: PLC0415 - no other system needs it
    except ImportError:  # a Python that was built without libffi
        return None

    class Told(ctypes.Structure):
        _fields_ = (("members", ctypes.c_size_t * _MEMBERS),)

    try:
        library: Any = ctypes.CDLL(None)
        tell, trim = library.mallinfo2, library.malloc_trim
    except (OSError, AttributeError):
        return None
    tell.restype = Told
    return Heap(lambda: int(tell().members[_USED]), lambda: trim(0))
