"""keyrelay as an admin runs it: the command in a process of its own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.canaries import LEDGER, TOKEN
from tests.support.dials import REPORTS

COMMAND = (sys.executable, "-m", "proxy.cli")


@dataclass
class Ended:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


def environment(**more: str) -> dict[str, str]:
    """A plain environment: no proxy variables, no settings of whoever runs the tests."""
    names = ("PATH", "HOME", "LANG", "PYTHONPATH", REPORTS)
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {**kept, **more}


async def keyrelay(data: Path, *arguments: str, stdin: str = "", **environ: str) -> Ended:
    """Runs one command to its end."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "--data",
        str(data),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(**environ),
    )
    LEDGER.typed(stdin)
    out, err = await process.communicate(stdin.encode())
    for found in TOKEN.finditer(out.decode()):
        LEDGER.token(found[0])
    LEDGER.look("standard output", out, shows_tokens=True)
    LEDGER.look("standard error", err)
    return Ended(process.returncode or 0, out.decode(), err.decode())


@dataclass
class Served:
    """A server in a process of its own."""

    url: str
    process: asyncio.subprocess.Process
    said: list[str] = field(default_factory=list)

    def kill(self) -> None:
        """As a power cut would."""
        self.process.send_signal(signal.SIGKILL)

    def proc(self, name: str) -> bytes:
        """A file of its in /proc; empty once it has ended."""
        try:
            return Path(f"/proc/{self.process.pid}/{name}").read_bytes()
        except OSError:
            return b""

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Asks it to end; its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 20)


@asynccontextmanager
async def served(data: Path, *arguments: str, **environ: str) -> AsyncIterator[Served]:
    """`keyrelay serve` on a free port, from its first word to its last."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "--data",
        str(data),
        "serve",
        "--port",
        "0",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment(PYTHONUNBUFFERED="1", **environ),
    )
    assert process.stdout is not None
    up = Served("", process)
    demo = "--demo" in arguments  # which shows the token that it made
    try:
        while not up.url:
            line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
            assert line, f"the server ended before it listened: {up.said}"
            up.said.append(line)
            if found := re.search(r"listens on (https?://\S+)", line):
                up.url = found[1].rstrip(",")
        reader = asyncio.create_task(_read_on(process.stdout, up.said))
        yield up
        LEDGER.look("the server's command line", up.proc("cmdline"))
        LEDGER.look("the server's environment", up.proc("environ"))
        await up.stop()
        await reader
        LEDGER.look("the server's words", "".join(up.said).encode(), shows_tokens=demo)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _read_on(stream: asyncio.StreamReader, said: list[str]) -> None:
    while line := await stream.readline():
        said.append(line.decode())
