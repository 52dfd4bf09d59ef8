"""Sees every connection and every look-up of a name, and who of us made it.

An audit hook sees what Python's sockets do; uvloop does the same in C, so that its methods are
watched too. The innermost file of the project on the stack is who did it: only `proxy/network.py`
may. Standard library only: processes that tests start load it as well, before their own code.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = str(Path(__file__).parent.parent.parent)
OURS = (f"{ROOT}/proxy/", f"{ROOT}/vault/")
MAY = {
    f"{ROOT}/proxy/network.py": "the dialler",
    f"{ROOT}/proxy/engine.py": "to the admin's own Redis",
    f"{ROOT}/proxy/cache/redis_commons.py": "asks the engine's client, which connects",
    f"{ROOT}/proxy/limits/instances.py": "asks the engine's client, which connects",
    f"{ROOT}/proxy/limits/shared.py": "asks the engine's client, which connects",
    f"{ROOT}/proxy/upstream/leases.py": "asks the engine's client, which connects",
    f"{ROOT}/vault/sessions.py": "to the admin's own PostgreSQL",
    f"{ROOT}/proxy/database.py": "to the admin's own PostgreSQL",
    f"{ROOT}/proxy/workers/companion.py": "to the coordinator, a socket in the data directory",
    f"{ROOT}/proxy/traces/collector.py": "to the admin's own collector, from a thread of its own",
}
UNIX_ONLY = {f"{ROOT}/proxy/workers/companion.py"}
"""Of those, who may reach nothing but Unix sockets."""
BESIDE = {("/asyncpg/connect_utils.py", "_cancel"): f"{ROOT}/vault/sessions.py"}
"""What a driver does in a task of its own, where nobody of us is on the stack, and for whom: it
tells the server that it is connected to that nobody waits for a statement any more."""

EVENTS = {
    "socket.connect",
    "socket.sendto",
    "socket.sendmsg",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
    "socket.getnameinfo",
}
LOOP_METHODS = (
    "getaddrinfo",
    "getnameinfo",
    "sock_connect",
    "create_connection",
    "create_unix_connection",
    "create_datagram_endpoint",
)
REPORTS = "RELAY_TESTS_REPORTS"
"""The variable with the folder where processes that tests start say what they saw."""


class Watch:
    """What was seen in this process. `strict`: whatever nobody of the project did is foreign."""

    def __init__(self, reports: Path, strict: bool = False) -> None:
        self.allowed: Counter[str] = Counter()
        self.foreign: list[str] = []
        self.reports = reports
        self._strict = strict
        self._uvloop = False

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        """For sys.addaudithook."""
        if event in EVENTS:
            self._saw_socket(event, args)
        elif event == "import" and not self._uvloop and "uvloop" in sys.modules:
            self.watch_uvloop()

    def watch_uvloop(self) -> None:
        """Its loop connects and resolves in C."""
        loop = getattr(sys.modules.get("uvloop"), "Loop", None)
        if loop is not None and not self._uvloop:
            self._uvloop = True
            self.watch_loop(loop)

    def watch_loop(self, loop: Any) -> None:
        """Look-ups go on in other threads, where the stack tells nothing."""
        for name in LOOP_METHODS:
            if loop is not asyncio.BaseEventLoop or name in vars(loop):  # the rest is Python's
                setattr(loop, name, self._watched(f"loop.{name}", getattr(loop, name)))

    def _watched(self, event: str, method: Any) -> Any:
        @functools.wraps(method)
        def watched(*args: Any, **kwargs: Any) -> Any:
            if kwargs.get("sock") is None:  # else it is connected already
                self.judge(event, sys._getframe(1), event == "loop.create_unix_connection")
            return method(*args, **kwargs)

        return watched

    def _saw_socket(self, event: str, args: tuple[Any, ...]) -> None:
        looked_up = event in ("socket.getaddrinfo", "socket.getnameinfo")
        if looked_up and threading.current_thread().name.startswith("asyncio_"):
            return  # the loop's own thread: seen where the loop was asked
        if event in ("socket.sendto", "socket.sendmsg") and not args[-1]:
            return  # over a connection
        unix = event == "socket.connect" and isinstance(args[1], (str, bytes))
        self.judge(event, sys._getframe(2), unix)

    def judge(self, event: str, frame: FrameType | None, unix: bool) -> None:
        """Notes one act by who did it; `unix`: to a socket of this machine's files."""
        who = _innermost(frame)
        if who is None and not self._strict:
            return
        if who in MAY and (unix or who not in UNIX_ONLY):
            self.allowed[who] += 1
            self._report(f"allowed {event} {who}")
        elif who is None or who.startswith(OURS):
            words = f"{event} by {who or 'nobody of the project'}"
            self.foreign.append(words)
            self._report(f"foreign {words}")

    def _report(self, words: str) -> None:
        if self._strict:
            out = os.open(self.reports / "dials", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.write(out, f"{words}\n".encode())
            os.close(out)


def _innermost(frame: FrameType | None) -> str | None:
    """The file of the project that stands nearest; a test's own dialler counts as the test's."""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(ROOT) and "/.venv/" not in name and name != __file__:
            return name
        for (file, function), whose in BESIDE.items():
            if frame.f_code.co_name == function and name.endswith(file):
                return whose
        frame = frame.f_back
    return None


def begin(reports: Path, strict: bool = False) -> Watch:
    """Watches this process to its end."""
    watch = Watch(reports, strict)
    watch.watch_loop(asyncio.BaseEventLoop)
    watch.watch_uvloop()
    sys.addaudithook(watch.hook)
    return watch
