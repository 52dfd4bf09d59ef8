"""The counts of budgets on disk: a table of its own in usage.db, written in a thread.

A broken one is logged once, tried again with every flush, and harms no call. The sums of usage are
written to the same file: whoever writes there waits for its turn.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

from proxy.turns import turn

_BUSY_SECONDS: Final = 5.0
_KEPT_MONTHS: Final = 13
_TABLE: Final = """CREATE TABLE IF NOT EXISTS budgets (
    subject TEXT NOT NULL,
    month TEXT NOT NULL,
    calls INTEGER NOT NULL,
    PRIMARY KEY (month, subject)
) WITHOUT ROWID"""
_IS_THERE: Final = "SELECT 1 FROM sqlite_master WHERE name = 'budgets'"
_UPSERT: Final = """INSERT INTO budgets (subject, month, calls) VALUES (?, ?, ?)
    ON CONFLICT (month, subject) DO UPDATE SET calls = excluded.calls"""
_FORGET: Final = """DELETE FROM budgets WHERE month NOT IN
    (SELECT DISTINCT month FROM budgets ORDER BY month DESC LIMIT ?)"""

_log = logging.getLogger("keyrelay.limits")


class SqliteLedger:
    """A Ledger in a SQLite file, which is made with the first count."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._noted: dict[tuple[str, str], int] = {}
        self._broken = False

    async def spent(self, month: str) -> Mapping[str, int] | None:
        """The counts of a month by subject; None where they can't be read, which is logged."""
        try:
            return await asyncio.to_thread(self._read, month)
        except (sqlite3.Error, OSError) as error:
            self._complain(error)
            return None

    def note(self, subject: str, month: str, total: int) -> None:
        """Remembers a count until the next `flush`."""
        self._noted[subject, month] = total

    async def flush(self) -> None:
        """Writes down what was noted; what can't be written now is kept for the next time."""
        noted, self._noted = self._noted, {}
        if not noted:
            return
        try:
            await asyncio.to_thread(self._write, noted)
            self._broken = False
        except (sqlite3.Error, OSError) as error:
            self._noted = {**noted, **self._noted}
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        if not self._broken:
            _log.error("budgets can't be kept in %s: %s", self._path, error)
        self._broken = True

    def _read(self, month: str) -> dict[str, int]:
        if not self._path.exists():
            return {}
        place = f"file:{quote(str(self._path))}?mode=ro"
        with closing(sqlite3.connect(place, uri=True, timeout=_BUSY_SECONDS)) as connection:
            if connection.execute(_IS_THERE).fetchone() is None:
                return {}
            query = "SELECT subject, calls FROM budgets WHERE month = ?"
            return dict(connection.execute(query, (month,)).fetchall())

    def _write(self, noted: Mapping[tuple[str, str], int]) -> None:
        rows: Iterable[tuple[str, str, int]] = [(*which, calls) for which, calls in noted.items()]
        with turn(self._path, _BUSY_SECONDS), closing(self._open()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_TABLE)
            connection.executemany(_UPSERT, rows)
            connection.execute(_FORGET, (_KEPT_MONTHS,))
            connection.execute("COMMIT")

    def _open(self) -> sqlite3.Connection:
        self._path.touch(mode=0o600)
        connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection
