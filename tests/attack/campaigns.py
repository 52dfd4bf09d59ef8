"""Which attacks there are, and how large: the table that `make attack` goes through.

To add one:

1. a module of this package with an async generator that yields an `Outcome` as each of its rows is
   over (what it prints goes to standard error, as progress):

       async def outcomes(kills: int = 200) -> AsyncIterator[Outcome]:
           ...
           yield Outcome("kill -9 in a store", kills, "kills", lost, f"{asked} asked")

2. a row in CAMPAIGNS: the name to call it by, the point of the promise that it belongs to, the
   module, the sizes of the whole attack and those of a short one (seconds; the suite runs it, and
   judges no test by the time it took). Sizes are keywords of `outcomes`.

Each campaign runs in a process of its own (`python -m tests.attack.campaigns NAME FILE size=N`), so
that none is in the way of another; one that breaks off is a row with a fault, which says with what.

    python -m tests.attack                     all of them, at full length: `make attack`
    python -m tests.attack --short             all of them, in short
    python -m tests.attack vault callers       these
    python -m tests.attack timing pairs=1000   with another size
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, Final, NamedTuple

from tests.attack.outcome import Outcome, broken_off

Sizes = Mapping[str, Any]


class Campaign(NamedTuple):
    """One module's attacks, and their sizes."""

    point: str
    module: str
    whole: Sizes
    short: Sizes


CAMPAIGNS: Final[Mapping[str, Campaign]] = {
    "upstreams": Campaign("2", "upstreams", {"calls": 10_000}, {"calls": 160}),
    "watches": Campaign("4, 5", "watches", {}, {"paths": "tests/support"}),
    "vault": Campaign("6", "vault", {}, {"acts": "every table", "every": 61}),
    "audit": Campaign("7", "audit", {}, {"acts": "rows of their own"}),
    "rotation": Campaign(
        "6", "rotation", {"kills": 200, "keys": 10_000}, {"kills": 5, "keys": 450, "longest": 0.4}
    ),
    "crashes": Campaign(
        "9",
        "crashes",
        {"vault": 1250, "cache": 600, "commands": 90, "servers": 60},
        {"vault": 5, "cache": 5, "commands": 1, "servers": 1, "longest": 0.5, "bound": 60},
    ),
    "faults": Campaign("9", "faults", {}, {"short": 1}),
    "locks": Campaign("9", "locks", {}, {"short": 1}),
    "timing": Campaign("8", "timing", {"pairs": 100_000}, {"pairs": 200}),
    "callers": Campaign("10", "callers", {"callers": 1000}, {"callers": 50}),
    "broken": Campaign(
        "10",
        "broken",
        {"transfers": 100_000, "bombs": 1000, "flood": 100_000},
        {"transfers": 500, "bombs": 5, "flood": 400, "ordinary": 100, "quiet": 1},
    ),
    "workers": Campaign(
        "9, 10",
        "workers",
        {"kills": 24, "callers": 1000, "seconds": 30},
        {
            "kills": 3,
            "longest": 0.3,
            "bound": 60,
            "callers": 20,
            "every": 0,
            "seconds": 1,
            "quiet": 0,
        },
    ),
    "shelves": Campaign(
        "9",
        "shelves",
        {"kills": 60, "evictions": 2000, "failovers": 5},
        {"kills": 3, "evictions": 100, "failovers": 1},
    ),
    "fleet": Campaign("13", "fleet", {"calls": 300}, {"calls": 30, "workers": 1}),
    "soak": Campaign("10", "soak", {"seconds": 600}, {"seconds": 20}),
}


async def carry_out(name: str, sizes: Sizes, out: Path) -> None:
    """One campaign in this process; a line of JSON for each outcome, as it comes, and one for what
    it breaks off with."""
    began = perf_counter()

    def tell(outcome: Outcome) -> None:
        with out.open("a") as lines:
            lines.write(json.dumps([perf_counter() - began, outcome]) + "\n")

    try:
        module = importlib.import_module(f"tests.attack.{CAMPAIGNS[name].module}")
        async for outcome in module.outcomes(**sizes):
            tell(outcome)
            began = perf_counter()
    except Exception as error:
        tell(broken_off(name, first_of(error)))
        raise


def first_of(error: BaseException) -> str:
    """An error, or the first of a group, in a line: what it is, and where it came from."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f" ({Path(frame.filename).name}, line {frame.lineno})" for frame in last)
    return f"{type(error).__name__}: {str(error)[:300]}{where}"


def sizes_in(words: list[str]) -> Sizes:
    """`kills=5` as a number, anything else as a word."""
    pairs = (word.split("=", 1) for word in words)
    return {name: json.loads(text) if text[:1].isdigit() else text for name, text in pairs}


if __name__ == "__main__":
    logging.disable()  # most of these failures are told, by thousands
    asyncio.run(carry_out(sys.argv[1], sizes_in(sys.argv[3:]), Path(sys.argv[2])))
