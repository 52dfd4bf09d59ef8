"""Real engines for the tests: one Redis and one PostgreSQL a session, on free ports, in temporary
folders, as an ordinary user where the tests run as root. Nothing of them outlives the session.

What they write is looked at for secrets: Redis its file of everything that was ever changed, or of
what it holds at its end; PostgreSQL its log of every statement, its WAL, and its tables at the end.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import ClassVar, Final, TypeVar

from tests.support.canaries import LEDGER
from tests.support.examples import free_port
from tests.support.namespaces import Apart
from tests.support.programs import need

ORDINARY: Final = "nobody"
PATIENCE_SECONDS: Final = 60.0
TRIES: Final = 5
_numbers = count(1)
Engine = TypeVar("Engine", bound="Running")


class _Ended(Exception):
    """A server is not there any more."""


@dataclass
class Running(ABC):
    """A server of somebody else's in a process of its own. `folder`: where its data are."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path
    command: list[str]
    host: str = "127.0.0.1"
    looked_at: dict[Path, int] = field(default_factory=dict)

    GROWING: ClassVar[Sequence[str]] = ("log",)
    LEFT: ClassVar[Sequence[str]] = ()
    """Files in the folder to be looked at: those that only grow, and others at the end."""

    def look(self) -> None:
        """Whether what was written since the last time holds a secret."""
        for path in self._files(self.GROWING):
            with suppress(FileNotFoundError), path.open("rb") as file:
                file.seek(self.looked_at.get(path, 0))
                octets = file.read().rstrip(b"\0")  # a file may be longer than what is in it
                if octets:
                    self.looked_at[path] = self.looked_at.get(path, 0) + len(octets)
                    LEDGER.look(f"{type(self).__name__}: {path.name}", octets)

    def look_at_all(self) -> None:
        """The same at its end, of all that it leaves."""
        self.look()
        folders: dict[Path, list[bytes]] = {}
        for path in self._files(self.LEFT):
            folders.setdefault(path.parent, []).append(path.read_bytes())
        for folder, octets in folders.items():
            LEDGER.look(f"{type(self).__name__}: {folder.name}", b"\0".join(octets))

    def _files(self, patterns: Sequence[str]) -> Iterator[Path]:
        for pattern in patterns:
            yield from sorted(self.folder.glob(pattern))

    def kill(self) -> None:
        """Gone at once, as by kill -9."""
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """It answers nothing and closes nothing."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """After a pause."""
        self._signal(signal.SIGCONT)

    def start_again(self) -> None:
        """On the same port and data."""
        self.process = _started(self.command, self.folder)

    @abstractmethod
    def wait(self) -> None:
        """Until it answers."""

    def _signal(self, which: signal.Signals) -> None:
        for process in (self.process.pid, *self._children()):
            os.kill(process, which)

    def _children(self) -> list[int]:
        asked = ["pgrep", "-P", str(self.process.pid)]
        found = subprocess.run(asked, capture_output=True, text=True, check=False)
        return [int(word) for word in found.stdout.split()]


class RunningRedis(Running):
    """A Redis without persistence, but for what it holds when it is ended."""

    GROWING = ("log", "appendonlydir/*.aof")
    LEFT = ("dump.rdb",)

    @property
    def url(self) -> str:
        """For `cache.url`."""
        return f"redis://{self.host}:{self.port}"

    def say(self, *words: str) -> str:
        """One command by its own client; what it answered."""
        asked = ["redis-cli", "-h", self.host, "-p", str(self.port), *words]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()

    def wait(self) -> None:
        """Until it answers, if only that it wants a password."""
        _until(self, lambda: self.say("ping").startswith(("PONG", "NOAUTH")))


class RunningPostgres(Running):
    """A PostgreSQL whose superuser is `keyrelay`, without fsync: no test pulls its plug."""

    GROWING = ("log", "data/pg_wal/0*")
    LEFT = ("data/base/*/[1-9]????", "data/base/*/[1-9]????_*", "data/base/pgsql_tmp/*")
    """Of the tables and indexes those that initdb has not made."""

    def kill(self) -> None:
        """With all that work for it: while one of them is there, none can be started again."""
        children = self._children()
        super().kill()
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        ends = time.monotonic() + PATIENCE_SECONDS
        while any(map(_lives, children)) and time.monotonic() < ends:
            time.sleep(0.01)

    @property
    def url(self) -> str:
        """Of the database that is always there."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """For `vault.url`."""
        return f"postgresql://keyrelay@{self.host}:{self.port}/{database}"

    def another(self) -> str:
        """The URL of a new, empty database."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        self.say(f"CREATE DATABASE {name}")
        self.pass_over()
        return self.url_of(name)

    def pass_over(self) -> None:
        """Of the WAL what a new database has put there: it is nobody's."""
        for path in self._files(self.GROWING[1:]):
            with suppress(FileNotFoundError), path.open("rb") as file:
                file.seek(self.looked_at.get(path, 0))
                self.looked_at[path] = file.tell() + len(file.read().rstrip(b"\0"))

    def say(self, statement: str, database: str = "postgres") -> str:
        """One statement by its own client; the rows, a line each."""
        asked = [_postgres("psql"), "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", statement]
        found = subprocess.run(
            [*asked, self.url_of(database)], capture_output=True, text=True, check=True
        )
        return found.stdout.strip()

    def dump(self, url: str) -> bytes:
        """All that a database holds, as its backup has it."""
        asked = [_postgres("pg_dump"), "--inserts", url]
        return subprocess.run(asked, capture_output=True, check=True).stdout

    def wait(self) -> None:
        """Until it answers."""
        _until(self, lambda: self.say("SELECT 1") == "1")


