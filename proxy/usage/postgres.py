"""Usage in PostgreSQL, where several instances write: single calls, and their sums.

A batch is one transaction: the calls come by COPY into a table of this connection's own, and the
database adds them to the sums of all, in one order everywhere, so that no two instances wait for
each other in a circle. Whoever reads sees everybody's calls.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from typing import Any, Final, TypeVar

from proxy.database import Connection, DatabaseGone, Line, Once
from proxy.usage import questions
from proxy.usage.pgtables import ADD, BEGIN, GATHERED, prepare, version_of
from proxy.usage.questions import Question
from proxy.usage.store import (
    DAY,
    HOUR,
    CallRow,
    Keep,
    Order,
    Part,
    Trouble,
    UsageError,
    Which,
)
from proxy.usage.sums import Sums

SWEPT: Final = 2_000
"""How many rows leave in one transaction."""

_WHOLE: Final = "CAST(floor({}) AS BIGINT)"
_MINE: Final = "SELECT pg_try_advisory_xact_lock(hashtext('keyrelay usage sweep'))"
_NEWEST: Final = "SELECT coalesce(max(id), 0) FROM usage_calls"

Result = TypeVar("Result")
Read = Callable[[Connection], Coroutine[Any, Any, Result]]


class PostgresUsage:
    """The store in a database of several; see `UsageStore` for what its methods promise."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._line = Line(url, prepare)
        self._once = Once()
        self._runner: asyncio.Runner | None = None

    # Writing, on an event loop of the writing thread's own.

    def open(self) -> None:
        """Makes the tables where there are none."""
        self._run(self._open())

    def close(self) -> None:
        """Lets go of the connection."""
        if self._runner is not None:
            try:
                self._runner.run(self._line.aclose())
            except DatabaseGone:
                pass  # as it wished
            finally:
                self._runner.close()
                self._runner = None

    def write(self, rows: Sequence[CallRow]) -> None:
        """Keeps calls and adds them to the sums, once."""
        try:
            self._run(self._write(rows))
        except UsageError:
            raise  # the same rows come again, under the same number
        except BaseException:
            self._once.done()
            raise
        self._once.done()

    def sweep(self, keep: Keep) -> None:
        """Forgets in small steps, while no other instance does."""
        self._run(self._sweep(keep))

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        if self._runner is None:
            self._runner = asyncio.Runner()
        with _told():
            return self._runner.run(work)

    async def _open(self) -> None:
        async with self._line.transaction():
            """The first use of a line prepares it."""

    async def _write(self, rows: Sequence[CallRow]) -> None:
        async with self._line.transaction() as connection:
            if await self._once.claim(connection):
                await connection.execute(BEGIN)
                await connection.copy_records_to_table(
                    GATHERED, records=rows, columns=CallRow._fields
                )
                for statement in ADD:
                    await connection.execute(statement)

    async def _sweep(self, keep: Keep) -> None:
        async with self._line.transaction() as connection:
            newest = await connection.fetchval(_NEWEST)
        await self._delete("usage_calls", "began < $1", keep.calls)
        await self._delete("usage_calls", "id <= $1", newest - keep.most_calls)
        for table in ("usage_sums", "usage_latencies"):
            for step, oldest in ((HOUR, keep.hours), (DAY, keep.days)):
                await self._delete(table, "step = $1 AND began <= $2", step, int(oldest - step))

    async def _delete(self, table: str, condition: str, *values: float) -> None:
        """Rows that somebody is about to add to are left for the next time."""
        some = f"""SELECT ctid FROM {table} WHERE {condition}
            LIMIT {SWEPT} FOR UPDATE SKIP LOCKED"""  # noqa: S608
        statement = f"DELETE FROM {table} WHERE ctid = ANY(ARRAY({some}))"  # noqa: S608
        gone = SWEPT
        while gone == SWEPT:
            async with self._line.transaction() as connection:
                if not await connection.fetchval(_MINE):
                    return
                told = await connection.execute(statement, *values)
                gone = int(told.removeprefix("DELETE "))

    # Reading, each time on a connection and a loop of its own, so that it may be in any thread.

    def sums(self, which: Which, *groupings: Sequence[Part]) -> list[list[Sums]]:
        """The calls that are meant, for each grouping by what tells them apart there."""

        async def read(connection: Connection) -> list[list[Sums]]:
            return [
                questions.gathered(
                    by,
                    await _rows(connection, questions.totals(which, by, "usage_sums")),
                    await _rows(connection, questions.durations(which, by, "usage_latencies")),
                )
                for by in groupings
            ]

        return self._read(read, [[] for _ in groupings])

    def calls(self, which: Which, order: Order, limit: int) -> list[CallRow]:
        """Some of the single calls that are still kept."""

        async def read(connection: Connection) -> list[CallRow]:
            found = await _rows(connection, questions.calls(which, order, limit, "usage_calls"))
            return [CallRow(*row) for row in found]

        return self._read(read, [])

    def minutes(self, which: Which, *groupings: Sequence[Part]) -> list[list[Sums]]:
        """As `sums`, of single calls, to the second; also by `minute`, but not by day or hour."""

        async def read(connection: Connection) -> list[list[Sums]]:
            rows = await _rows(connection, questions.minutes(which, "usage_calls", _WHOLE))
            return [questions.grouped(rows, by) for by in groupings]

        return self._read(read, [[] for _ in groupings])

    def troubles(self, which: Which, limit: int) -> list[Trouble]:
        """What went wrong among the single calls that are still kept."""

        async def read(connection: Connection) -> list[Trouble]:
            found = await _rows(connection, questions.troubles(which, limit, "usage_calls"))
            return [Trouble(*row) for row in found]

        return self._read(read, [])

    def _read(self, read: Read[Result], nothing: Result) -> Result:
        """One state of the database for all that is read; `nothing` where nobody has written."""

        async def asked() -> Result:
            async with _reading(self._url) as connection:
                return await read(connection) if await version_of(connection) else nothing

        with _told():
            return asyncio.run(asked())


@asynccontextmanager
async def _reading(url: str) -> AsyncIterator[Connection]:
    line = Line(url, _as_it_is)
    try:
        async with line.transaction(isolation="repeatable_read", readonly=True) as connection:
            yield connection
    finally:
        await line.aclose()


async def _as_it_is(_connection: Connection) -> None:
    """Who reads makes nothing."""


async def _rows(connection: Connection, question: Question) -> Sequence[Sequence[Any]]:
    numbers = count(1)
    text = re.sub(r"\?", lambda _: f"${next(numbers)}", question.text)
    found: Sequence[Sequence[Any]] = await connection.fetch(text, *question.values)
    return found


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except DatabaseGone as error:
        raise UsageError(str(error)) from error
