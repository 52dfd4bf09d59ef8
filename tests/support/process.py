"""keyrelay as an admin runs it: the command in a process of its own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.canaries import LEDGER, TOKEN
from tests.support.dials import REPORTS

COMMAND = (sys.executable, "-m", "proxy.cli")
REFERENCE = re.compile(r"\$\{(\w+)\}|\bfile:([^\s'\",}\]]+)")
"""What stands in keys.yaml in a secret's place."""


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


def learn(data: Path, environ: Mapping[str, str]) -> set[str]:
    """Takes what keys.yaml reads elsewhere for secret: of an environment, whose names these are,
    and of files. Of the URL of an engine it is the password."""
    names, settings = {"KEYRELAY_MASTER_KEY"}, data / "keys.yaml"
    read = settings.read_text() if settings.is_file() else ""  # a test may put a pipe there
    for name, file in REFERENCE.findall(read):
        names.add(name)
        if file and (data / file).is_file():
            LEDGER.typed((data / file).read_bytes())
    for value in (environ[name] for name in names & set(environ)):
        secret = (urlsplit(value).password or "") if "://" in value else value
        LEDGER.key(secret.encode("utf-8", "surrogateescape"))
    return names


def unlike(environ: bytes, names: Collection[str]) -> bytes:
    """A process's variables without those."""
    variables = environ.split(b"\0")
    return b"\0".join(one for one in variables if one.partition(b"=")[0].decode() not in names)


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
    learn(data, environ)
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
        return _proc(self.process.pid, name)

    def look(self, known: Collection[str]) -> None:
        """What others see of it and of its workers. `known`: variables that were given to it."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        workers = b" ".join(
            _proc(self.process.pid, f"task/{one.parent.name}/children") for one in tasks
        )
        for process in (self.process.pid, *map(int, workers.split())):
            LEDGER.look("the server's command line", _proc(process, "cmdline"))
            LEDGER.look("the server's environment", unlike(_proc(process, "environ"), known))

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Asks it to end; its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 20)


def _proc(process: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{process}/{name}").read_bytes()
    except OSError:
        return b""


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
    known = learn(data, environ)
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
        up.look(known | learn(data, environ))  # keys.yaml may have changed
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
