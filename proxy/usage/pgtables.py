"""The tables of usage in PostgreSQL, and how a batch gets from one of its own into those of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from proxy.database import Connection, Freight, make_tables
from proxy.usage.questions import ADDED, OWNER
from proxy.usage.store import DAY, HOUR, CallRow, UsageTooNew

VERSION: Final = 1
GATHERED: Final = f"usage_batch_{VERSION}"
"""Where the calls of a batch are before they are everybody's."""

_TEXT: Final = 'text COLLATE "C" NOT NULL'
_TYPES: Final = {
    **dict.fromkeys(("call", *OWNER, "host", "method", "code", "verdict"), _TEXT),
    **dict.fromkeys(("began", "seconds", "waited"), "double precision NOT NULL"),
    **dict.fromkeys(("upstream_seconds", "cost", "saved"), "double precision"),
    **dict.fromkeys(("cut", "successful", "went", "hit", "joined"), "smallint NOT NULL"),
}
_CALL: Final = ", ".join(
    f"{name} {_TYPES.get(name, 'bigint NOT NULL')}" for name in CallRow._fields
)
_SUM: Final = ", ".join(
    f"{name} {_TYPES.get(name, 'bigint NOT NULL')}" for name in ADDED if name != "slowest"
)
_OWNER: Final = ", ".join(f"{name} {_TEXT}" for name in OWNER)
_GROUP: Final = ", ".join(OWNER)
_PLACE: Final = f"step, began, {_GROUP}"
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS usage_version (version integer NOT NULL)",
    f"""CREATE TABLE IF NOT EXISTS usage_calls (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {_CALL}
    )""",
    "CREATE INDEX IF NOT EXISTS usage_calls_by_time ON usage_calls (began, id)",
    f"""CREATE TABLE IF NOT EXISTS usage_sums (
        step integer NOT NULL, began bigint NOT NULL, {_OWNER}, {_SUM},
        slowest double precision NOT NULL, PRIMARY KEY ({_PLACE})
    )""",
    f"""CREATE TABLE IF NOT EXISTS usage_latencies (
        step integer NOT NULL, began bigint NOT NULL, {_OWNER},
        bucket integer NOT NULL, calls bigint NOT NULL, PRIMARY KEY ({_PLACE}, bucket)
    )""",
    f"""INSERT INTO usage_version SELECT {VERSION}
        WHERE NOT EXISTS (SELECT FROM usage_version)""",  # noqa: S608 - as all in here
)
BEGIN: Final = f"CREATE TEMP TABLE IF NOT EXISTS {GATHERED} ({_CALL}) ON COMMIT DELETE ROWS"
"""First in a batch: behind a pooler it may be another session's turn each time."""

_COLUMNS: Final = ", ".join(CallRow._fields)
_TOGETHER: Final = {
    **{name: f"usage_sums.{name} + excluded.{name}" for name in ADDED},
    "slowest": "greatest(usage_sums.slowest, excluded.slowest)",
    **{
        name: f"coalesce(usage_sums.{name} + excluded.{name}, usage_sums.{name}, excluded.{name})"
        for name in ("cost", "saved")
    },
}
_STEPS: Final = f"(VALUES ({HOUR}), ({DAY})) AS steps (step)"
_START: Final = "CAST(floor(began / step) AS bigint) * step"
_NUMBERS: Final = ", ".join(ADDED)
_ONTO_SUMS: Final = f"""ON CONFLICT ({_PLACE}) DO UPDATE
    SET {", ".join(f"{name} = {how}" for name, how in _TOGETHER.items())}"""  # noqa: S608
_ONTO_LATENCIES: Final = f"""ON CONFLICT ({_PLACE}, bucket) DO UPDATE
    SET calls = usage_latencies.calls + excluded.calls"""  # noqa: S608
ADD: Final = (
    f"INSERT INTO usage_calls ({_COLUMNS}) SELECT {_COLUMNS} FROM {GATHERED}",  # noqa: S608
    f"""INSERT INTO usage_sums ({_PLACE}, {_NUMBERS})
        SELECT step, {_START}, {_GROUP}, {", ".join(ADDED.values())} FROM {GATHERED}, {_STEPS}
        GROUP BY step, {_START}, {_GROUP} ORDER BY step, {_START}, {_GROUP}
        {_ONTO_SUMS}""",  # noqa: S608
    f"""INSERT INTO usage_latencies ({_PLACE}, bucket, calls)
        SELECT step, {_START}, {_GROUP}, bucket, count(*) FROM {GATHERED}, {_STEPS}
        GROUP BY step, {_START}, {_GROUP}, bucket ORDER BY step, {_START}, {_GROUP}, bucket
        {_ONTO_LATENCIES}""",  # noqa: S608
)
"""What a batch does, in this order: rows that all instances add to are locked last, and sorted."""


async def prepare(connection: Connection) -> None:
    """Makes what is not there yet; raises UsageTooNew."""
    if await version_of(connection) != VERSION:
        await make_tables(connection, *_TABLES)


async def version_of(connection: Connection) -> int:
    """That of the tables, 0 where there are none; raises UsageTooNew."""
    if await connection.fetchval("SELECT to_regclass('usage_version')") is None:
        return 0
    version: int = await connection.fetchval("SELECT max(version) FROM usage_version") or 0
    if version > VERSION:
        raise UsageTooNew(
            f"usage was written by a newer release (schema {version}, known is {VERSION});"
            " upgrade keyrelay, or name another database in vault.url"
        )
    return version


def _values(count: int) -> str:
    return ", ".join(f"${number + 1}" for number in range(count))


_LATENCY: Final = f"{_PLACE}, bucket, calls"
_PLACES: Final = 2 + len(OWNER)
_ADD_SUM: Final = f"""INSERT INTO usage_sums ({_PLACE}, {_NUMBERS})
    VALUES ({_values(_PLACES + len(ADDED))}) {_ONTO_SUMS}"""  # noqa: S608
_ADD_LATENCY: Final = f"""INSERT INTO usage_latencies ({_LATENCY})
    VALUES ({_values(_PLACES + 2)}) {_ONTO_LATENCIES}"""  # noqa: S608


async def _add_sums(connection: Connection, rows: Sequence[Any]) -> None:
    await connection.executemany(_ADD_SUM, rows)


async def _add_latencies(connection: Connection, rows: Sequence[Any]) -> None:
    await connection.executemany(_ADD_LATENCY, rows)


async def _add_calls(connection: Connection, rows: Sequence[Any]) -> None:
    await connection.copy_records_to_table("usage_calls", records=rows, columns=CallRow._fields)


FREIGHT: Final = (
    Freight(f"SELECT {_PLACE}, {_NUMBERS} FROM sums ORDER BY {_PLACE}", _add_sums, prepare),  # noqa: S608
    Freight(
        f"SELECT {_LATENCY} FROM latencies ORDER BY {_PLACE}, bucket",  # noqa: S608
        _add_latencies,
        prepare,
    ),
    Freight(f"SELECT {_COLUMNS} FROM calls ORDER BY id", _add_calls, prepare),  # noqa: S608
)
"""What stands in a file, in the order in which all who add here lock what they add to."""
