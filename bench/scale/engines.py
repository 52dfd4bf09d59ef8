"""A Redis and a PostgreSQL of this run alone: free ports, temporary folders, gone at its end."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.room import MissingError, free_port, program

ORDINARY = {"user": "nobody", "group": "nogroup"}
"""PostgreSQL refuses root."""

PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Engine:
    """A started server of somebody else's: the process that its others descend from."""

    name: str
    pid: int
    port: int


@contextlib.contextmanager
def redis() -> Iterator[Engine]:
    """One Redis, without persistence; raises MissingError."""
    server, client, port = program("redis-server"), program("redis-cli"), free_port()
    with _folder() as folder:
        command = [server, "--port", str(port), "--dir", str(folder), "--save", ""]
        answers = [client, "-p", str(port), "ping"]
        with _running([*command, "--appendonly", "no"], answers) as pid:
            yield Engine("redis", pid, port)


@contextlib.contextmanager
def postgres() -> Iterator[Engine]:
    """One PostgreSQL as it is after its installation, but for its port; raises MissingError."""
    port = free_port()
    with _folder() as folder:
        data = folder / "data"
        make = [
            of_postgres("initdb"),
            "-D",
            str(data),
            "-U",
            "keyrelay",
            "-A",
            "trust",
            "-E",
            "UTF8",
        ]
        subprocess.run([*make, "--locale=C"], check=True, capture_output=True, **_as_ordinary())
        told = (f"unix_socket_directories={folder}", "listen_addresses=127.0.0.1")
        command = [of_postgres("postgres"), "-D", str(data), "-p", str(port)]
        command += [word for one in told for word in ("-c", one)]
        with _running(command, _psql(port, "postgres", "SELECT 1")) as pid:
            yield Engine("postgresql", pid, port)


def say_redis(engine: Engine, *words: str) -> str:
    """One command by its own client; what it answered."""
    asked = [program("redis-cli"), "-p", str(engine.port), *words]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()


def redis_url(engine: Engine) -> str:
    """For `cache.url`; emptied."""
    say_redis(engine, "flushall")
    return f"redis://127.0.0.1:{engine.port}"


def another_database(engine: Engine, name: str) -> str:
    """A new one; for `vault.url`."""
    asked = _psql(engine.port, "postgres", f"CREATE DATABASE {name}")
    subprocess.run(asked, check=True, capture_output=True)
    return f"postgresql://keyrelay@127.0.0.1:{engine.port}/{name}"


def connections(redis: Engine, postgres: Engine, database: str) -> dict[str, int]:
    """How many are open to each: of the one to a database, of the other but for who asks."""
    question = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'"
    asked = _psql(postgres.port, "postgres", question)
    found = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    callers = say_redis(redis, "client", "list").splitlines()
    return {"redis": len(callers) - 1, "postgresql": int(found)}


def _psql(port: int, database: str, statement: str) -> list[str]:
    url = f"postgresql://keyrelay@127.0.0.1:{port}/{database}"
    return [of_postgres("psql"), "-qAtX", "-c", statement, url]


@contextlib.contextmanager
def _running(command: Sequence[str], answers: Sequence[str]) -> Iterator[int]:
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, **quiet, **_as_ordinary())
    try:
        _until(lambda: subprocess.run(answers, capture_output=True, check=False).returncode == 0)
        yield process.pid
    finally:
        process.terminate()  # PostgreSQL waits for its callers: they are gone by now
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        if time.monotonic() > ends:
            raise MissingError("an engine that answers")
        time.sleep(0.05)


def of_postgres(name: str) -> str:
    """The path of one of its programs: Debian keeps them apart by version."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(places[-1]) if places else program(name)


def _as_ordinary() -> dict[str, str]:
    return {**ORDINARY, "cwd": "/"} if os.geteuid() == 0 else {}


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kr-scale-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o777)
        yield Path(name)


def version_in(text: str) -> str:
    """The first thing like one in what a program says of itself."""
    words = (word.removeprefix("v=") for word in text.split())
    return next((word for word in words if word[:1].isdigit()), "")
