"""What a process shows of itself: no core file, and of an error that nobody met never its text.

Its memory holds keys. An error's text may hold anything, so kinds and places are all that is told.
"""

from __future__ import annotations

import resource
import sys
import threading
from contextlib import suppress
from typing import Final

from proxy.causes import frames, lineage

_SET_DUMPABLE: Final = 4
"""PR_SET_DUMPABLE of prctl(2)."""


def be_discreet() -> None:
    """For the life of this process. What it starts inherits that there is no core."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _keep_memory_shut()
    sys.excepthook = lambda _, error, __: _tell(error)
    threading.excepthook = lambda found: _tell(found.exc_value)
    sys.unraisablehook = lambda found: _tell(found.exc_value)


def _keep_memory_shut() -> None:
    """A core that goes through a pipe heeds no limit, and a debugger needs no core."""
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415 - no other system needs it

    with suppress(OSError, AttributeError):  # a C library that is none
        ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)


def _tell(error: BaseException | None) -> None:
    if error is None or isinstance(error, KeyboardInterrupt | SystemExit):
        return
    with suppress(Exception):  # standard error may be gone
        sys.stderr.write(f"keyrelay: unexpected {lineage(error)} at {frames(error)}\n")
        sys.stderr.flush()
