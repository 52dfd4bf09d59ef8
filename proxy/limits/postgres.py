"""The counts of budgets in PostgreSQL: several instances add to one table, and with each flush an
instance learns what the others have added for those that it counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from proxy.database import Connection, DatabaseGone, Freight, Line, Once, make_tables
from proxy.limits.notes import EVER, Counts, Notes, Trouble

_TABLE: Final = """CREATE TABLE IF NOT EXISTS budgets (
    month text NOT NULL,
    subject text NOT NULL,
    calls bigint NOT NULL,
    PRIMARY KEY (month, subject)
)"""
_FORGET: Final = f"""DELETE FROM budgets
    WHERE month <> '{EVER}' AND month <= to_char(now() - interval '13 months', 'YYYY-MM')"""  # noqa: S608
_SPENT: Final = "SELECT subject, calls FROM budgets WHERE month = $1"
_GIVEN: Final = "SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[]) AS given"
_ADD: Final = f"""INSERT INTO budgets (subject, month, calls) {_GIVEN} ORDER BY 2, 1
    ON CONFLICT (month, subject) DO UPDATE SET calls = budgets.calls + excluded.calls"""
"""In one order everywhere: who has a row waits for nobody who waits for it."""

_TOTALS: Final = """SELECT subject, month, calls FROM budgets
    WHERE (subject, month) IN (SELECT * FROM unnest($1::text[], $2::text[]))"""


class PostgresLedger:
    """A Ledger in a database that other instances write to as well."""

    def __init__(self, url: str) -> None:
        self._line = Line(url, _prepare)
        self._notes = Notes()
        self._trouble = Trouble(self._line.described)

    async def spent(self, month: str) -> Mapping[str, int] | None:
        """The counts of a month, or of EVER, by subject; None where they can't be read, which is
        logged."""
        try:
            async with self._line.transaction(readonly=True) as connection:
                return dict(await connection.fetch(_SPENT, month))
        except DatabaseGone as error:
            self._trouble.tell(error)
            return None

    def note(self, subject: str, month: str, calls: int) -> None:
        """Remembers so many calls more, or fewer, until the next `flush`."""
        self._notes.add(subject, month, calls)

    async def flush(self) -> Counts:
        """Adds what was noted; what can't be written now is kept for the next time."""
        try:
            totals = await self._notes.written(self._write)
        except DatabaseGone as error:
            self._trouble.tell(error)
            return {}
        if totals:
            self._trouble.end()
        return totals

    async def aclose(self) -> None:
        """Lets go of the connection."""
        await self._line.aclose()

    async def _write(self, counts: Counts, once: Once) -> Counts:
        subjects, months = [who for who, _ in counts], [when for _, when in counts]
        async with self._line.transaction() as connection:
            if await once.claim(connection):
                await connection.execute(_ADD, subjects, months, [*counts.values()])
            rows = await connection.fetch(_TOTALS, subjects, months)
        return {(who, when): calls for who, when, calls in rows}


async def _prepare(connection: Connection) -> None:
    await make_tables(connection, _TABLE, _FORGET)


async def _add(connection: Connection, rows: Sequence[Any]) -> None:
    await connection.execute(_ADD, *map(list, zip(*rows, strict=True)))


FREIGHT: Final = Freight(
    "SELECT subject, month, calls FROM budgets ORDER BY month, subject", _add, _prepare
)
"""What stands in a file."""
