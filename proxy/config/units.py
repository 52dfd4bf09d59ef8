"""Durations and sizes as people write them. Pure."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import BeforeValidator, Field

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_OCTETS: Final = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
_AMOUNT: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([A-Za-z]{0,3})", re.ASCII)


def parse_seconds(value: object) -> float:
    """`30`, `2.5`, `30s`, `10m`, `24h` or `30d` in seconds; raises ValueError."""
    return _parse(value, _SECONDS, "a duration such as 30s, 10m, 24h, 30d or a number of seconds")


def _within_a_day(value: object) -> float:
    seconds = parse_seconds(value)
    if not 1 <= seconds <= 86_400:
        raise ValueError("expected a duration from 1s to 24h")
    return seconds


def parse_octets(value: object) -> int:
    """`1048576`, `64MiB` or `1GB` in octets; raises ValueError."""
    return int(_parse(value, _OCTETS, "a size such as 64MiB, 1GB or a number of bytes"))


def _parse(value: object, units: dict[str, int], expected: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 10**15:
        return value
    match = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
    if match is None or (match[2] and match[2] not in units):
        raise ValueError(f"expected {expected}")
    return float(match[1]) * units.get(match[2], 1)


Seconds = Annotated[float, BeforeValidator(parse_seconds), Field(gt=0, allow_inf_nan=False)]
Octets = Annotated[int, BeforeValidator(parse_octets), Field(gt=0)]
WithinADay = Annotated[float, BeforeValidator(_within_a_day)]
