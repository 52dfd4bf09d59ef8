"""The command's first step. Until its parts are loaded, Ctrl-C ends it without a word."""

from __future__ import annotations

import signal


def main() -> None:
    """The command `keyrelay`."""
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if usual:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from proxy.cli import main as run  # noqa: PLC0415 - this is what takes its time

    if usual:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()
