"""The vault's database, whichever engine its URL names: its verbs, and the row of its state."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final, Protocol

from sqlalchemy import URL, Row, insert, literal_column, make_url, select, update
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection

from vault import schema
from vault.chain import Head, State
from vault.errors import Invalid
from vault.register import is_root
from vault.tables import DATA_KEYS, STATE

_STANDING: Final = select(
    STATE, literal_column("(SELECT version_num FROM alembic_version)").label("revision")
)
_FORMS: Final = "postgresql://USER@HOST/DATABASE or sqlite+aiosqlite:///vault.db"


class Engine(Protocol):
    """What differs between databases. Each way in raises StoreUnavailable.

    `path`: the file, None on a server; `described`: its name in messages, without a password.
    """

    path: Path | None
    described: str

    def exists(self) -> bool:
        """Whether there is a database at all, with or without a vault in it."""
        ...

    def make(self) -> None:
        """Makes the file, where it is one."""
        ...

    def alone(self) -> AbstractAsyncContextManager[None]:
        """As long as it lasts no other process, wherever, makes a vault in this database."""
        ...

    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """One snapshot for a few SELECTs."""
        ...

    def looking(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """For one SELECT that is made again and again, and tells whether the database is there."""
        ...

    def writing(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction, durable when it ends without an error. `bump` or `hold` comes first in it:
        so those of all processes come one after another."""
        ...

    async def require_alone(self, connection: AsyncConnection) -> None:
        """Inside a transaction: waits until no other one changes the schema."""
        ...

    async def count_on(self, connection: AsyncConnection) -> None:
        """Inside a transaction: rows that are numbered come behind those that are there."""
        ...

    async def snapshot(self) -> bytes:
        """A file's octets; raises Invalid for a server."""
        ...

    async def close(self) -> None:
        """Closes every connection."""
        ...


class _TakenBack(Exception):
    """Ends a transaction that was only to be tried."""


class Store:
    """One database. Reads are one snapshot each; writes of all processes come one after another."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._moved = False

    @classmethod
    def at(cls, url: str | Path) -> Store:
        """The store of a SQLite file or of a URL; raises Invalid. Nothing is opened yet."""
        if isinstance(url, Path):
            return cls(_sqlite(URL.create("sqlite+aiosqlite", database=str(url))))
        if url.partition("://")[0] in _SERVERS:
            return cls(_postgres(url))
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError):
            parsed = URL.create("nonsense")
        if parsed.drivername == "sqlite+aiosqlite" and parsed.database:
            return cls(_sqlite(parsed))
        raise Invalid(f"the vault's URL can't be used; try {_FORMS}")

    @property
    def path(self) -> Path | None:
        """The file, None on a server."""
        return self.engine.path

    @property
    def described(self) -> str:
        """Its name in messages."""
        return self.engine.described

    def exists(self) -> bool:
        """Whether there is a database: an empty file is none; a database server always is."""
        return self.engine.exists()

    def make_file(self) -> None:
        """Makes the database file, where it is one, with mode 0600."""
        self.engine.make()

    def alone(self) -> AbstractAsyncContextManager[None]:
        """As long as it lasts no other process makes a vault in this database."""
        return self.engine.alone()

    async def prepare(self) -> None:
        """Brings the schema to this release; raises SchemaTooNew, StoreUnavailable."""
        async with self.reading() as connection:
            if await connection.run_sync(schema.revision_of) == schema.HEAD:
                return
        async with self.engine.writing() as connection:
            await self.engine.require_alone(connection)
            if await connection.run_sync(schema.revision_of) is not None:
                await _take_turn(connection, 0)  # whoever writes now ends first
            await connection.run_sync(schema.migrate)

    async def in_use(self) -> bool:
        """Whether there is a data key, that is, whether a particular master key is needed."""
        async with self.reading() as connection:
            if await connection.run_sync(schema.revision_of) is None:
                return False
            return await connection.scalar(select(DATA_KEYS.c.id).limit(1)) is not None

    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection for a few SELECTs; raises StoreUnavailable."""
        if self._moved:
            schema.require_there(schema.MOVED)
        return self.engine.reading()

    def writing(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction, durable when it ends without an error; raises StoreUnavailable."""
        return self.engine.writing()

    async def state(self) -> State:
        """How often the vault was changed, and what authenticates that. Raises StoreUnavailable,
        as every read from then on, where it was moved away."""
        async with self.engine.looking() as connection:
            row = (await connection.execute(_STANDING)).first()
        revision = None if row is None else schema.require_said(row.revision)
        self._moved = revision == schema.MOVED
        schema.require_there(revision)
        return _state_of(row)

    async def check(self) -> None:
        """Reads and writes, and takes it back; raises StoreUnavailable."""
        with suppress(_TakenBack):
            async with self.engine.writing() as connection:
                await _take_turn(connection, 1)  # SQLite writes no page that stays the same
                raise _TakenBack

    async def snapshot(self) -> bytes:
        """The database file as it is at one moment; raises StoreUnavailable, Invalid."""
        return await self.engine.snapshot()

    async def close(self) -> None:
        """Closes every connection."""
        await self.engine.close()


class Inside(Store):
    """One transaction as if it were a whole database; whoever opened it ends it."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """What it sees."""
        return nullcontext(self._connection)

    def writing(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """What is written stands once the transaction does."""
        return nullcontext(self._connection)


def _sqlite(url: URL) -> Engine:
    from vault.sqlite import SqliteFile  # noqa: PLC0415 - an engine is loaded where it is used

    return SqliteFile(url)


def _postgres(url: str) -> Engine:
    from vault.postgres import PostgresServer  # noqa: PLC0415

    return PostgresServer(url)


_SERVERS: Final = frozenset({"postgresql", "postgres", "postgresql+asyncpg"})


async def bump(connection: AsyncConnection) -> State:
    """Counts one change. Comes first in a write: it also locks the others out.

    The seal that it gives is still the one of the number before. Raises SchemaTooNew where a newer
    release has taken the database over, and StoreUnavailable where the vault was moved away.
    """
    return await _ours(connection, 1)


async def hold(connection: AsyncConnection) -> State:
    """Locks the others out, as `bump` does, and counts nothing."""
    return await _ours(connection, 0)


async def put_state(connection: AsyncConnection) -> None:
    """Makes the row of the state anew where somebody has taken it out; nothing vouches for it."""
    if (await connection.execute(select(STATE.c.id))).first() is None:
        master = await connection.scalar(select(DATA_KEYS.c.master_id).limit(1))
        await connection.execute(insert(STATE).values(id=1, generation=0, master_id=master))


async def state_in(connection: AsyncConnection) -> State:
    """How often the vault was changed, as a transaction sees it."""
    return _state_of((await connection.execute(select(STATE))).first())


async def _take_turn(connection: AsyncConnection, changes: int) -> None:
    await connection.execute(update(STATE).values(generation=STATE.c.generation + changes))


async def _ours(connection: AsyncConnection, changes: int) -> State:
    await _take_turn(connection, changes)
    row = (await connection.execute(_STANDING)).first()
    if row is not None:
        schema.require_ours(row.revision)
    return _state_of(row)


def _state_of(row: Row[Any] | None) -> State:
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