@contextmanager
def pooler_running(behind: RunningPostgres, *settings: str) -> Iterator[RunningPostgres]:
    """A PgBouncer before that PostgreSQL, which lends its connections for one transaction each and
    knows nothing of us; with settings such as `default_pool_size=5`. Skips without one."""
    program = need("pgbouncer")
    with _folder() as folder:
        users, file = folder / "users", folder / "pgbouncer.ini"
        users.write_text('"keyrelay" ""\n')

        def command(port: int) -> list[str]:
            told = ("pool_mode=transaction", "auth_type=trust", f"auth_file={users}")
            where = (f"listen_addr={behind.host}", f"listen_port={port}", "unix_socket_dir=")
            file.write_text(
                f"[databases]\n* = host={behind.host} port={behind.port}\n[pgbouncer]\n"
                + "\n".join((*told, *where, *settings))
            )
            return [program, str(file)]

        yield from _serving(_answering(RunningPostgres, command, folder, behind.host))


@contextmanager
def redis_running(*options: str, there: Apart | None = None) -> Iterator[RunningRedis]:
    """One more Redis, with options as on its command line; skips where there is none."""
    enter, host = (there.enter, there.address) if there else ([], "127.0.0.1")
    program = need("redis-server", "valkey-server")
    bare = ["--save", "", "--appendonly", "no", "--bind", host, "--protected-mode", "no"]
    bare += ["--shutdown-on-sigint", "save", "--rdbcompression", "no"]
    with _folder() as folder:

        def command(port: int) -> list[str]:
            return [*enter, program, "--port", str(port), "--dir", str(folder), *bare, *options]

        yield from _serving(_answering(RunningRedis, command, folder, host))


@contextmanager
def postgres_running(*settings: str, there: Apart | None = None) -> Iterator[RunningPostgres]:
    """One more PostgreSQL, with settings such as `max_connections=20`; skips without one."""
    enter, host = (there.enter, there.address) if there else ([], "127.0.0.1")
    initdb, program = _postgres("initdb"), _postgres("postgres")
    with _folder() as folder:
        data = folder / "data"
        made = [initdb, "-D", str(data), "-U", "keyrelay", "-A", "trust", "-E", "UTF8", "--no-sync"]
        small = ("--locale=C", "--wal-segsize=1")
        subprocess.run([*made, *small], check=True, capture_output=True, **_as_ordinary())
        if there:
            with (data / "pg_hba.conf").open("a") as rules:
                rules.write("host all all all trust\n")
        fast = ("fsync=off", f"unix_socket_directories={folder}", f"listen_addresses={host}")
        kept = ("log_statement=all", "wal_recycle=off", "wal_keep_size=64MB")
        told = [word for one in (*fast, *kept, *settings) for word in ("-c", one)]

        def command(port: int) -> list[str]:
            return [*enter, program, "-D", str(data), "-p", str(port), *told]

        yield from _serving(_answering(RunningPostgres, command, folder, host))


def _answering(
    kind: type[Engine], command: Callable[[int], list[str]], folder: Path, host: str
) -> Engine:
    """On a port that was free when it began, and not taken by somebody else meanwhile."""
    for _ in range(TRIES):
        port = free_port()
        words = command(port)
        running = kind(_started(words, folder), port, folder, words, host)
        try:
            running.wait()
        except _Ended:
            continue
        return running
    raise _Ended("the server ended as soon as it was started")


def _serving(running: Engine) -> Iterator[Engine]:
    try:
        running.wait()
        yield running
    finally:
        running.go_on() if running.process.poll() is None else None
        running.process.send_signal(signal.SIGINT)
        try:
            running.process.wait(10)
        except subprocess.TimeoutExpired:
            running.kill()
        running.look_at_all()


def _lives(process: int) -> bool:
    """One that nobody has waited for yet holds nothing any more."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _postgres(name: str) -> str:
    """Debian keeps them apart by version."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(places[-1]) if places else need(name)


def _started(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    who = _as_ordinary()
    if command[0] == "ip":  # only root may enter
        after = command.index("exec") + 2
        ordinary = ["setpriv", f"--reuid={ORDINARY}", "--regid=nogroup", "--clear-groups"]
        command, who = [*command[:after], *ordinary, *command[after:]], {"cwd": "/"}
    with (folder / "log").open("ab") as log:
        told = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        return subprocess.Popen(command, **told, **who)


def _as_ordinary() -> dict[str, object]:
    """PostgreSQL refuses to run as root."""
    return {"user": ORDINARY, "group": "nogroup", "cwd": "/"} if os.geteuid() == 0 else {}


@contextmanager
def _folder() -> Iterator[Path]:
    """Open to the ordinary user, and short: a socket's name has a bound."""
    folder = Path(tempfile.mkdtemp(prefix="kr-engine-"))
    try:
        folder.chmod(0o777)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _until(running: Running, holds: Callable[[], bool]) -> None:
    """Waits for a server to start; what it says before is no answer. What another one says that
    has its port is none either: who can't have it ends at once."""
    ends = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < ends:
        with suppress(subprocess.CalledProcessError):
            answers = holds()
            time.sleep(0.05)
            if running.process.poll() is not None:
                raise _Ended
            if answers:
                return
        time.sleep(0.05)
        if running.process.poll() is not None:
            raise _Ended
    raise TimeoutError("the server did not start")
