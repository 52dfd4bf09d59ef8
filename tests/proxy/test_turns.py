"""Turns at writing: one at a time, in whatever thread or process."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from proxy.turns import turn

HOLDER = """
import sys
from pathlib import Path
from proxy.turns import turn
with turn(Path(sys.argv[1]), 1):
    print("mine", flush=True)
    sys.stdin.read()
"""


def test_one_thread_at_a_time_has_the_turn(tmp_path: Path) -> None:
    """Whoever waits gets it afterwards."""
    path, inside, most = tmp_path / "some.db", [0], []

    def write() -> None:
        with turn(path, 60):
            inside[0] += 1
            most.append(inside[0])
            inside[0] -= 1

    threads = [threading.Thread(target=write) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert most == [1] * 8
    assert (tmp_path / "some.db.lock").stat().st_mode & 0o777 == 0o600


def test_a_turn_that_does_not_come_is_an_error(tmp_path: Path) -> None:
    """Nobody waits for ever."""
    path = tmp_path / "some.db"
    with turn(path, 0), pytest.raises(OSError, match="somebody else is writing"), turn(path, 0.02):
        pass
    with turn(path, 0):
        pass


def test_the_turn_of_a_process_ends_with_it(tmp_path: Path) -> None:
    """However it ends."""
    path = tmp_path / "some.db"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"mine\n"
        with pytest.raises(OSError, match="somebody else"), turn(path, 0):
            pass
        other.kill()
    with turn(path, 60):
        pass
