"""The database on a PostgreSQL server: deadlines, and nobody waits for one that is gone.

asyncpg reads the URL, so that it means what libpq's would: several hosts, `sslmode`, a password
file. Every look for changes tells whether the server answers; while it does not, one in a while
tries and all others are refused at once.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
from asyncpg.exceptions import TargetServerAttributeNotMatched
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from vault.errors import Invalid, StoreUnavailable
from vault.sessions import UNREADABLE, Sessions

LOOK_SECONDS: Final = 3.0
"""How long the server may take to say how often the vault was changed."""

PAUSE_SECONDS: Final = 1.0
"""How long nobody asks a server that did not answer."""

_MOMENT: Final = 0.1
"""Who has a connection hears of its end by then; the others, who wait for one, are told."""

_CONNECTIONS: Final = 4
_WAIT_SECONDS = 10.0
_TURN_SECONDS = 20.0
_NUMBERED: Final = ("backends", "audit")
_MIGRATING: Final = 0x6B72_7661  # names of locks: any numbers will do that nobody else takes
_TRY_TO_MAKE: Final = text(f"SELECT pg_try_advisory_xact_lock({0x6B72_7662})")
_UNHURRIED: Final = text("SET LOCAL idle_in_transaction_session_timeout = 0")
_ENDED: Final = ("08", "57P")
"""How the states begin that say that a connection, or the server, has come to its end."""

_WHY: Final = (
    (TimeoutError, "the server does not answer"),
    (FileNotFoundError, "a file that vault.url names is not there"),
    (TargetServerAttributeNotMatched, "no server is there as target_session_attrs asks for"),
)
_SAYS_WHY: Final = (asyncpg.ProtocolViolationError, asyncpg.CannotConnectNowError)
"""So a pooler tells what is wrong, and a server that it starts up, or is a standby for nobody."""

_REMEDIES: Final = (
    ("28", "correct the user and the password in vault.url"),
    ("3D", "create the database, or correct vault.url"),
    ("42704", "take out of vault.url what its server does not know"),
    ("42501", "give its user the right to create tables in its schema"),
    ("42", "restore it from your backup"),
    ("53", "see that the server has room and takes enough connections, and try again"),
    ("25006", "let vault.url name the server that takes writes"),
    ("55P03", "another process is using it: try again"),
    ("40", "another process is using it: try again"),
)


class _NoAnswer(StoreUnavailable):
    """The server is gone, or can't be reached, or takes too long."""


class PostgresServer:
    """One database on a server. One connection is kept for `looking`, so that it never queues."""

    path: Path | None = None

    def __init__(self, url: str) -> None:
        dsn = url.replace("+asyncpg", "", 1)
        self.described = _described(dsn)
        self._sessions = Sessions(dsn)
        self._pool = self._engine()
        self._reader = self._pool.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        self._looker = self._pool.execution_options(isolation_level="AUTOCOMMIT")
        self._turn = asyncio.Lock()
        self._places = asyncio.Semaphore(_CONNECTIONS)
        self._breaker = Breaker()

    def exists(self) -> bool:
        """Always: whether a vault is in it shows when it is asked."""
        return True

    def make(self) -> None:
        """Nothing: a server's databases are its admin's to make."""

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """One process at a time, of all instances; waits for the others, but never on a connection:
        a pooler may have few, and who is alone needs another one."""
        ends = asyncio.get_running_loop().time() + _TURN_SECONDS
        async with self._asked(), self._place():
            while asyncio.get_running_loop().time() < ends:
                async with self._pool.begin() as connection:
                    await self._sessions.begin(connection)
                    if await connection.scalar(_TRY_TO_MAKE):
                        await connection.execute(_UNHURRIED)
                        yield
                        return
                await asyncio.sleep(_MOMENT)
        raise StoreUnavailable(_sentence("another process makes a vault in it", "try again"))

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A snapshot for a few SELECTs; raises StoreUnavailable."""
        async with self._asked(), self._place(), self._reader.connect() as connection:
            await self._sessions.begin(connection)
            yield connection

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[AsyncConnection]:
        """For one SELECT, within LOOK_SECONDS; whether it is answered decides for all others."""
        loop = asyncio.get_running_loop()
        giving_up = loop.call_later(LOOK_SECONDS, self._sessions.break_off)
        try:
            with _translated():
                async with asyncio.timeout(LOOK_SECONDS + _MOMENT):
                    async with self._looker.connect() as connection:
                        yield connection
        except StoreUnavailable as error:
            self._breaker.trip(error, cut=True)
            raise
        finally:
            giving_up.cancel()
        self._breaker.mend()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, durable when it ends without an error; raises StoreUnavailable.

        What it reads behind `bump` or `hold`, which wait for the one before, is what that left.
        """
        async with self._asked(), self._turn, self._place(), self._pool.begin() as connection:
            await self._sessions.begin(connection)
            yield connection

    async def require_alone(self, connection: AsyncConnection) -> None:
        """Waits until no other transaction changes the schema; this one may take its time."""
        await connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATING})"))
        await connection.execute(_UNHURRIED)

    async def count_on(self, connection: AsyncConnection) -> None:
        """As `serial` columns are made."""
        for table in _NUMBERED:
            highest = f"(SELECT coalesce(max(id), 0) + 1 FROM {table})"  # noqa: S608 - of ours
            sequence = f"pg_get_serial_sequence('{table}', 'id')"
            await connection.execute(text(f"SELECT setval({sequence}, {highest}, false)"))

    async def snapshot(self) -> bytes:
        """Raises Invalid: a server has backups of its own."""
        raise Invalid(
            "the vault's database is on a server; make its backup there, or copy it to a file with "
            "keyrelay migrate first"
        )

    async def close(self) -> None:
        """Closes every connection."""
        await self._pool.dispose()

    @asynccontextmanager
    async def _asked(self) -> AsyncIterator[None]:
        """Whatever is asked of the server but whether it is there."""
        self._breaker.admit()
        try:
            with _translated():
                async with self._breaker.cut_when_gone():
                    yield
        except _NoAnswer as error:
            self._breaker.trip(error)
            raise

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """One of the connections, sooner or later."""
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise StoreUnavailable(_sentence("too many are using it", "try again")) from None
        try:
            yield
        finally:
            self._places.release()

    def _engine(self) -> AsyncEngine:
        async def connect(*_: object, **__: object) -> Any:
            return await self._sessions.connect()

        engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=connect,
            hide_parameters=True,  # a failed statement must not print what it was about to store
            pool_size=_CONNECTIONS + 1,
            max_overflow=0,
        )
        event.listen(engine.sync_engine, "checkout", _require_open)
        return engine


class Breaker:
    """Keeps all from waiting for a server that did not answer the last one."""

    def __init__(self) -> None:
        self._why: StoreUnavailable | None = None
        self._next = 0.0
        self._waiting: set[asyncio.Timeout] = set()

    def admit(self) -> None:
        """Raises StoreUnavailable at once, but for one in a while."""
        now = asyncio.get_running_loop().time()
        if self._why is None:
            return
        if now < self._next:
            raise StoreUnavailable(str(self._why))
        self._next = now + PAUSE_SECONDS

    def trip(self, why: StoreUnavailable, *, cut: bool = False) -> None:
        """The server did not answer. `cut`: nor will it those who wait."""
        now = asyncio.get_running_loop().time()
        self._why, self._next = why, now + PAUSE_SECONDS
        for waiting in self._waiting if cut else ():
            waiting.reschedule(now + _MOMENT)

    def mend(self) -> None:
        """It answered."""
        self._why = None

    @asynccontextmanager
    async def cut_when_gone(self) -> AsyncIterator[None]:
        """Ends with TimeoutError as soon as the server is found gone."""
        async with asyncio.timeout(None) as scope:
            self._waiting.add(scope)
            try:
                yield
            finally:
                self._waiting.discard(scope)


def _require_open(connection: Any, _record: ConnectionPoolEntry, _proxy: object) -> None:
    """Before a connection is used: one that the server has closed is made anew."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def _described(dsn: str) -> str:
    """Host and database of a URL; raises Invalid, and shows nothing of it."""
    try:
        parts = urlsplit(dsn)
    except ValueError:
        raise Invalid(UNREADABLE) from None
    user, _, host = parts.netloc.rpartition("@")
    if "@" in user + parts.path or parts.fragment:  # a part of a password may stand anywhere
        raise Invalid(UNREADABLE)
    return f"{parts.scheme}://{host}{parts.path}"


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        cause = error.orig.__cause__ if error.orig is not None else None
        raise _told(cause or error) from cause
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise _told(error) from error


def _told(error: BaseException) -> StoreUnavailable:
    """The first line alone: the second may hold what was to be stored."""
    state = getattr(error, "sqlstate", None) or ""
    reason = str(error).partition("\n")[0]
    for begin, remedy in _REMEDIES:
        if state.startswith(begin):
            return StoreUnavailable(_sentence(reason, remedy))
    if state and not state.startswith(_ENDED):
        return StoreUnavailable(_sentence(reason, "see the log of its server"))
    remedy = "see that its server runs and can be reached, and try again"
    return _NoAnswer(_sentence(_why_gone(error), remedy))


def _why_gone(error: BaseException) -> str:
    for kind, why in _WHY:
        if isinstance(error, kind):
            return why
    if isinstance(error, _SAYS_WHY):
        return str(error).partition("\n")[0]
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        return _why_not_connected(error)
    return "the connection was lost"


def _why_not_connected(error: OSError) -> str:
    if "rejected SSL" in str(error):
        return "it offers no TLS, which sslmode asks for"
    number = error.errno or 0
    if number < 0:  # as of who looks names up
        return "the address of its host is not known"
    return os.strerror(number).lower() if number else "no connection to it"


def _sentence(reason: str, remedy: str) -> str:
    return f"the vault's database can't be used now ({reason}); {remedy}"
