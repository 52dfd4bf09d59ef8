"""What an attack says of itself when it is over: one row of the table."""

from __future__ import annotations

from typing import NamedTuple


class Outcome(NamedTuple):
    """`count` of `acts` ("calls", "kills") were tried, `found` broke a promise. `faults`: the
    first of those, in words, without a value of any secret. `told`: further figures."""

    attack: str
    count: int
    acts: str
    found: int
    told: str = ""
    faults: tuple[str, ...] = ()


class Row(NamedTuple):
    """An outcome in the table: of which campaign it is, to which point of the promise that belongs,
    and how long it took."""

    campaign: str
    point: str
    seconds: float
    outcome: Outcome


def broken_off(name: str, why: str) -> Outcome:
    """Of a campaign that came to no end: a fault by itself."""
    return Outcome(f"{name}: broke off", 0, "", 1, "", (why,))
