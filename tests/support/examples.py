"""Runs a file of `examples/` as its reader would: a process of its own, with its environment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
STARTS_WITHIN = 30.0
STOPS_WITHIN = 10.0


@dataclass
class Backend:
    """An example that serves. `output` is whole once the context has been left."""

    url: str
    output: str = ""


@dataclass(frozen=True)
class Finished:
    """An example that has run to its end."""

    status: int
    output: str


async def run_example(name: str, *arguments: str, **environment: str) -> Finished:
    """Runs a script to its end, both outputs together."""
    process = await _start([sys.executable, str(EXAMPLES / name), *arguments], environment)
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return Finished(process.returncode, output.decode())


@contextlib.asynccontextmanager
async def running_example(name: str, **environment: str) -> AsyncIterator[Backend]:
    """An example backend on a port of its own, from when it can be connected to."""
    port = free_port()
    command = [sys.executable, str(EXAMPLES / name)]
    async with _serving(command, port, {**environment, "PORT": str(port)}) as backend:
        yield backend


@contextlib.asynccontextmanager
async def serving_page() -> AsyncIterator[int]:
    """`examples/page` by the command that it names; the port."""
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    command += ["--directory", str(EXAMPLES / "page")]
    async with _serving(command, port, {}):
        yield port


def free_port() -> int:
    """A loopback port that nobody listens on just now.

    Below the range from which systems take ports for connections and for port 0, so that nothing
    else takes it before the example does.
    """
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


async def _start(command: list[str], environment: dict[str, str]) -> asyncio.subprocess.Process:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return await asyncio.create_subprocess_exec(
        *command,
        env={**inherited, "PYTHONUNBUFFERED": "1", **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


@contextlib.asynccontextmanager
async def _serving(
    command: list[str], port: int, environment: dict[str, str]
) -> AsyncIterator[Backend]:
    process = await _start(command, environment)
    assert process.stdout is not None
    output = asyncio.create_task(process.stdout.read())
    backend = Backend(f"http://127.0.0.1:{port}")
    try:
        await _listening(process, output, port)
        yield backend
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(STOPS_WITHIN):
            await process.wait()
            backend.output = (await output).decode()


async def _listening(
    process: asyncio.subprocess.Process, output: asyncio.Task[bytes], port: int
) -> None:
    """Returns once a connection succeeds; a process that ended first fails with what it said."""
    async with asyncio.timeout(STARTS_WITHIN):
        while True:
            if process.returncode is not None:
                raise AssertionError(f"ended before it listened:\n{(await output).decode()}")
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            await writer.wait_closed()
            return
