"""What is measured: a case is one load on one server, a site is a server with all its cases."""

from __future__ import annotations

import dataclasses
import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.load import Load
from bench.room import Room
from bench.running import BrokenError, Program

Bodies = dict[str, Path]
JSON = ("Content-Type", "application/json")
PATIENCE_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Expected:
    """What an answer must have, so that nothing else is measured than what the case says."""

    name: str = ""
    value: str = ""
    """A header field that must stand there, and a part of its value."""
    body: bytes = b""
    """A part of the body."""


@dataclass(frozen=True, slots=True)
class Case:
    """`name` says what is asked; `longer` times the usual seconds, where few requests fit in."""

    name: str
    load: Load
    expected: Expected = dataclasses.field(default_factory=Expected)
    chunks: bool = False
    """The cost is counted per chunk passed on, not per request."""
    longer: int = 1


@dataclass(frozen=True, slots=True)
class Site:
    """A server and what is asked of it."""

    name: str
    program: Program
    cases: tuple[Case, ...]


Builder = Callable[[Room, Bodies], Site]
"""Prepares a server, without starting it; raises MissingError where it isn't installed."""


def post(path: str, body: Path, *fields: tuple[str, str]) -> Load:
    """A POST of this file."""
    return Load(path, "POST", (JSON, *fields), body)


def at_once(case: Case, connections: int) -> Case:
    """The same case with another number of connections, which its name tells."""
    load = dataclasses.replace(case.load, connections=connections)
    return dataclasses.replace(case, name=f"{case.name}-c{connections}", load=load)


def verify(site: Site, case: Case) -> None:
    """Asks until the answer is what is to be measured; raises BrokenError when it never is."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (fault := _fault(site.program.port, case)) and time.monotonic() < deadline:
        time.sleep(0.05)
    if fault:
        raise BrokenError(f"{site.name} {case.name}: {fault}")


def _fault(port: int, case: Case) -> str | None:
    load = case.load
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    path = f"{load.path}&n=verify-{time.monotonic_ns()}" if load.unique else load.path
    try:
        body = load.body.read_bytes() if load.body else None
        connection.request(load.method, path, body, dict(load.fields))
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return repr(error)
    finally:
        connection.close()
    wanted = case.expected
    found = answer.headers.get_all(wanted.name, []) if wanted.name else [""]
    held = any(wanted.value in value for value in found)
    if answer.status != 200 or not held or wanted.body not in content:
        return f"{answer.status} {wanted.name} {found} {content[:100]!r}"
    return None
