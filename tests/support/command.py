"""keyrelay's commands in the test's own process, without the second that a new one takes to begin:
for whatever a test wants done, and is not about."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from click.testing import CliRunner

from proxy import cli
from proxy.cli.desk import Desk
from tests.support.canaries import LEDGER, TOKEN
from tests.support.process import Ended, environment

_STREAMS = threading.Lock()
"""Standard input and output are the process's: one command at a time."""


async def command(data: Path, *arguments: str, stdin: str = "", **environ: str) -> Ended:
    """Runs one to its end, in a plain environment; what it prints is looked at."""
    LEDGER.typed(stdin)
    ended = await asyncio.to_thread(_run, data, arguments, stdin, environ)
    for found in TOKEN.finditer(ended.out):
        LEDGER.token(found[0])
    LEDGER.look("standard output", ended.out.encode(), shows_tokens=True)
    LEDGER.look("standard error", ended.err.encode())
    return ended


def _run(data: Path, arguments: tuple[str, ...], stdin: str, environ: dict[str, str]) -> Ended:
    desk = Desk(environ=environment(**environ))
    words = ["--data", str(data), *arguments]
    with _STREAMS:
        done = CliRunner().invoke(cli.keyrelay, words, input=stdin, obj=desk)
    return Ended(done.exit_code, done.stdout, done.stderr)
