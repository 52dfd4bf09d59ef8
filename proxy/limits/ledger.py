"""The counts of budgets on disk: a table of its own in usage.db, written in a thread.

A broken one is logged once, tried again with every flush, and harms no call. The sums of usage are
written to the same file: whoever writes there waits for its turn. Counts are added to those that
are there, so that several may write.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

from proxy.database import Once
from proxy.limits.notes import EVER, Counts, Notes, Trouble
from proxy.turns import turn

_BUSY_SECONDS: Final = 5.0
_KEPT_MONTHS: Final = 13
_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS budgets (
    subject TEXT NOT NULL,
    month TEXT NOT NULL,
    calls INTEGER NOT NULL,
    PRIMARY KEY (month, subject)
) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS budget_writers (
    writer TEXT PRIMARY KEY,
    batch INTEGER NOT NULL,
    seen TEXT NOT NULL
) WITHOUT ROWID""",
)
_IS_THERE: Final = "SELECT 1 FROM sqlite_master WHERE name = 'budgets'"
_CLAIM: Final = """INSERT INTO budget_writers VALUES (?, ?, datetime('now'))
    ON CONFLICT (writer) DO UPDATE SET batch = excluded.batch, seen = excluded.seen
    WHERE budget_writers.batch < excluded.batch"""
_UPSERT: Final = """INSERT INTO budgets (subject, month, calls) VALUES (?, ?, ?)
    ON CONFLICT (month, subject) DO UPDATE SET calls = calls + excluded.calls"""
_TOTAL: Final = "SELECT calls FROM budgets WHERE subject = ? AND month = ?"
_FORGET: Final = (
    f"""DELETE FROM budgets WHERE month <> '{EVER}' AND month NOT IN
    (SELECT DISTINCT month FROM budgets WHERE month <> '{EVER}'
    ORDER BY month DESC LIMIT {_KEPT_MONTHS})""",  # noqa: S608
    "DELETE FROM budget_writers WHERE seen < datetime('now', '-30 days')",
)


class SqliteLedger:
    """A Ledger in a SQLite file, which is made with the first count."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._notes = Notes()
        self._trouble = Trouble(path)

    async def spent(self, month: str) -> Mapping[str, int] | None:
        """The counts of a month, or of EVER, by subject; None where they can't be read, which is
        logged."""
        try:
            return await asyncio.to_thread(self._read, month)
        except (sqlite3.Error, OSError) as error:
            self._trouble.tell(error)
            return None

    def note(self, subject: str, month: str, calls: int) -> None:
        """Remembers so many calls more, or fewer, until the next `flush`."""
        self._notes.add(subject, month, calls)

    async def flush(self) -> Counts:
        """Adds what was noted; what can't be written now is kept for the next time."""
        try:
            totals = await self._notes.written(self._write)
        except (sqlite3.Error, OSError) as error:
            self._trouble.tell(error)
            return {}
        if totals:
            self._trouble.end()
        return totals

    async def aclose(self) -> None:
        """Nothing is open between two flushes."""

    def _read(self, month: str) -> dict[str, int]:
        if not self._path.exists():
            return {}
        place = f"file:{quote(str(self._path))}?mode=ro"
        with closing(sqlite3.connect(place, uri=True, timeout=_BUSY_SECONDS)) as connection:
            if connection.execute(_IS_THERE).fetchone() is None:
                return {}
            query = "SELECT subject, calls FROM budgets WHERE month = ?"
            return dict(connection.execute(query, (month,)).fetchall())

    async def _write(self, counts: Counts, once: Once) -> Counts:
        return await asyncio.to_thread(self._add, counts, (once.writer, once.number))

    def _add(self, counts: Counts, number: tuple[str, int]) -> Counts:
        with turn(self._path, _BUSY_SECONDS), closing(self._open()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            for statement in _TABLES:
                connection.execute(statement)
            if connection.execute(_CLAIM, number).rowcount:
                rows = [(*which, calls) for which, calls in counts.items()]
                connection.executemany(_UPSERT, rows)
            found = [connection.execute(_TOTAL, which).fetchone() for which in counts]
            for statement in _FORGET:
                connection.execute(statement)
            connection.execute("COMMIT")
        return {which: row[0] for which, row in zip(counts, found, strict=True) if row}

    def _open(self) -> sqlite3.Connection:
        self._path.touch(mode=0o600)
        connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection
