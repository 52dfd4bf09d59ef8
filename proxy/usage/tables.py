"""The tables of usage in SQLite, and how a file of an earlier release gets them.

What many calls have in common stands once, in `kinds`: most of a call's row is that, and writing it
again for each cost as much as all else. To read, `calls` is a view that has everything in one row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

from proxy.usage.store import CallRow

VERSION: Final = 2
MOST_KINDS: Final = 10_000
"""How many kinds may stand there before those are looked for that no call is of any more."""

TOGETHER: Final = (128, 16, 1)
"""How many rows one statement takes: each of them lets go of the interpreter once."""

_OWNER: Final = "tenant TEXT NOT NULL, token TEXT NOT NULL, token_id TEXT NOT NULL"
_KIND: Final = (
    *("tenant", "token", "token_id", "service", "host", "method", "status", "code", "verdict"),
    *("cut", "successful", "went", "hit", "joined"),
)
_OWN: Final = tuple(name for name in CallRow._fields if name not in _KIND)
_KINDS: Final = ", ".join(_KIND)
_OWNS: Final = ", ".join(_OWN)

_SINGLES: Final = (
    f"""CREATE TABLE kinds (
        id INTEGER PRIMARY KEY, {_OWNER},
        service TEXT NOT NULL, host TEXT NOT NULL, method TEXT NOT NULL,
        status INTEGER NOT NULL, code TEXT NOT NULL, verdict TEXT NOT NULL, cut INTEGER NOT NULL,
        successful INTEGER NOT NULL, went INTEGER NOT NULL,
        hit INTEGER NOT NULL, joined INTEGER NOT NULL,
        UNIQUE ({_KINDS})
    )""",
    """CREATE TABLE singles (
        id INTEGER PRIMARY KEY, kind INTEGER NOT NULL,
        call TEXT NOT NULL, began REAL NOT NULL,
        received INTEGER NOT NULL, sent INTEGER NOT NULL,
        seconds REAL NOT NULL, waited REAL NOT NULL, upstream_seconds REAL,
        tokens_input INTEGER NOT NULL, tokens_output INTEGER NOT NULL,
        tokens_cached INTEGER NOT NULL, cost REAL, saved REAL, bucket INTEGER NOT NULL
    )""",
    "CREATE INDEX singles_by_time ON singles (began)",
    f"""CREATE VIEW calls AS SELECT singles.id AS id, kind, {_OWNS}, {_KINDS}
        FROM singles JOIN kinds ON kinds.id = singles.kind""",  # noqa: S608 - as all in here
)
TABLES: Final = (
    *_SINGLES,
    f"""CREATE TABLE sums (
        step INTEGER NOT NULL, began INTEGER NOT NULL, {_OWNER}, service TEXT NOT NULL,
        calls INTEGER NOT NULL, successful INTEGER NOT NULL, hits INTEGER NOT NULL,
        joined INTEGER NOT NULL, upstream INTEGER NOT NULL,
        received INTEGER NOT NULL, sent INTEGER NOT NULL,
        seconds REAL NOT NULL, upstream_seconds REAL NOT NULL, waited REAL NOT NULL,
        tokens_input INTEGER NOT NULL, tokens_output INTEGER NOT NULL,
        tokens_cached INTEGER NOT NULL, tokens_saved INTEGER NOT NULL,
        slowest REAL NOT NULL, cost REAL, saved REAL,
        PRIMARY KEY (step, began, tenant, token, token_id, service)
    ) WITHOUT ROWID""",
    f"""CREATE TABLE latencies (
        step INTEGER NOT NULL, began INTEGER NOT NULL, {_OWNER}, service TEXT NOT NULL,
        bucket INTEGER NOT NULL, calls INTEGER NOT NULL,
        PRIMARY KEY (step, began, tenant, token, token_id, service, bucket)
    ) WITHOUT ROWID""",
)
FROM_1: Final = (
    "ALTER TABLE calls RENAME TO calls_1",
    *_SINGLES,
    f"INSERT INTO kinds ({_KINDS}) SELECT DISTINCT {_KINDS} FROM calls_1",  # noqa: S608
    f"""INSERT INTO singles (id, kind, {_OWNS})
        SELECT calls_1.id, kinds.id, {_OWNS} FROM calls_1 JOIN kinds USING ({_KINDS})""",  # noqa: S608
    "DROP TABLE calls_1",
)
"""From the first version, where a call's row had everything."""

FORGET_KINDS: Final = "DELETE FROM kinds WHERE id NOT IN (SELECT kind FROM singles)"

_FIND: Final = f"SELECT id FROM kinds WHERE ({_KINDS}) = ({', '.join('?' * len(_KIND))})"  # noqa: S608
_ADD: Final = f"INSERT INTO kinds ({_KINDS}) VALUES ({', '.join('?' * len(_KIND))})"  # noqa: S608
_ROW: Final = f"(?, ?, ?, {', '.join('?' * (len(_OWN) - 2))})"


def put(connection: sqlite3.Connection, rows: Sequence[CallRow]) -> None:
    """Writes single calls; inside a transaction, or another's sweep could take their kinds."""
    kinds: dict[tuple[Any, ...], int] = {}
    made: list[tuple[Any, ...]] = []
    for row in rows:
        kind = row[2:12] + row[17:21]
        number = kinds.get(kind)
        if number is None:
            number = kinds[kind] = _number(connection, kind)
        made.append((number, *row[:2], *row[12:17], *row[21:]))
    start = 0
    for size in TOGETHER:
        values = ", ".join([_ROW] * size)
        statement = f"INSERT INTO singles (kind, {_OWNS}) VALUES {values}"  # noqa: S608
        while len(made) - start >= size:
            connection.execute(statement, [*chain.from_iterable(made[start : start + size])])
            start += size


def _number(connection: sqlite3.Connection, kind: tuple[Any, ...]) -> int:
    found = connection.execute(_FIND, kind).fetchone()
    if found is not None:
        return int(found[0])
    return int(connection.execute(_ADD, kind).lastrowid or 0)
