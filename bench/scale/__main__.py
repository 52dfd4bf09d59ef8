"""`python -m bench.scale` measures how keyrelay grows: results/scale.json, docs/scale.md.

With `--page` nothing is measured: the page is written anew from the numbers that are there.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

from bench import matter, upstreams
from bench.__main__ import allow_files, room
from bench.results import FOLDER, machine
from bench.room import ROOT, MissingError, Room, program
from bench.running import running
from bench.scale import costs, engines, entries, holdings, page, setups
from bench.scale.engines import Engine

Told = TypeVar("Told")
RESULT: Final = FOLDER / "scale.json"
PAGE: Final = ROOT / "docs" / "scale.md"
SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
MOST: Final = {"tokens": 1_000_000, "keys": 1_000_000, "files": 1_000_000, "redis": 1_000_000}
"""Half an hour, most of which makes them."""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What the run is to measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--only", choices=tuple(_PARTS), help="the others stay as they were")
    parser.add_argument("--rounds", type=int, default=3, help="how often each case is measured")
    parser.add_argument("--seconds", type=int, default=3, help="how long each measuring takes")
    parser.add_argument("--most", type=int, default=SIZES[-1], help="the largest number of things")
    parser.add_argument("--page", action="store_true", help="only write the page anew")
    return parser.parse_args(given)


def say(text: str) -> None:
    """While it happens."""
    print(text, file=sys.stderr, flush=True)


def measure_costs(asked: argparse.Namespace) -> dict[str, object]:
    """Every setup by itself, in rounds."""
    with room() as here, engines.redis() as redis, engines.postgres() as postgres:
        bodies = matter.write_bodies(here.folder("bodies"))
        with contextlib.ExitStack() as stack:
            for upstream in (upstreams.files(here), upstreams.origin(here)):
                stack.enter_context(running(upstream))
            names = setups.Engines(engines.redis_url(redis), _databases(postgres))
            ready = [setups.install(here, one, names) for one in setups.SETUPS]
            how = costs.How(asked.seconds, here.origin, (redis, postgres))
            found = [
                cost
                for _ in range(asked.rounds)
                for one in ready
                for cost in costs.measure(one, bodies, how, say)
            ]
    rows = _rows(costs.summarise(found))
    return {"costs": rows, "rounds": asked.rounds, "connections": how.opened}


def _databases(postgres: Engine) -> setups.Named:
    return lambda name: engines.another_database(postgres, name)


def measure_holdings(asked: argparse.Namespace) -> dict[str, object]:
    """Tokens and keys, from few to many, each in a vault of their own."""
    with room() as here, engines.postgres() as postgres:
        return {"held": _rows([*_held(here, postgres, asked.most)])}


def measure_entries(asked: argparse.Namespace) -> dict[str, object]:
    """Answers, from few to many, each in a place of their own."""
    with room() as here, engines.redis() as redis:
        return {"kept": _rows([*_kept(here, redis, asked.most)])}


def _held(here: Room, postgres: Engine, most: int) -> Iterator[holdings.Held]:
    for kind in ("tokens", "keys"):
        for count in _sizes(kind, most):
            for url in (None, engines.another_database(postgres, f"scale_{kind}_{count}")):
                yield _told(holdings.measure(here, kind, count, url))


def _kept(here: Room, redis: Engine, most: int) -> Iterator[entries.Kept]:
    for count in _sizes("files", most):
        yield _told(entries.in_files(here, count))
    for count in _sizes("redis", most):
        yield _told(entries.in_redis(here, redis, count))


def _sizes(kind: str, most: int) -> list[int]:
    return [size for size in SIZES if size <= min(most, MOST[kind])]


def _told(one: Told) -> Told:
    say(str(one))
    return one


def _rows(found: Sequence[object]) -> list[dict[str, object]]:
    """Numbers with three significant digits: more would be noise."""
    return [
        {name: _rounded(value) for name, value in dataclasses.asdict(one).items()}  # type: ignore[call-overload]
        for one in found
    ]


def _rounded(value: object) -> object:
    return float(f"{value:.3g}") if isinstance(value, float) else value


def versions() -> dict[str, str]:
    """Of the engines that were measured with."""
    asked = {
        "redis": [program("redis-server"), "--version"],
        "postgresql": [engines.of_postgres("postgres"), "--version"],
    }
    said = {
        name: subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for name, command in asked.items()
    }
    return {name: engines.version_in(text) for name, text in said.items()}


_PARTS: Final = {
    "costs": measure_costs,
    "holdings": measure_holdings,
    "entries": measure_entries,
}


def main() -> None:
    """Measures, writes after each part; what was not asked for stays as it was."""
    asked = arguments()
    if not asked.page:
        allow_files()
        for name, part in _PARTS.items():
            if asked.only in (None, name):
                keep(part(asked))
    PAGE.write_text(page.document(json.loads(RESULT.read_text())))


def keep(found: dict[str, object]) -> None:
    """Beside what is there from other parts."""
    before = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    made = datetime.now(UTC).isoformat(timespec="seconds")
    about = {"made": made, "machine": machine(), "versions": versions()}
    RESULT.write_text(json.dumps({**before, **about, **found}, indent=1) + "\n")


if __name__ == "__main__":
    try:
        for needed in ("wrk", "nginx", "redis-server"):
            program(needed)
    except MissingError as missing:
        sys.exit(f"bench: {missing}; on Debian: apt-get install wrk nginx redis-server postgresql")
    main()
