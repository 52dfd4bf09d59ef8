"""What is asked of usage, in SQL that SQLite and PostgreSQL read alike; what is made of the rows.

A question is a text with `?` for each of its values. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from proxy.usage.store import DAY, HOUR, MINUTE, CallRow, Order, Part, Which
from proxy.usage.sums import Sums

COUNTED: Final = {
    "calls": "count(*)",
    "successful": "sum(successful)",
    "hits": "sum(hit)",
    "joined": "sum(joined)",
    "upstream": "sum(went)",
    "received": "sum(received)",
    "sent": "sum(sent)",
    "tokens_input": "sum(went * tokens_input)",
    "tokens_output": "sum(went * tokens_output)",
    "tokens_cached": "sum(went * tokens_cached)",
    "tokens_saved": "sum((hit + joined) * (tokens_input + tokens_output))",
}
"""Sums that are whole numbers, and how each is made of calls."""

ADDED: Final = {
    **{name: f"CAST({how} AS BIGINT)" for name, how in COUNTED.items()},
    "seconds": "sum(seconds)",
    "upstream_seconds": "sum(coalesce(upstream_seconds, 0))",
    "waited": "sum(waited)",
    "slowest": "max(seconds)",
    "cost": "sum(cost)",
    "saved": "sum(saved)",
}
"""Each sum, and how it is made of calls. `cost` and `saved` stay NULL where no call has a price."""

TOTAL: Final = {
    **{name: f"sum({name})" for name in ADDED},
    **{name: f"CAST(sum({name}) AS BIGINT)" for name in COUNTED},
    "slowest": "max(slowest)",
}
"""Each sum, and how it is made of others."""

OWNER: Final = ("tenant", "token", "token_id", "service")
"""What sums are kept apart by, beside the time."""

_COLUMNS: Final = ", ".join(CallRow._fields)
_PARTS: Final[Mapping[str, str]] = {
    "tenant": "tenant",
    "token": "token, token_id",
    "service": "service",
    "day": f"began / {DAY} * {DAY} AS day",
    "hour": f"began / {HOUR} * {HOUR} AS hour",
}
_NAMES: Final[Mapping[str, tuple[str, ...]]] = {"token": ("token", "token_id")}
_ORDERS: Final[Mapping[str, str]] = {
    "newest": "began DESC, id DESC",
    "slowest": "seconds DESC",
    "costliest": "cost DESC NULLS LAST",
}
_MINUTES: Final = ("tenant", "service", "token", "token_id", "minute")


class Question(NamedTuple):
    """A statement and its values."""

    text: str
    values: tuple[Any, ...]


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


# Sums.


def totals(which: Which, by: Sequence[Part], table: str) -> Question:
    """The sums of a grouping."""
    names = _names(by)
    columns = "".join(_PARTS[part] + ", " for part in by)
    group = f" GROUP BY {', '.join(names)} ORDER BY {', '.join(names)}" if names else ""
    where, values = _condition(which, by)
    text = f"SELECT {columns}{', '.join(TOTAL.values())} FROM {table} {where}{group}"  # noqa: S608
    return Question(text, values)


def durations(which: Which, by: Sequence[Part], table: str) -> Question:
    """How many of its calls took how long."""
    columns = "".join(_PARTS[part] + ", " for part in by)
    where, values = _condition(which, by)
    text = f"SELECT {columns}bucket, CAST(sum(calls) AS BIGINT) FROM {table} {where}"  # noqa: S608
    return Question(f"{text} GROUP BY {', '.join([*_names(by), 'bucket'])}", values)


def gathered(
    by: Sequence[Part], rows: Sequence[Sequence[Any]], latencies: Sequence[Sequence[Any]]
) -> list[Sums]:
    """What the two have found."""
    names = _names(by)
    counts: dict[tuple[Any, ...], dict[int, int]] = {}
    width = len(names)
    for row in latencies:
        counts.setdefault(tuple(row[:width]), {})[row[width]] = row[width + 1]
    return [
        Sums(
            dict(zip(names, row[:width], strict=True)),
            **dict(zip(TOTAL, row[width:], strict=True)),
            latencies=counts.get(tuple(row[:width]), {}),
        )
        for row in rows
        if row[width]
    ]


def _names(by: Sequence[Part]) -> list[str]:
    return [name for part in by for name in _NAMES.get(part, (part,))]


def _condition(which: Which, by: Sequence[Part]) -> tuple[str, tuple[Any, ...]]:
    """Which sums to add up: those of whole days as far as they reach, else those of hours."""
    since, until = int(which.since // HOUR) * HOUR, -int(-which.until // HOUR) * HOUR
    first, last = -(-since // DAY) * DAY, until // DAY * DAY
    if first >= last or "hour" in by:
        first = last = until
    spans = (HOUR, since, first, HOUR, last, until, DAY, first, last)
    inside = "step = ? AND began >= ? AND began < ?"
    owned, values = whose(which)
    return f"WHERE ({inside} OR {inside} OR {inside}){owned}", (*spans, *values)


# Single calls.


def calls(which: Which, order: Order, limit: int, table: str) -> Question:
    """Some of them, in an order."""
    owned, values = whose(which)
    text = f"""SELECT {_COLUMNS} FROM {table} WHERE began >= ? AND began < ?{owned}
        ORDER BY {_ORDERS[order]} LIMIT ?"""  # noqa: S608
    return Question(text, (which.since, which.until, *values, limit))


def troubles(which: Which, limit: int, table: str) -> Question:
    """What went wrong, by what a caller was told; the most frequent first."""
    owned, values = whose(which)
    text = f"""SELECT service, status, code, count(*), max(began) FROM {table}
        WHERE began >= ? AND began < ? AND successful = 0{owned}
        GROUP BY service, status, code ORDER BY count(*) DESC LIMIT ?"""  # noqa: S608
    return Question(text, (which.since, which.until, *values, limit))


def minutes(which: Which, table: str, whole: str) -> Question:
    """Few sums of single calls, of which all groupings are made. `whole`: the whole part of {}."""
    owned, values = whose(which)
    minute = whole.format(f"began / {MINUTE}")
    group = f"tenant, service, token, token_id, {minute}"
    text = f"""SELECT {group} * {MINUTE}, bucket, {", ".join(ADDED.values())} FROM {table}
        WHERE began >= ? AND began < ?{owned} GROUP BY {group}, bucket"""  # noqa: S608
    return Question(text, (which.since, which.until, *values))


def grouped(rows: Sequence[Sequence[Any]], by: Sequence[Part]) -> list[Sums]:
    """What `minutes` has found, by what tells calls apart."""
    names = _names(by)
    places = [_MINUTES.index(name) for name in names]
    groups: dict[tuple[Any, ...], list[Sequence[Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[place] for place in places), []).append(row)
    return [_sum(dict(zip(names, key, strict=True)), groups[key]) for key in sorted(groups)]


def _sum(group: dict[str, Any], rows: Sequence[Sequence[Any]]) -> Sums:
    start = len(_MINUTES)
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
