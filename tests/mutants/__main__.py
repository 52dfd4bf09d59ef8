"""What `mutmut run` saw, by room; ends with 1 where fewer than 95 % of the mutants were killed."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Final

ENOUGH: Final = 0.95
_KILLED: Final = frozenset({"killed", "timeout", "caught by type check"})


def main() -> int:
    """Prints the table and the survivors; how one looks: `mutmut show NAME`."""
    told = subprocess.run(
        [Path(sys.executable).with_name("mutmut"), "results", "--all", "true"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    states = dict(line.strip().split(": ") for line in told.splitlines() if ": " in line)
    made, killed = Counter(map(_room, states)), Counter[str]()
    killed.update(_room(name) for name, state in states.items() if state in _KILLED)
    for room in sorted(made):
        print(
            f"{room:20} {killed[room]:4} of {made[room]:4} killed {killed[room] / made[room]:7.1%}"
        )
    print(f"{'together':20} {killed.total():4} of {made.total():4} killed", end=" ")
    print(f"{killed.total() / made.total():7.1%}")
    print(
        *(f"  {name}: {state}" for name, state in states.items() if state not in _KILLED), sep="\n"
    )
    return 0 if killed.total() >= ENOUGH * made.total() else 1


def _room(name: str) -> str:
    """`proxy.fields` of `proxy.fields.x_add_via__mutmut_1`."""
    return ".".join(name.split(".")[:2])


if __name__ == "__main__":
    sys.exit(main())
