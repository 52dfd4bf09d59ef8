"""Usage and budgets from the file of a data directory into the database that `vault.url` names.

A vault that was moved there leaves `usage.db` behind. Nobody writes to it any more: the first
server that starts with the database brings over what is in it, beside its calls and in small steps,
each done once however often it is tried. Then the file gets another name.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

from proxy.database import Connection, DatabaseGone, Freight, Line, Once
from proxy.limits.postgres import FREIGHT as BUDGETS
from proxy.usage import SqliteUsage, UsageError
from proxy.usage.pgtables import FREIGHT as USAGE

ALL: Final = (BUDGETS, *USAGE)
ROWS: Final = 500
"""In one step."""

PAUSE_SECONDS: Final = 0.02
"""Between two steps: calls come first."""

AGAIN_SECONDS: Final = 60.0
CARRIED: Final = ".carried"
"""What is added to the file's name."""

_IS_THERE: Final = "SELECT 1 FROM sqlite_master WHERE name = ?"
_OLDEST: Final = (
    ("singles", "SELECT call FROM singles ORDER BY id LIMIT 1"),
    ("budget_writers", "SELECT writer FROM budget_writers ORDER BY seen, writer LIMIT 1"),
    (
        "sums",
        "SELECT began || token_id || service FROM sums ORDER BY began, token_id, service LIMIT 1",
    ),
)
"""What a copy of a file has too, and no other file: the names of the first two are random."""

_log = logging.getLogger("keyrelay.usage")


class Carrying:
    """In a thread of its own; there is nothing to do where there is no file."""

    def __init__(self, path: Path, url: str) -> None:
        self._path = path
        self._url = url
        self._stopping = threading.Event()
        self._work: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins, and waits for nothing."""
        if self._path.exists():
            work = asyncio.to_thread(self._carry_on)
            self._work = asyncio.create_task(work, name="keyrelay-carrying")

    async def stop(self) -> None:
        """Ends with the step that it is at; the next start goes on there."""
        self._stopping.set()
        if self._work is not None:
            await self._work

    def _carry_on(self) -> None:
        """Until it is done or can't be."""
        told = False
        while not self._stopping.is_set():
            try:
                self._carry()
                return
            except DatabaseGone as error:
                if not told:
                    _log.warning("usage of %s waits for the database: %s", self._path, error)
                told = True
            except Exception as error:
                _log.error("usage of %s stays there: %s", self._path, _why(error))
                return
            self._stopping.wait(AGAIN_SECONDS)

    def _carry(self) -> None:
        store = SqliteUsage(self._path)
        store.open()  # a file of an earlier release becomes one of this
        store.close()
        with closing(sqlite3.connect(self._path)) as file:
            rows = asyncio.run(self._bring(file))
        if rows is None:
            return
        for part in ("", "-wal", "-shm"):  # these go with it where somebody still reads
            with suppress(FileNotFoundError):
                was = self._path.with_name(self._path.name + part)
                was.replace(self._path.with_name(self._path.name + CARRIED + part))
        _log.info("usage of %s is in the database now, %d rows", self._path, rows)

    async def _bring(self, file: sqlite3.Connection) -> int | None:
        """How many rows there were; None: it was told to stop."""
        line, once, rows = Line(self._url, _prepare), Once(_name_of(file)), 0
        try:
            for freight, some in _steps(file):
                if self._stopping.is_set():
                    return None
                async with line.transaction() as connection:
                    if await once.claim(connection):
                        await freight.add(connection, some)
                once.done()
                rows += len(some)
                await asyncio.sleep(PAUSE_SECONDS)
            return rows
        finally:
            await line.aclose()


def _name_of(file: sqlite3.Connection) -> str:
    """Copies of one file have one name, as several instances may have been made of one directory;
    two files never do: of the second nothing would be counted."""
    for table, question in _OLDEST:
        if _has(file, table) and (found := file.execute(question).fetchone()):
            return f"usage.db {found[0]}"
    return "usage.db"  # with nothing in it


def _has(file: sqlite3.Connection, table: str) -> bool:
    return file.execute(_IS_THERE, (table,)).fetchone() is not None


def _steps(file: sqlite3.Connection) -> Iterator[tuple[Freight, list[Any]]]:
    """The same ones each time, as nobody changes the file."""
    for freight in ALL if _has(file, "budgets") else ALL[1:]:
        found = file.execute(freight.rows)
        while some := found.fetchmany(ROWS):
            yield freight, some


async def _prepare(connection: Connection) -> None:
    for prepare in {freight.prepare: None for freight in ALL}:
        await prepare(connection)


def _why(error: Exception) -> str:
    """What may be told of it: no row."""
    return str(error) if isinstance(error, UsageError | sqlite3.Error) else type(error).__name__
