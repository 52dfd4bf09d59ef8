"""PostgreSQL as usage and budgets need it: one connection that comes back, deadlines, one error,
and a way to do a thing once though its answer was lost.

Nobody waits long for a server that is gone, and none of it is felt by a call: who writes here keeps
what could not be written. The tables are made by whoever needs them first. Nothing is expected to
outlast a transaction, so that a pooler may stand between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from secrets import token_hex
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

Connection = Any
"""asyncpg's."""

Prepare = Callable[[Connection], Awaitable[None]]
"""What is done first on a new connection."""


class Freight(NamedTuple):
    """What a room had in a SQLite file: the question for its rows, in an order that lasts, and how
    some of them are added to those of all. `prepare`: makes the tables."""

    rows: str
    add: Callable[[Connection, Sequence[Any]], Awaitable[None]]
    prepare: Prepare


CONNECT_SECONDS: Final = 3.0
DEADLINE_SECONDS: Final = 10.0
"""How long a transaction may take, with its connection if there is none yet."""

_SETTINGS: Final = {"application_name": "keyrelay", "TimeZone": "UTC"}
_LASTING: Final = "SET tcp_keepalives_idle = 15"
_BEGIN: Final = f"""
    SET LOCAL statement_timeout = '{DEADLINE_SECONDS:.0f}s';
    SET LOCAL idle_in_transaction_session_timeout = '{DEADLINE_SECONDS:.0f}s'"""
"""What an instance leaves behind that was cut off ends by itself, and its locks with it."""

_ONE_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(hashtext('keyrelay tables'))"
_WRITERS: Final = """CREATE TABLE IF NOT EXISTS relay_writers (
    writer text PRIMARY KEY,
    batch bigint NOT NULL,
    seen timestamptz NOT NULL DEFAULT now()
)"""
_FORGET_WRITERS: Final = "DELETE FROM relay_writers WHERE seen < now() - interval '30 days'"
_CLAIM: Final = """INSERT INTO relay_writers (writer, batch) VALUES ($1, $2)
    ON CONFLICT (writer) DO UPDATE SET batch = excluded.batch, seen = now()
    WHERE relay_writers.batch < excluded.batch RETURNING batch"""


class DatabaseGone(Exception):
    """PostgreSQL can't be asked now, or did not do it; the message is a safe sentence."""


class Line:
    """One connection to a database, for one event loop; another is made where one was lost."""

    def __init__(self, url: str, prepare: Prepare) -> None:
        self.described = described(url)
        self._url = url
        self._prepare = prepare
        self._connection: Connection | None = None

    @asynccontextmanager
    async def transaction(self, **kind: Any) -> AsyncIterator[Connection]:
        """All or nothing of what is done inside; raises DatabaseGone. `kind` as asyncpg has it.

        Where it fails, the server may have done it all the same.
        """
        try:
            with _told():
                async with asyncio.timeout(DEADLINE_SECONDS):
                    connection = await self._connected()
                    transaction = connection.transaction(**kind)
                    await transaction.start()
                    await connection.execute(_BEGIN)
                    yield connection
                    await transaction.commit()
        except BaseException:
            self._drop()  # which undoes it; to ask for that could take for ever
            raise

    async def aclose(self) -> None:
        """Says goodbye, if there is anybody."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with _told():
                await connection.close(timeout=CONNECT_SECONDS)

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await _connect(self._url)
            await self._prepare(self._connection)
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


class Once:
    """Numbers what one writer does. What it tries again has the number that it had before; two
    writers never share a name, unless they do the same."""

    def __init__(self, writer: str | None = None) -> None:
        self.writer = writer or token_hex(16)
        self.number = 1

    async def claim(self, connection: Connection) -> bool:
        """Whether this number was not done yet; first in its transaction. Waits for another
        transaction under the same number that has not ended."""
        return await connection.fetchval(_CLAIM, self.writer, self.number) is not None

    def done(self) -> None:
        """What comes next is another thing."""
        self.number += 1


async def make_tables(connection: Connection, *statements: str) -> None:
    """Those of `statements` that are not there yet, and that of writers; for all instances one
    after another."""
    async with connection.transaction():
        await connection.execute(_BEGIN)
        await connection.execute(_ONE_AT_A_TIME)
        for statement in (_WRITERS, *statements, _FORGET_WRITERS):
            await connection.execute(statement)


def described(url: str) -> str:
    """Which database that is, without who and how one gets in."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return f"postgresql://{place}{parts.path}"


async def _connect(url: str) -> Connection:
    import asyncpg  # noqa: PLC0415 - where no PostgreSQL is, none is loaded

    plain = "postgresql" + url[url.index("://") :]  # a scheme may name a driver too
    made = await asyncpg.connect(
        plain, timeout=CONNECT_SECONDS, server_settings=_SETTINGS, statement_cache_size=0
    )
    await made.execute(_LASTING)
    return made


@contextmanager
def _told() -> Iterator[None]:
    import asyncpg  # noqa: PLC0415

    ours = (asyncpg.InterfaceError, asyncpg.InternalClientError)
    try:
        yield
    except asyncpg.DataError:
        raise  # nobody could ever write that
    except (asyncpg.PostgresError, *ours, OSError, TimeoutError) as error:
        raise DatabaseGone(_sentence(error)) from error


def _sentence(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "the database did not answer in time"
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
