"""The database as a file: SQLite, one of whose connections at a time may write."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, event
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from vault.errors import Invalid, StoreUnavailable

_BUSY_MILLISECONDS: Final = 5000
_CONNECTIONS: Final = 4
_WAIT_SECONDS = 10.0
_CROWDED: Final = "too many are using it"
# A rollback journal, because the SQLite of many Pythons can corrupt a WAL that two processes
# checkpoint (fixed in 3.51.3); EXTRA makes a commit survive the loss of power.
_PRAGMAS: Final = (
    f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA synchronous = EXTRA",
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = ON",
)


class SqliteFile:
    """One file. Within this process writers queue fairly; between processes the busy timeout
    decides."""

    def __init__(self, url: URL) -> None:
        self.path: Path | None = Path(url.database) if url.database else None
        self.described = str(self.path or url)
        self._engine = _engine(url)
        self._writer = self._engine.execution_options(writes=True)
        self._turn = asyncio.Lock()

    def exists(self) -> bool:
        """Whether there is a database: an empty file is none."""
        return self.path is not None and self.path.exists() and self.path.stat().st_size > 0

    def make(self) -> None:
        """Makes the file with mode 0600, so that it never has another."""
        if self.path is not None and not self.path.exists():
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Nothing: who makes a vault in a directory holds that directory's lock."""
        yield

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A snapshot for a few SELECTs; raises StoreUnavailable."""
        with _translated():
            async with self._engine.connect() as connection:
                yield connection

    def looking(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """The same for one SELECT."""
        return self.reading()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, durable when it ends without an error; raises StoreUnavailable."""
        with _translated():
            async with self._turn, self._writer.begin() as connection:
                yield connection

    async def require_alone(self, _: AsyncConnection) -> None:
        """Nothing: whoever may write is alone already."""

    async def count_on(self, _: AsyncConnection) -> None:
        """Nothing: the highest number that is there counts."""

    async def snapshot(self) -> bytes:
        """The file as it is at one moment; raises StoreUnavailable, Invalid."""
        if self.path is None:
            raise Invalid("the vault's database is on a server; make its backup there")
        try:
            return await asyncio.to_thread(_copy, self.path)
        except sqlite3.Error as error:
            raise _unavailable(str(error)) from error

    async def close(self) -> None:
        """Closes every connection."""
        await self._engine.dispose()


def _engine(url: URL) -> AsyncEngine:
    engine = create_async_engine(
        url,
        hide_parameters=True,  # a failed statement must not print what it was about to store
        pool_size=_CONNECTIONS,
        max_overflow=0,
        pool_timeout=_WAIT_SECONDS,
        connect_args={"isolation_level": None},  # the driver starts no transactions of its own
    )
    event.listen(engine.sync_engine, "connect", _set_pragmas)
    file = _File(Path(url.database or ":memory:"))
    event.listen(engine.sync_engine, "do_connect", file.require)
    event.listen(engine.sync_engine, "connect", file.remember)
    event.listen(engine.sync_engine, "checkout", file.compare)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


class _File:
    """Keeps connections to the file that is there: on an open one SQLite would read on in a file
    that was removed or replaced, where nobody's changes arrive, and for a new one make an empty
    file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def require(self, *_: object) -> None:
        """Before a connection is made; raises OperationalError."""
        if self._which() is None:
            raise sqlite3.OperationalError(f"{self._path.name} is not there")

    def remember(self, _connection: object, record: ConnectionPoolEntry) -> None:
        """Which file a connection has open."""
        record.info["file"] = self._which()

    def compare(self, _connection: object, record: ConnectionPoolEntry, _proxy: object) -> None:
        """Before a connection is used; another is made for another file."""
        there = self._which()
        if there is None or there != record.info["file"]:
            raise DisconnectionError

    def _which(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def _set_pragmas(connection: Any, _record: object) -> None:
    # A text that somebody made undecodable is another text: its row is refused by its name.
    connection.driver_connection.text_factory = _text
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _copy(path: Path) -> bytes:
    """All pages in one step: a writer waits, or is waited for."""
    with (
        closing(sqlite3.connect(path, timeout=_WAIT_SECONDS)) as source,
        closing(sqlite3.connect(":memory:")) as copy,
    ):
        source.backup(copy)
        return copy.serialize()


def _text(octets: bytes) -> str:
    return octets.decode(errors="replace")


def _begin(connection: Connection) -> None:
    # A write takes its lock at once: a read that becomes a write later could meet another one.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (DBAPIError, PoolTimeout) as error:
        raise _unavailable(_reason(getattr(error, "orig", None))) from error


def _reason(error: object) -> str:
    """ "disk I/O error" alone says nothing: the name tells whether a read, write or sync did."""
    name = getattr(error, "sqlite_errorname", "")
    return f"{error}, {name}" if name.startswith("SQLITE_IOERR") else str(error or _CROWDED)


def _unavailable(reason: str) -> StoreUnavailable:
    return StoreUnavailable(f"the vault's database can't be used now ({reason}); {_remedy(reason)}")


def _remedy(reason: str) -> str:
    if "locked" in reason:
        return "another process is using it: try again"
    if "not a database" in reason or "malformed" in reason:
        return "restore it from your backup"
    return "see that its disk is there, writable and not full, and try again"
