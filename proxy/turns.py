"""Turns at writing, among processes: one SQLite file, or the lines of one log.

SQLite before 3.51.3 can damage a WAL file that two connections write or checkpoint at one instant:
its own locks are not enough. Who only reads needs no turn.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

_PAUSE: Final = 0.01


@contextmanager
def turn(path: Path, seconds: float) -> Iterator[None]:
    """Nobody else writes inside. Blocks, so not for the event loop; raises OSError where the turn
    does not come in so many seconds, as for a thread that has it already."""
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(lock, "r+b") as file:  # its end, also by a crash, is that of the lock
        _wait(partial(fcntl.flock, file), seconds)
        yield


@contextmanager
def turn_of(lock: int | None, seconds: float | None = None) -> Iterator[None]:
    """No other process that has this open file writes inside; None: there is no other. Blocks, if
    so many seconds are given no longer than that; then raises OSError."""
    if lock is None:
        yield
        return
    if seconds is None:
        fcntl.lockf(lock, fcntl.LOCK_EX)  # a process's own, and gone with it
    else:
        _wait(partial(fcntl.lockf, lock), seconds)
    try:
        yield
    finally:
        fcntl.lockf(lock, fcntl.LOCK_UN)


def _wait(lock: Callable[[int], object], seconds: float) -> None:
    for _ in range(int(seconds / _PAUSE)):
        if _locks(lock):
            return
        time.sleep(_PAUSE)
    if not _locks(lock):
        raise BlockingIOError("somebody else is writing")


def _locks(lock: Callable[[int], object]) -> bool:
    try:
        lock(fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
