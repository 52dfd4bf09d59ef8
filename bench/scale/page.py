"""docs/scale.md out of scale.json: each number in it was measured, or is made of such."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

Data = Mapping[str, Any]
_TEXT: Final = Path(__file__).with_suffix(".md")
MICRO: Final = 1e6
NOTICED: Final = 1.0
"""Microseconds of an engine's time a request below which it is no wall."""

_ASKED: Final = {
    "hit": "hit, from memory",
    "forward": "forward",
    "sse": "event of a stream",
    "miss": "miss, kept",
}
_SETUPS: Final = {
    "files-1": "one process, files",
    "files-2-workers": "two workers, files",
    "engines-1": "one instance, both engines",
    "engines-2": "two instances, both engines",
    "engines-3": "three instances, both engines",
    "files-1-no-memory": "one process, files, no memory",
    "engines-1-no-memory": "one instance, both engines, no memory",
    "files-1-limited": "one process, files, limits",
    "engines-1-limited": "one instance, both engines, limits",
}
_CASES: Final = (
    ("a hit from memory", "engines-1", "hit"),
    ("a hit from Redis", "engines-1-no-memory", "hit"),
    ("a hit of a limited token", "engines-1-limited", "hit"),
    ("a forward", "engines-1", "forward"),
    ("a forward of a limited token", "engines-1-limited", "forward"),
    ("a miss that is kept", "engines-1", "miss"),
    ("an event of a stream", "engines-1", "sse"),
)
"""What the model tells of: its name, and where it was measured."""

_WHO: Final = ("keyrelay", "redis", "postgresql")
_CORES: Final = (1, 2, 4, 8, 16, 32)


def document(data: Data) -> str:
    """The whole page."""
    return _TEXT.read_text().format(
        cpus=data["machine"]["cpus"],
        redis=data["versions"]["redis"],
        postgresql=data["versions"]["postgresql"],
        rounds=data["rounds"],
        spread=_percent(max(row["spread"] for row in data["costs"])),
        costs=_costs(data),
        instances=_instances(data),
        shared=_shared(data),
        model=_model(data),
        walls=_walls(data),
        carried=_carried(data),
        held=_held(data),
        kept=_kept(data),
        **_facts(data),
    )


def _row(data: Data, setup: str, case: str) -> Data:
    [found] = [one for one in data["costs"] if (one["setup"], one["case"]) == (setup, case)]
    return found  # type: ignore[no-any-return]


def _costs(data: Data) -> str:
    rows = (
        (
            _SETUPS[one["setup"]],
            _ASKED[one["case"]] if "no-memory" not in one["setup"] else "hit, from the store",
            *(_us(one[who]) for who in _WHO),
        )
        for one in data["costs"]
    )
    return _table(("set up as", "asked for", "keyrelay", "Redis", "PostgreSQL"), rows)


def _instances(data: Data) -> str:
    """By how much a request costs more than with one instance, or one process."""
    rows = []
    for setup, alone in (
        ("files-2-workers", "files-1"),
        ("engines-1", "files-1"),
        ("engines-2", "engines-1"),
        ("engines-3", "engines-1"),
    ):
        ratios = (
            _row(data, setup, case)["keyrelay"] / _row(data, alone, case)["keyrelay"]
            for case in ("hit", "forward", "sse")
        )
        rows.append((f"{_SETUPS[setup]}, against {_SETUPS[alone]}", *(f"{r:.2f}" for r in ratios)))
    return _table(("", "hit", "forward", "event"), rows)


def _shared(data: Data) -> str:
    """What a hit costs by where it lies."""
    memory = _row(data, "engines-1", "hit")["keyrelay"]
    rows = [
        (name, _us(one["keyrelay"]), _us(one["redis"]), f"{one['keyrelay'] / memory:.1f}")
        for name, one in (
            ("memory", _row(data, "engines-1", "hit")),
            ("SQLite, on this machine", _row(data, "files-1-no-memory", "hit")),
            ("Redis, on this machine", _row(data, "engines-1-no-memory", "hit")),
        )
    ]
    return _table(("where the answer lies", "keyrelay", "Redis", "times memory"), rows)


