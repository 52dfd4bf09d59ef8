"""Starts a server's process, waits until it answers, and ends it with all its children."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.room import environment

START_SECONDS = 60
STOP_SECONDS = 15


class BrokenError(Exception):
    """A server that doesn't do what it should; its text says what it did instead."""


@dataclass(frozen=True, slots=True)
class Program:
    """How to start a server: its command, its directory, and the port where it will answer."""

    name: str
    command: Sequence[str]
    folder: Path
    port: int
    environ: Mapping[str, str] = field(default_factory=dict)
    ready: str = "/"
    """A path that answers, with whatever status, once the server is up."""


@dataclass(frozen=True, slots=True)
class Running:
    """A started server: the process that all its others descend from."""

    program: Program
    process: subprocess.Popen[bytes]
    start_seconds: float

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def port(self) -> int:
        return self.program.port


@contextlib.contextmanager
def running(program: Program) -> Iterator[Running]:
    """The server, from its first answer on; raises BrokenError when it doesn't come up."""
    with (program.folder / "log").open("wb") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            list(program.command),
            cwd=program.folder,
            env=environment(**program.environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _await_answer(program, process)
            yield Running(program, process, time.perf_counter() - began)
        finally:
            _end(process)


def _await_answer(program: Program, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BrokenError(f"{program.name} ended with {process.returncode}: {said(program)}")
        if _answers(program):
            return
        time.sleep(0.01)
    raise BrokenError(f"{program.name} did not answer in {START_SECONDS} s: {said(program)}")


def _answers(program: Program) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", program.port, timeout=5)
    try:
        connection.request("GET", program.ready)
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def said(program: Program) -> str:
    """The end of what the server has printed."""
    log = program.folder / "log"
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return " / ".join(lines[-3:])[-300:]


def _end(process: subprocess.Popen[bytes]) -> None:
    """The whole session: a master that is killed would leave its workers behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
