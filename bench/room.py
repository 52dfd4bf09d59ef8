"""Where a run works: a directory of its own, free ports of 127.0.0.1, and how to find programs."""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
BENCH_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
"""The interpreter that has what only the bench needs: matplotlib and LiteLLM."""

ADMIN_PATHS = "/usr/local/sbin:/usr/sbin:/sbin"
"""Debian puts nginx and varnishd where an ordinary user's PATH doesn't look."""


class MissingError(Exception):
    """A program that isn't installed; its text is the word that the table shows."""


@dataclass(frozen=True, slots=True)
class Room:
    """What the servers of one run share: a directory, and the ports of the upstreams."""

    directory: Path
    plain: int
    tls: int
    origin: int

    def folder(self, name: str) -> Path:
        """A directory for one server."""
        path = self.directory / name
        path.mkdir(parents=True, exist_ok=True)
        return path


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses right now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def program(name: str) -> str:
    """The path of an installed program; raises MissingError."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{ADMIN_PATHS}")
    if found is None:
        raise MissingError(f"{name} is not installed")
    return found


def bench_python(module: str) -> str:
    """The bench's own interpreter, if it has this module; raises MissingError."""
    packages = (ROOT / ".venv-bench" / "lib").glob(f"python*/site-packages/{module}")
    if not BENCH_PYTHON.exists() or not any(packages):
        raise MissingError(f"{module} is not installed in .venv-bench")
    return str(BENCH_PYTHON)


def environment(**more: str) -> dict[str, str]:
    """A plain environment, so that no proxy variable or setting of the user's decides anything."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, **more}
