"""What a process of keyrelay shows of itself: no core file, and of an error never its text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

KEY = "sk-CANARY-0123456789abcdefghij"

LOOKING = """
import ctypes, resource, sys
import click
from proxy import cli

def look():
    dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
    print(dumpable, *resource.getrlimit(resource.RLIMIT_CORE))

cli.keyrelay = look
cli.main()
"""

FAILING = """
import sys, threading
from proxy.discretion import be_discreet

def fail(held):
    key = held[0]
    raise ValueError(key)

class Broken:
    def __init__(self, held):
        self.held = held

    def __del__(self):
        fail(self.held)

be_discreet()
held = [sys.stdin.read()]
if sys.argv[1] == "thread":
    thread = threading.Thread(target=fail, args=(held,))
    thread.start()
    thread.join()
elif sys.argv[1] == "finaliser":
    Broken(held)
elif sys.argv[1] == "stopped":
    raise KeyboardInterrupt
else:
    fail(held)
"""


def ran(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        input=KEY,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="Linux")
def test_no_command_can_leave_a_core_file_or_be_read_from_outside() -> None:
    """Its memory holds keys: not dumpable, and no core, also for what it starts."""
    assert ran(LOOKING).stdout.split() == ["0", "0", "0"]


@pytest.mark.parametrize("place", ["main", "thread", "finaliser"])
def test_an_error_that_nobody_met_shows_kinds_and_places(place: str) -> None:
    """Neither its text nor what its variables held."""
    ended = ran(FAILING, place)
    assert KEY not in ended.stdout + ended.stderr
    assert "ValueError" in ended.stderr
    assert ":7 fail" in ended.stderr
    assert ended.returncode == (1 if place == "main" else 0)


def test_a_stopped_program_says_nothing_of_where() -> None:
    """Ctrl-C outside of every command is no error."""
    ended = ran(FAILING, "stopped")
    assert (ended.stdout, ended.stderr) == ("", "")


def test_nothing_of_ours_shows_local_variables() -> None:
    """A traceback with them would hold keys."""
    root = Path(__file__).parent.parent.parent
    shown = ("show_locals", "capture_locals", "rich.traceback", "cgitb", "RichTracebackFormatter")
    for path in [*root.glob("proxy/**/*.py"), *root.glob("vault/**/*.py")]:
        assert [word for word in shown if word in path.read_text()] == [], path