def _model(data: Data) -> str:
    rows = []
    for name, setup, case in _CASES:
        one = _row(data, setup, case)
        own, redis, postgres = (MICRO / one[who] if one[who] >= NOTICED else None for who in _WHO)
        rows.append((name, _many(own), _many(redis), _many(postgres), _cores(one)))
    head = (
        "a second",
        "a core of keyrelay",
        "one Redis",
        "a core of PostgreSQL",
        "cores at the wall",
    )
    return _table(head, rows)


def _cores(one: Data) -> str:
    """How many cores of keyrelay fill the one core that Redis takes."""
    return f"{one['keyrelay'] / one['redis']:.1f}" if one["redis"] >= NOTICED else "-"


def _walls(data: Data) -> str:
    lines = []
    for name, setup, case in _CASES:
        one = _row(data, setup, case)
        engine, cost = max(
            (("Redis", one["redis"]), ("PostgreSQL", one["postgresql"])), key=_second
        )
        if cost < NOTICED:
            lines.append(
                f"- {name}: no engine has anything to do; cores of keyrelay are all it takes."
            )
            continue
        where = "its one core" if engine == "Redis" else "one core of it"
        lines.append(
            f"- {name}: {engine}, with {where} full at {_many(MICRO / cost)} a second, which takes"
            f" {one['keyrelay'] / cost:.0f} cores of keyrelay."
        )
    return "\n".join(lines)


def _second(pair: tuple[str, float]) -> float:
    return pair[1]


def _carried(data: Data) -> str:
    """With one core to an instance, one Redis, and as many cores of PostgreSQL as it takes."""
    rows = []
    for name, setup, case in _CASES:
        one = _row(data, setup, case)
        most = MICRO / one["redis"] if one["redis"] >= NOTICED else float("inf")
        each = MICRO / one["keyrelay"]
        carried = (min(cores * each, most) for cores in _CORES)
        rows.append(
            (name, *(_many(number) + ("*" if number == most else "") for number in carried))
        )
    return _table(("a second, with so many instances", *map(str, _CORES)), rows)


def _held(data: Data) -> str:
    rows = (
        (
            f"{one['count']:,} {one['kind']}",
            "PostgreSQL" if one["where"] == "postgresql" else "files",
            f"{one['look_up'] / 1e3:.1f} ms",
            f"{one['change'] * 1e3:.0f} ms",
            f"{one['start']:.1f} s",
            f"{one['resident'] / 2**20:.0f} MiB",
        )
        for one in data["held"]
    )
    head = ("", "in", "first look-up of one", "a change", "start", "memory")
    return _table(head, rows)


def _kept(data: Data) -> str:
    rows = (
        (
            f"{one['count']:,}",
            one["where"].replace("redis", "Redis"),
            _us(one["put"]),
            _us(one["look_up"]),
            f"{one['octets']:,.0f}",
            f"{one['purge']:.2f} s",
            "-" if one["start"] is None else f"{one['start']:.1f} s",
            "-" if one["resident"] is None else f"{one['resident'] / 2**20:.0f} MiB",
        )
        for one in data["kept"]
    )
    head = ("answers", "in", "keep", "look up", "octets each", "purge all", "start", "memory")
    return _table(head, rows)


def _facts(data: Data) -> dict[str, object]:
    """Single numbers of the text."""
    opened = data["connections"]["engines-1"]
    return {
        "usage": _us(_row(data, "engines-1", "hit")["postgresql"]),
        "to_redis": opened["redis"],
        "to_postgresql": opened["postgresql"],
    }


def _us(value: float) -> str:
    return f"{value:,.0f} us" if value >= 10 else f"{max(value, 0):.1f} us"


def _many(number: float | None) -> str:
    """A count a second, with two digits that mean something."""
    return "-" if number is None else f"{float(f'{number:.2g}'):,.0f}"


def _percent(part: float) -> str:
    return f"{part:.0%}".replace("%", " %")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
