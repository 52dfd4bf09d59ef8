"""What single calls come to that are still kept: to the minute, and what went wrong. Only reads."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from proxy.usage.store import MINUTE, Part, Trouble, Which
from proxy.usage.sums import Sums

ADDED: Final = {
    "calls": "count(*)",
    "successful": "sum(successful)",
    "hits": "sum(hit)",
    "joined": "sum(joined)",
    "upstream": "sum(went)",
    "received": "sum(received)",
    "sent": "sum(sent)",
    "seconds": "sum(seconds)",
    "upstream_seconds": "sum(coalesce(upstream_seconds, 0))",
    "waited": "sum(waited)",
    "tokens_input": "sum(went * tokens_input)",
    "tokens_output": "sum(went * tokens_output)",
    "tokens_cached": "sum(went * tokens_cached)",
    "tokens_saved": "sum((hit + joined) * (tokens_input + tokens_output))",
    "slowest": "max(seconds)",
    "cost": "sum(cost)",
    "saved": "sum(saved)",
}
"""Each sum, and how it is made of calls. `cost` and `saved` stay NULL where no call has a price."""

_MINUTE: Final = f"CAST(began / {MINUTE} AS INTEGER) * {MINUTE}"
_NAMES: Final = ("tenant", "service", "token", "token_id", "minute")
_GROUP: Final = f"tenant, service, token, token_id, {_MINUTE}"


def whose(which: Which) -> tuple[str, tuple[str, ...]]:
    """The conditions that are no times, and their values."""
    asked = {
        "tenant = ?": which.tenant,
        "service = ?": which.service,
        "token_id = ?": which.token_id,
        "? IN (token, token_id)": which.token,
    }
    wanted = {condition: value for condition, value in asked.items() if value is not None}
    return "".join(f" AND {condition}" for condition in wanted), tuple(wanted.values())


def minutes(
    connection: sqlite3.Connection, which: Which, groupings: Sequence[Sequence[Part]]
) -> list[list[Sums]]:
    """The calls are gone through once; what is asked is made of a few sums of them."""
    condition, values = whose(which)
    query = f"""SELECT {_GROUP}, bucket, {", ".join(ADDED.values())} FROM calls
        WHERE began >= ? AND began < ?{condition} GROUP BY {_GROUP}, bucket"""  # noqa: S608
    rows = connection.execute(query, (which.since, which.until, *values)).fetchall()
    return [_grouped(rows, by) for by in groupings]


def troubles(connection: sqlite3.Connection, which: Which, limit: int) -> list[Trouble]:
    """By what a caller was told."""
    condition, values = whose(which)
    query = f"""SELECT service, status, code, count(*), max(began) FROM calls
        WHERE began >= ? AND began < ? AND NOT successful{condition}
        GROUP BY service, status, code ORDER BY count(*) DESC LIMIT ?"""  # noqa: S608
    rows = connection.execute(query, (which.since, which.until, *values, limit))
    return [Trouble(*row) for row in rows]


def _grouped(rows: Sequence[tuple[Any, ...]], by: Sequence[Part]) -> list[Sums]:
    names = [
        name for part in by for name in (("token", "token_id") if part == "token" else (part,))
    ]
    places = [_NAMES.index(name) for name in names]
    groups: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[place] for place in places), []).append(row)
    return [_sum(dict(zip(names, key, strict=True)), groups[key]) for key in sorted(groups)]


def _sum(group: dict[str, Any], rows: Sequence[tuple[Any, ...]]) -> Sums:
    start = len(_NAMES)
    latencies: dict[int, int] = {}
    for row in rows:
        latencies[row[start]] = latencies.get(row[start], 0) + row[start + 1]
    columns = zip(*(row[start + 1 :] for row in rows), strict=True)
    found = {name: _together(name, column) for name, column in zip(ADDED, columns, strict=True)}
    return Sums(group, **found, latencies=latencies)


def _together(name: str, column: Sequence[Any]) -> Any:
    known = [one for one in column if one is not None]
    if not known:
        return None
    return max(known) if name == "slowest" else sum(known)
