"""The database: its connections, transactions and errors. The URL decides the engine."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, event, insert, make_url, select, update
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from vault import schema
from vault.chain import Head, State
from vault.errors import Invalid, StoreUnavailable
from vault.register import is_root
from vault.tables import DATA_KEYS, STATE

_BUSY_MILLISECONDS: Final = 5000
_CONNECTIONS: Final = 4
_WAIT_SECONDS = 10.0
# A rollback journal, because the SQLite of many Pythons can corrupt a WAL that two processes
# checkpoint (fixed in 3.51.3); EXTRA makes a commit survive the loss of power.
_PRAGMAS: Final = (
    f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA synchronous = EXTRA",
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = ON",
)


class Store:
    """One database. Reads are one snapshot each; writes of all processes come one after another."""

    def __init__(self, url: URL) -> None:
        self.path = (
            Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None
        )
        self.described = str(self.path or url.render_as_string(hide_password=True))
        self._engine = _engine(url)
        self._writer = self._engine.execution_options(writes=True)
        # Within this process writers queue fairly; between processes SQLite's busy timeout decides.
        self._turn = asyncio.Lock()

    @classmethod
    def at(cls, url: str | Path) -> Store:
        """The store of a SQLite file or of a URL; raises Invalid. Nothing is opened yet."""
        if isinstance(url, Path):
            return cls(URL.create("sqlite+aiosqlite", database=str(url)))
        try:
            return cls(make_url(url))
        except (ArgumentError, InvalidRequestError, ImportError, TypeError) as error:
            raise Invalid(
                "the vault's URL can't be used; try sqlite+aiosqlite:///vault.db"
            ) from error

    def exists(self) -> bool:
        """Whether there is a database: an empty file is none; a database server always is."""
        return self.path is None or (self.path.exists() and self.path.stat().st_size > 0)

    def make_file(self) -> None:
        """Makes the database file with mode 0600, so that it never has another."""
        if self.path is not None and not self.path.exists():
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))

    async def prepare(self) -> None:
        """Brings the schema to this release; raises SchemaTooNew, StoreUnavailable."""
        async with self.reading() as connection:
            if await connection.run_sync(schema.revision_of) == schema.HEAD:
                return
        async with self.writing() as connection:
            await connection.run_sync(schema.migrate)

    async def in_use(self) -> bool:
        """Whether there is a data key, that is, whether a particular master key is needed."""
        async with self.reading() as connection:
            return await connection.scalar(select(DATA_KEYS.c.id).limit(1)) is not None

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection for a few SELECTs; raises StoreUnavailable."""
        with _translated():
            async with self._engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, durable when it ends without an error; raises StoreUnavailable."""
        with _translated():
            async with self._turn, self._writer.begin() as connection:
                yield connection

    async def state(self) -> State:
        """How often the vault was changed, and what authenticates that."""
        async with self.reading() as connection:
            return await state_in(connection)

    async def check(self) -> None:
        """Reads and writes, and takes it back; raises StoreUnavailable."""
        with _translated():
            async with self._turn, self._writer.connect() as connection:
                await bump(connection)  # SQLite writes no page that stays the same
                await connection.rollback()

    async def snapshot(self) -> bytes:
        """The database file as it is at one moment; raises StoreUnavailable, Invalid."""
        if self.path is None:
            raise Invalid("the vault's database is on a server; make its backup there")
        try:
            return await asyncio.to_thread(_copy, self.path)
        except sqlite3.Error as error:
            raise _unavailable(str(error)) from error

    async def close(self) -> None:
        """Closes every connection."""
        await self._engine.dispose()


async def bump(connection: AsyncConnection) -> State:
    """Counts one change. Comes first in a write: it also locks the others out.

    The seal that it gives is still the one of the number before.
    """
    await connection.execute(update(STATE).values(generation=STATE.c.generation + 1))
    return await state_in(connection)


async def hold(connection: AsyncConnection) -> State:
    """Locks the others out, as `bump` does, and counts nothing."""
    await connection.execute(update(STATE).values(generation=STATE.c.generation))
    return await state_in(connection)


async def put_state(connection: AsyncConnection) -> None:
    """Makes the row of the state anew where somebody has taken it out; nothing vouches for it."""
    if (await connection.execute(select(STATE.c.id))).first() is None:
        master = await connection.scalar(select(DATA_KEYS.c.master_id).limit(1))
        await connection.execute(insert(STATE).values(id=1, generation=0, master_id=master))


async def state_in(connection: AsyncConnection) -> State:
    """How often the vault was changed, as a transaction sees it."""
    row = (await connection.execute(select(STATE))).first()
    if row is None or not isinstance(row.generation, int):
        return State(0, b"")
    if row.register is not None and not is_root(row.register):
        return State(row.generation, b"")
    if row.audit_rows is None and row.audit_link is None:
        return State(row.generation, row.seal, None, row.register)
    if not isinstance(row.audit_rows, int) or not isinstance(row.audit_link, bytes):
        return State(row.generation, b"")
    return State(row.generation, row.seal, Head(row.audit_rows, row.audit_link), row.register)


async def write_state(connection: AsyncConnection, state: State) -> None:
    """Puts a number, the end of the audit log, the register, and what authenticates them."""
    rows, link = state.head or (None, None)
    values = {"generation": state.generation, "seal": state.seal, "register": state.root}
    await connection.execute(update(STATE).values(**values, audit_rows=rows, audit_link=link))


def _engine(url: URL) -> AsyncEngine:
    # hide_parameters: a failed statement must not print what it was about to store.
    if url.get_backend_name() != "sqlite":
        return create_async_engine(url, hide_parameters=True)
    engine = create_async_engine(
        url,
        hide_parameters=True,
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
        if self._which() != record.info["file"]:
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
        reason = str(getattr(error, "orig", None) or "too many are using it")
        raise _unavailable(reason) from error


def _unavailable(reason: str) -> StoreUnavailable:
    return StoreUnavailable(f"the vault's database can't be used now ({reason}); {_remedy(reason)}")


def _remedy(reason: str) -> str:
    if "locked" in reason:
        return "another process is using it: try again"
    if "not a database" in reason or "malformed" in reason:
        return "restore it from your backup"
    return "see that its disk is there, writable and not full, and try again"
