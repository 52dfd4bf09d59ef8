"""Runs the campaigns one after the other and prints one table: `make attack`.

`tests/attack/campaigns.py` says which there are, how to add one and how to choose.
The table is in `build/attack.json` too; `python -m tests.attack.shown build/attack.json` puts its
rows into the README, in the place of those that the same campaigns had there.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.attack import shown
from tests.attack.campaigns import CAMPAIGNS, Sizes, sizes_in
from tests.attack.outcome import Outcome, Row, broken_off

OUT = Path("build/attack.json")


def rows_of(name: str, sizes: Sizes) -> list[Row]:
    """One campaign in a process of its own; its words are told as they come."""
    print(f"-- {name}", file=sys.stderr, flush=True)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "outcomes"
        words = [f"{size}={value}" for size, value in sizes.items()]
        command = [sys.executable, "-m", "tests.attack.campaigns", name, str(out), *words]
        code = subprocess.run(command, stdout=sys.stderr, check=False).returncode
        lines = out.read_text().splitlines() if out.exists() else []
    point = CAMPAIGNS[name].point
    rows = [
        Row(name, point, round(seconds, 1), Outcome(*told))
        for seconds, told in map(json.loads, lines)
    ]
    last = broken_off(name, f"its process ended with {code}")
    told = any(row.outcome.attack == last.attack for row in rows)
    if (code or not rows) and not told:
        rows.append(Row(name, point, round(time.perf_counter() - began, 1), last))
    return rows


def main(words: list[str]) -> int:
    """1 where a promise was broken, 2 where nobody knows such an attack."""
    short = "--short" in words
    given = sizes_in([word for word in words if "=" in word])
    names = [word for word in words if "=" not in word and word != "--short"]
    if unknown := [name for name in names if name not in CAMPAIGNS]:
        print(f"there is no {unknown[0]}; there are {', '.join(CAMPAIGNS)}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    OUT.parent.mkdir(exist_ok=True)
    for name in names or CAMPAIGNS:
        campaign = CAMPAIGNS[name]
        rows += rows_of(name, {**(campaign.short if short else campaign.whole), **given})
        OUT.write_text(shown.document(rows))  # now: the rest may take an hour
    print(shown.plain(rows))
    return int(any(row.outcome.found for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
