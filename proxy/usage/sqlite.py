"""Usage in a SQLite file of its own: single calls, and their sums by hour and by day.

Sums are added up by the database, out of the rows that it has just taken and in the same
transaction: they can't differ. Budgets have a table of their own in the same file: whoever writes
there waits for its turn.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from proxy.turns import turn
from proxy.usage import questions
from proxy.usage.questions import ADDED, OWNER, TOTAL, Question
from proxy.usage.store import (
    DAY,
    HOUR,
    CallRow,
    Keep,
    Order,
    Part,
    Trouble,
    UsageError,
    UsageTooNew,
    Which,
)
from proxy.usage.sums import Sums
from proxy.usage.tables import FORGET_KINDS, FROM_1, MOST_KINDS, TABLES, VERSION, put

BUSY_SECONDS: Final = 1.0
"""How long a statement waits for a lock that somebody else holds."""

SWEPT: Final = 2_000
"""How many rows leave in one transaction."""

_GROUP: Final = ", ".join(OWNER)
_WHOLE: Final = "CAST({} AS INTEGER)"
_TOGETHER: Final = {
    **{name: f"{name} + excluded.{name}" for name in ADDED},
    "slowest": "max(slowest, excluded.slowest)",
    "cost": "coalesce(cost + excluded.cost, cost, excluded.cost)",
    "saved": "coalesce(saved + excluded.saved, saved, excluded.saved)",
}

_HOUR: Final = f"CAST(began / {HOUR} AS INTEGER)"
_FRESH: Final = f"CREATE TEMP TABLE fresh (began, {_GROUP}, bucket, {', '.join(ADDED)})"
_GATHER: Final = f"""INSERT INTO fresh SELECT {_HOUR} * {HOUR}, {_GROUP}, bucket,
    {", ".join(ADDED.values())}
    FROM calls WHERE id > ? GROUP BY {_HOUR}, kind, bucket"""  # noqa: S608 - as all in here
"""The rows that have just come are gone through once: what follows is made of a few."""

_STEPS: Final = f"(SELECT {HOUR} AS step UNION ALL SELECT {DAY}) AS steps"
_START: Final = "began / step * step"
_ADD_SUMS: Final = f"""INSERT INTO sums (step, began, {_GROUP}, {", ".join(ADDED)})
    SELECT step, {_START}, {_GROUP}, {", ".join(TOTAL.values())} FROM fresh, {_STEPS}
    WHERE true GROUP BY step, {_START}, {_GROUP}
    ON CONFLICT DO UPDATE SET {", ".join(f"{name} = {how}" for name, how in _TOGETHER.items())}"""  # noqa: S608
_ADD_LATENCIES: Final = f"""INSERT INTO latencies (step, began, {_GROUP}, bucket, calls)
    SELECT step, {_START}, {_GROUP}, bucket, sum(calls) FROM fresh, {_STEPS}
    WHERE true GROUP BY step, {_START}, {_GROUP}, bucket
    ON CONFLICT DO UPDATE SET calls = calls + excluded.calls"""  # noqa: S608


class SqliteUsage:
    """The store on disk; see `UsageStore` for what its methods promise."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    # Writing.

    def open(self) -> None:
        """Makes or opens the file."""
        with self._mending(), self._turn():
            self._writing()

    def close(self) -> None:
        """Lets go of the file."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with ExitStack() as stack:
                with suppress(OSError):
                    stack.enter_context(self._turn())
                connection.close()

    def write(self, rows: Sequence[CallRow]) -> None:
        """Keeps calls and adds them to the sums."""
        with self._mending(), self._turn(), _transaction(self._writing()) as connection:
            [last] = connection.execute("SELECT coalesce(max(id), 0) FROM singles").fetchone()
            put(connection, rows)
            connection.execute(_GATHER, (last,))
            connection.execute(_ADD_SUMS)
            connection.execute(_ADD_LATENCIES)
            connection.execute("DELETE FROM fresh")

    def sweep(self, keep: Keep) -> None:
        """Forgets in small steps, so that whoever waits for the lock gets it."""
        with self._mending():
            with self._turn():
                found = self._writing().execute("SELECT coalesce(max(id), 0) FROM singles")
                [newest] = found.fetchone()
            self._delete(
                "singles", "id", "began < ? OR id <= ?", (keep.calls, newest - keep.most_calls)
            )
            self._forget_kinds()
            for table in ("sums", "latencies"):
                for step, oldest in ((HOUR, keep.hours), (DAY, keep.days)):
                    self._delete_periods(table, step, oldest - step)

    def _forget_kinds(self) -> None:
        with self._turn(), _transaction(self._writing()) as connection:
            [kinds] = connection.execute("SELECT count(*) FROM kinds").fetchone()
            if kinds > MOST_KINDS:
                connection.execute(FORGET_KINDS)

    def _delete(self, table: str, key: str, condition: str, values: tuple[float, ...]) -> None:
        some = f"SELECT {key} FROM {table} WHERE {condition} LIMIT {SWEPT}"  # noqa: S608
        statement = f"DELETE FROM {table} WHERE {key} IN ({some})"  # noqa: S608
        while True:
            with self._turn(), _transaction(self._writing()) as connection:
                if connection.execute(statement, values).rowcount < SWEPT:
                    return

    def _delete_periods(self, table: str, step: int, before: float) -> None:
        """Those that began by then, one period at a time."""
        found = f"SELECT min(began) FROM {table} WHERE step = ?"  # noqa: S608
        statement = f"DELETE FROM {table} WHERE step = ? AND began = ?"  # noqa: S608
        while True:
            with self._turn(), _transaction(self._writing()) as connection:
                [oldest] = connection.execute(found, (step,)).fetchone()
                if oldest is None or oldest > before:
                    return
                connection.execute(statement, (step, oldest))

    @contextmanager
    def _mending(self) -> Iterator[None]:
        """What the disk refuses as one error; the next use opens the file again."""
        try:
            with _told():
                yield
        except UsageError as error:
            if not _was_the_disk(error.__cause__):
                self.close()
            raise

    def _turn(self) -> AbstractContextManager[None]:
        return turn(self._path, BUSY_SECONDS)

    def _writing(self) -> sqlite3.Connection:
        """To be asked for in a turn: it may have to open the file."""
        if self._connection is None:
            self._connection = _opened(self._path)
        return self._connection

    # Reading, each time on a connection that can't write, so that it may be in any thread.

    def sums(self, which: Which, *groupings: Sequence[Part]) -> list[list[Sums]]:
        """The calls that are meant, for each grouping by what tells them apart there."""
        with _told(), self._reading() as connection:
            return [
                questions.gathered(
                    by,
                    _rows(connection, questions.totals(which, by, "sums")),
                    _rows(connection, questions.durations(which, by, "latencies")),
                )
                for by in groupings
            ]

    def calls(self, which: Which, order: Order, limit: int) -> list[CallRow]:
        """Some of the single calls that are still kept."""
        with _told(), self._reading() as connection:
            found = _rows(connection, questions.calls(which, order, limit, "calls"))
            return [CallRow(*row) for row in found]

    def minutes(self, which: Which, *groupings: Sequence[Part]) -> list[list[Sums]]:
        """As `sums`, of single calls, to the second; also by `minute`, but not by day or hour."""
        with _told(), self._reading() as connection:
            rows = _rows(connection, questions.minutes(which, "calls", _WHOLE))
            return [questions.grouped(rows, by) for by in groupings]

    def troubles(self, which: Which, limit: int) -> list[Trouble]:
        """What went wrong among the single calls that are still kept."""
        with _told(), self._reading() as connection:
            found = _rows(connection, questions.troubles(which, limit, "calls"))
            return [Trouble(*row) for row in found]

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """One state of the file for all that is read."""
        with closing(_opened_to_read(self._path)) as connection:
            connection.execute("BEGIN")
            yield connection


def _rows(connection: sqlite3.Connection, question: Question) -> list[tuple[Any, ...]]:
    return connection.execute(question.text, question.values).fetchall()


# The file.


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise UsageError(f"{type(error).__name__}: {error}") from error


def _was_the_disk(error: BaseException | None) -> bool:
    """Whether the connection is as good as before. What could not be made durable may stand in the
    WAL all the same: this connection writes over it, one that opens the file anew would take it for
    done, and so count it twice."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}


def _opened(path: Path) -> sqlite3.Connection:
    if not path.exists():  # else closing it would end the locks that others here hold (POSIX)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    _check_version(connection)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # a batch a second can wait for the disk
    connection.execute("PRAGMA journal_size_limit = 16777216")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(_FRESH)
    with _transaction(connection):
        version = _check_version(connection)
        if version != VERSION:
            for statement in FROM_1 if version else TABLES:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")


def _opened_to_read(path: Path) -> sqlite3.Connection:
    if not path.exists():
        return _empty()
    place = f"file:{quote(str(path))}?mode=ro"
    connection = sqlite3.connect(place, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        if _check_version(connection):
            return connection
    except BaseException:
        connection.close()
        raise
    connection.close()
    return _empty()


def _empty() -> sqlite3.Connection:
    """What a file holds that nobody has written to."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for statement in TABLES:
        connection.execute(statement)
    return connection


def _check_version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise UsageTooNew(
            f"usage was written by a newer release (schema {version}, known is {VERSION});"
            " upgrade keyrelay, or move usage.db away"
        )
    return version


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All or nothing of what is written inside."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
