"""Who starts the others and replaces them, with real processes."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import closing

import pytest

from proxy.cli import supervisor
from proxy.cli.leash import RELOAD, Leash
from proxy.cli.supervisor import Child, Role, Supervisor
from proxy.clock import SystemClock


def test_who_cannot_be_started_now_is_started_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without room for one more process costs the others nothing."""
    monkeypatch.setattr(supervisor, "LONGEST_REST", 0.01)
    fork, forks, said = os.fork, [], []

    def tried() -> int:
        forks.append(1)
        if len(forks) == 2:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return fork()

    def live(leash: Leash) -> int:
        leash.ready()
        if len(forks) > 1:
            os.kill(os.getppid(), signal.SIGTERM)
        leash._end.recv(1)  # until it is told to stop
        return 0

    monkeypatch.setattr(os, "fork", tried)
    one = Supervisor([Role("it", live)], SystemClock(), grace=20)
    one.tell = lambda _level, words: said.append(words)
    one.started = lambda: os.kill(one.children[0].pid, signal.SIGKILL)
    assert one.run()
    assert said[:2] == [
        "it was killed by signal 9; another takes its place at once",
        "it can't be started (resource temporarily unavailable); another takes its place in 0.01 s",
    ]


def test_nobody_waits_for_one_that_hears_no_orders() -> None:
    """As many as there are: it may hang."""
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        child = Child(Role("it", lambda _leash: 0), end=ours)
        for _ in range(2000):
            child.order(RELOAD)
        assert set(theirs.recv(4000)) == set(RELOAD)
