"""Starts child processes, replaces one that dies, and ends them all when told.

Nothing else happens here: no thread, no event loop, nobody's keys in use, so that a fork is as good
as a new start at any time, and a good deal faster. Children heed no signals: orders come over their
leashes, since whoever stops a service may signal every process of it at once.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Final, NamedTuple

from proxy.cli.failures import report
from proxy.cli.leash import RELOAD, STOP, Leash, News, read_news
from proxy.cli.session import told
from proxy.clock import Clock

SETTLED_SECONDS: Final = 10.0
"""Who lived so long did not die of its start: another one comes at once."""

LONGEST_REST: Final = 30.0
LAST_SECONDS: Final = 5.0
"""What a child may take to end beyond the grace of its calls; then it is killed."""

_HEEDED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


class Role(NamedTuple):
    """What a child is for; `live` is all that it does, and gives its exit code. `alone`: others
    need it: it comes before them, and goes after them."""

    name: str
    live: Callable[[Leash], int]
    alone: bool = False


@dataclass(eq=False, slots=True)
class Child:
    """A role and who plays it now; `pid` 0: nobody."""

    role: Role
    pid: int = 0
    end: socket.socket | None = None
    heard: bytearray = field(default_factory=bytearray)
    ready: bool = False
    began: float = 0.0
    again_at: float = 0.0
    failures: int = 0

    def order(self, word: bytes) -> None:
        """Tells it something, if it is there; one that hangs is not waited for."""
        if self.end is not None:
            with contextlib.suppress(OSError):
                self.end.send(word, socket.MSG_DONTWAIT)


class Supervisor:
    """`tell`: the log, by level; `started`: all are ready; `stopping`: it has begun to end."""

    def __init__(self, roles: Sequence[Role], clock: Clock, grace: float) -> None:
        self.children = [Child(role) for role in roles]
        self.tell: Callable[[str, str], None] = lambda _level, _words: None
        self.started: Callable[[], None] = lambda: None
        self.stopping: Callable[[], None] = lambda: None
        self.cut = 0
        self.passphrase = b""
        self._clock = clock
        self._grace = grace
        self._signals: list[int] = []
        self._stops = 0
        self._begun = False

    def run(self) -> bool:
        """Until it is told to stop; False where a child could not start."""
        with self._heeding():
            good = all(map(self._begin, (self._firsts, self._others)))
            if good and not self._stops:
                self.started()
                self._begun = True
                while not self._stops:
                    self._replace()
                    self._wait(self._pause())
            self._end()
        return good

    def run_once(self) -> bool:
        """Until every child has ended by itself; whether all were well."""
        with self._heeding():
            self._spawn(self.children[0])
            while pid := self.children[0].pid:
                self._wait(None)
                if self._stops:
                    os.kill(pid, signal.SIGTERM)
        return not self.children[0].failures

    # Beginning.

    @property
    def _firsts(self) -> list[Child]:
        return [one for one in self.children if one.role.alone]

    @property
    def _others(self) -> list[Child]:
        return [one for one in self.children if not one.role.alone]

    def _begin(self, children: Iterable[Child]) -> bool:
        waiting = list(children)
        for child in waiting:
            self._spawn(child)
        while not self._stops and all(one.pid for one in waiting):
            if all(one.ready for one in waiting):
                return True
            self._wait(None)
        return bool(self._stops)

    def _spawn(self, child: Child) -> None:
        ours, theirs = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if not pid:
            ours.close()
            self._become(child.role, Leash(theirs))
        theirs.close()
        child.pid, child.end, child.began = pid, ours, self._clock.monotonic()
        child.ready, child.heard = False, bytearray()

    def _become(self, role: Role, leash: Leash) -> None:
        """The child's life; it never returns."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _HEEDED:
                ignored = role.name and number != signal.SIGCHLD
                signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)
            for other in self.children:
                if other.end is not None:
                    other.end.close()
            with told():
                code = role.live(leash)
        except BaseException as error:
            code = report(error)
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    # Watching.

    @contextlib.contextmanager
    def _heeding(self) -> Iterator[None]:
        """Signals are noted, and end a wait."""
        woken, wakes = socket.socketpair()
        for one in (woken, wakes):
            one.setblocking(False)
        before = [(number, signal.signal(number, self._note)) for number in _HEEDED]
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        self._woken = woken
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before:
                signal.signal(number, handler)
            woken.close()
            wakes.close()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)

    def _pause(self) -> float | None:
        """Until the next child is due."""
        due = [one.again_at for one in self.children if not one.pid]
        return max(0.0, min(due) - self._clock.monotonic()) if due else None

    def _wait(self, seconds: float | None) -> None:
        """For a signal or news; takes up what there is."""
        ends = {one.end: one for one in self.children if one.end is not None}
        found, _, _ = select.select([self._woken, *ends], [], [], seconds)
        for end in found:
            if end is self._woken:
                with contextlib.suppress(BlockingIOError):
                    end.recv(4096)
            else:
                self._listen(ends[end], end)
        signals, self._signals = self._signals, []
        for number in signals:
            self._heed(number)
        self._reap()

    def _heed(self, number: int) -> None:
        if number in (signal.SIGINT, signal.SIGTERM):
            self._stops += 1
            if self._stops > 1:  # once more: nobody is waited for
                self._order(self._others, STOP)
        elif number == signal.SIGHUP:
            self._order(self.children, RELOAD)

    def _order(self, children: Iterable[Child], word: bytes) -> None:
        for child in children:
            child.order(word)

    def _listen(self, child: Child, end: socket.socket) -> None:
        octets = b""
        with contextlib.suppress(OSError):
            octets = end.recv(65536)
        if not octets:  # it has gone: that is for waitpid to tell
            end.close()
            child.end = None
            return
        child.heard += octets
        self._take(child, read_news(child.heard))

    def _take(self, child: Child, news: News) -> None:
        child.ready = child.ready or news.ready
        self.cut += news.cut
        self.passphrase = news.passphrase or self.passphrase

    def _reap(self) -> None:
        for child in self.children:
            if child.pid:
                pid, status = os.waitpid(child.pid, os.WNOHANG)
                if pid:
                    self._bury(child, os.waitstatus_to_exitcode(status))

    def _bury(self, child: Child, code: int) -> None:
        if child.end is not None:
            self._drain(child, child.end)
        child.pid, now = 0, self._clock.monotonic()
        if self._stops:
            return
        child.failures = child.failures + 1 if now - child.began < SETTLED_SECONDS else 1
        if not self._begun and code >= 0:  # it has said why
            child.failures = bool(code)
            return
        self._mourn(
            child, f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        )

    def _mourn(self, child: Child, how: str) -> None:
        """Says what happened, and when another comes."""
        rest = min(LONGEST_REST, 2.0 ** (child.failures - 2)) if child.failures > 1 else 0.0
        child.again_at = self._clock.monotonic() + rest
        when = f"in {rest:g} s" if rest else "at once"
        what = f"; another takes its place {when}" if self._begun else ""
        self.tell("error", f"{child.role.name or 'the start'} {how}{what}")

    def _drain(self, child: Child, end: socket.socket) -> None:
        """What it said before it ended."""
        while child.end is not None:
            self._listen(child, end)

    def _replace(self) -> None:
        now = self._clock.monotonic()
        for child in self.children:
            if not child.pid and now >= child.again_at:
                try:
                    self._spawn(child)
                except OSError as error:  # no memory, or too many processes or open files
                    child.failures = max(child.failures, 1) + 1
                    why = (error.strerror or type(error).__name__).lower()
                    self._mourn(child, f"can't be started ({why})")

    # Ending.

    def _end(self) -> None:
        """The others first, then those whom they need."""
        self._stops = max(1, self._stops)
        self.stopping()
        for children in (self._others, self._firsts):
            self._order(children, STOP)
            until = self._clock.monotonic() + self._grace + LAST_SECONDS
            while any(one.pid for one in children) and self._clock.monotonic() < until:
                self._wait(max(0.0, until - self._clock.monotonic()))
            for child in children:
                if child.pid:
                    self.tell("error", f"{child.role.name} did not end in time; it is killed")
                    os.kill(child.pid, signal.SIGKILL)
                    os.waitpid(child.pid, 0)
                    child.pid = 0
