"""The table of `make attack`, on a terminal and in the README; its kills in docs/SECURITY.md.

    python -m tests.attack.shown                     the README shows docs/attack.json
    python -m tests.attack.shown build/attack.json   takes the figures of a run, or several, first

A run's rows take the place of all that the same campaigns had in docs/attack.json; those of other
campaigns stay. So one campaign can be run again and shown without the rest, whole or broken off.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.attack.campaigns import CAMPAIGNS
from tests.attack.outcome import Outcome, Row

ROOT: Final = Path(__file__).parent.parent.parent
KEPT: Final = ROOT / "docs/attack.json"
README: Final = ROOT / "README.md"
PROMISES: Final = ROOT / "docs/SECURITY.md"
BEGIN: Final = "<!-- the table of docs/attack.json, written by tests/attack/shown.py -->\n"
END: Final = "<!-- its end -->\n"
HEAD: Final = ("point", "attack", "tried", "found", "figures", "seconds")


def cells(row: Row) -> tuple[str, ...]:
    """As text."""
    one = row.outcome
    tried = f"{one.count:,} {one.acts}".strip()
    return (row.point, one.attack, tried, str(one.found), one.told, f"{row.seconds:,.1f}")


def order(row: Row) -> tuple[list[int], int]:
    """By the numbers of the point, and within one as `make attack` goes through them."""
    numbers = [int(number) for number in row.point.split(", ")]
    return numbers, list(CAMPAIGNS).index(row.campaign)


def merged(kept: Sequence[Row], run: Sequence[Row]) -> list[Row]:
    """A run's rows in the place of those that its campaigns had; all in order."""
    again = {row.campaign for row in run}
    return sorted([*(row for row in kept if row.campaign not in again), *run], key=order)


def in_table(row: Row) -> list[str]:
    """Without an end of a cell of Markdown."""
    return [text.replace("|", "\\|") for text in cells(row)]


def plain(rows: Sequence[Row]) -> str:
    """For a terminal, with what was found in words below."""
    lines = [HEAD, *map(cells, rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(HEAD))]
    told = [
        "  ".join(
            text.rjust(width) if name in ("found", "seconds") else text.ljust(width)
            for name, text, width in zip(HEAD, line, widths, strict=True)
        )
        for line in lines
    ]
    faults = [f"  {row.outcome.attack}: {fault}" for row in rows for fault in row.outcome.faults]
    return "\n".join([*told, *faults])


def markdown(rows: Sequence[Row]) -> str:
    """For the README, one line for each row; what was found is in words in the JSON."""
    lines = [f"| {' | '.join(HEAD)} |", "|---|---|---|---:|---|---:|"]
    return "\n".join([*lines, *(f"| {' | '.join(in_table(row))} |" for row in rows)]) + "\n"


def killed(rows: Sequence[Row]) -> str:
    """The kills alone, and all of them together."""
    kills = [row.outcome for row in rows if row.campaign == "crashes"]
    lines = ["| killed | kills | survived | found |", "|---|---:|---|---:|"]
    for one in kills:
        name = one.attack.removeprefix("kill -9: ").split(",")[0]
        survived = one.told.split(" survived")[0]
        lines.append(f"| {name} | {one.count:,} | {survived} | {one.found} |")
    together = (sum(one.count for one in kills), sum(one.found for one in kills))
    lines.append("| together | {:,} | | {} |".format(*together))
    return "\n".join(lines) + "\n"


def document(rows: Sequence[Row]) -> str:
    """As JSON, a member for each figure."""
    told = [{**row._asdict(), **row.outcome._asdict()} for row in rows]
    for one in told:
        del one["outcome"]
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


def read(text: str) -> list[Row]:
    """The rows of such a document."""
    rows = []
    for one in json.loads(text):
        which = one.pop("campaign"), one.pop("point"), one.pop("seconds")
        rows.append(Row(*which, Outcome(**{**one, "faults": tuple(one["faults"])})))
    return rows


def filled(page: str, table: str) -> str:
    """The page with this table between its markers."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        now = read(KEPT.read_text())
        KEPT.write_text(document(merged(now, read(Path(name).read_text()))))
    rows = read(KEPT.read_text())
    for page, table in ((README, markdown(rows)), (PROMISES, killed(rows))):
        page.write_text(filled(page.read_text(), table))
