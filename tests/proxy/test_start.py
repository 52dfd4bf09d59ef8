"""The first step of the command: who stops it before it has begun sees no traceback."""

from __future__ import annotations

import subprocess
import sys

LOADING = """
import signal, sys
{before}
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("proxy.cli", "click"):
            print(name, signal.Handlers(signal.getsignal(signal.SIGINT)).name)
import proxy.start
sys.meta_path.insert(0, Watch())
sys.argv = ["keyrelay", "--version"]
try:
    proxy.start.main()
finally:
    print("then", getattr(signal.getsignal(signal.SIGINT), "name", "default_int_handler"))
"""


def said(before: str = "") -> list[str]:
    """What a start tells of how Ctrl-C is taken while it loads, and afterwards."""
    program = [sys.executable, "-c", LOADING.format(before=before)]
    done = subprocess.run(program, capture_output=True, check=True, timeout=60)
    return done.stdout.decode().splitlines()


def test_ctrl_c_ends_it_at_once_while_it_loads() -> None:
    """As the system does it, without a word of Python's; then commands take it themselves."""
    loading, click, version, then = said("signal.signal(signal.SIGINT, signal.default_int_handler)")
    assert (loading, click) == ("proxy.cli SIG_DFL", "click SIG_DFL")
    assert version.startswith("keyrelay ")
    assert then == "then default_int_handler"


def test_what_ignores_ctrl_c_goes_on_ignoring_it() -> None:
    """A shell starts background jobs so."""
    loading, click, _, then = said("signal.signal(signal.SIGINT, signal.SIG_IGN)")
    assert (loading, click) == ("proxy.cli SIG_IGN", "click SIG_IGN")
    assert then == "then SIG_IGN"
