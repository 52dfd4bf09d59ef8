"""The cache's database file: its tables, how it is opened, and what happens to a broken one."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from proxy.cache.entry import CacheStats, Holding, SchemaTooNew, StoreError

VERSION = 1
LOCKED_SECONDS = 0.5
"""How long a statement waits for a lock that another program holds."""

WRITING, COMPLETE, DOOMED = 0, 1, 2
"""States of a row. Only a complete one is ever read; at every start the others are deleted."""

TABLES = (
    """CREATE TABLE entries (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        state INTEGER NOT NULL,
        key BLOB NOT NULL,
        vary BLOB NOT NULL,
        variant BLOB NOT NULL,
        tenant TEXT NOT NULL,
        service TEXT NOT NULL,
        requested_at REAL NOT NULL,
        made_at REAL NOT NULL,
        expires_at REAL NOT NULL,
        used_at REAL NOT NULL,
        cost INTEGER NOT NULL,
        head BLOB NOT NULL
    )""",
    """CREATE TABLE chunks (
        entry INTEGER NOT NULL REFERENCES entries (id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        sealed BLOB NOT NULL,
        UNIQUE (entry, number)
    )""",
    "CREATE INDEX entries_by_key ON entries (key)",
    "CREATE INDEX entries_by_use ON entries (tenant, used_at)",
    "CREATE INDEX entries_by_end ON entries (expires_at)",
    "CREATE INDEX entries_unfinished ON entries (state) WHERE state <> 1",
)


def open_for_writing(path: Path) -> sqlite3.Connection:
    """The one writing connection; a file that is broken, twice, is moved aside, and a new one made.

    Raises SchemaTooNew, sqlite3.Error, OSError.
    """
    for _ in range(2):  # to SQLite a file whose schema can't be read now is broken as well
        try:
            return _opened(path)
        except sqlite3.DatabaseError as error:
            if not is_broken(error):
                raise
    move_aside(path)
    return _opened(path)


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A connection that can't change the file; raises sqlite3.Error."""
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode=ro", uri=True, timeout=LOCKED_SECONDS, isolation_level=None
    )


def is_broken(error: BaseException | None) -> bool:
    """Whether an error says that the file is no sound database (SQLITE_CORRUPT, SQLITE_NOTADB)."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def move_aside(path: Path) -> None:
    """Renames a broken database to `<name>.broken`, in place of an earlier one."""
    path.replace(path.with_name(path.name + ".broken"))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing of what is written inside."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def read_stats(path: Path) -> CacheStats:
    """How much is stored, read from another process without changing anything.

    Raises SchemaTooNew and StoreError; a file that is not there yet holds nothing.
    """
    if not path.exists():
        return CacheStats()
    try:
        with closing(open_for_reading(path)) as connection:
            return holdings(connection) if _version_of(connection) else CacheStats()
    except sqlite3.Error as error:
        raise StoreError("the cache's database can't be read now; try again") from error


def holdings(connection: sqlite3.Connection) -> CacheStats:
    """How much is stored."""
    rows = connection.execute(
        "SELECT tenant, service, COUNT(*), SUM(cost) FROM entries WHERE state = 1"
        " GROUP BY tenant, service ORDER BY tenant, service"
    )
    return CacheStats({(row[0], row[1]): Holding(row[2], row[3]) for row in rows})


def _opened(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(path, timeout=LOCKED_SECONDS, isolation_level=None)
    try:
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    version = _version_of(connection)
    if version == 0:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    with transaction(connection):
        if version == 0:
            for statement in TABLES:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("DELETE FROM entries WHERE state <> 1")


def _version_of(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise SchemaTooNew(
            f"the cache was written by a newer release (schema {version}, known is {VERSION});"
            " upgrade keyrelay, or delete cache.db"
        )
    return version
