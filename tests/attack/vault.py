"""The vault under attack, at full length; prints one row for each attack: `make attack`."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from tests.attack import rows
from tests.attack.rows import Siege, Verdict
from tests.support.clock import FakeClock
from vault import open_vault

Act = Callable[[Siege], Awaitable[None]]

ACTS: Final[Mapping[str, Act]] = {
    "each bit of each octet of each sealed row": rows.flip_rows,
    "each bit of each octet of each data key": rows.flip_data_keys,
    "all pairs of rows, by column and whole": rows.swap_rows,
    "all pairs of rows, their names": rows.swap_names,
    "all pairs of columns of a row": rows.swap_columns,
    "all pairs of data keys and their columns": rows.swap_data_keys,
    "values of any type in every column": rows.put_odd_values,
}


async def besiege(act: Act) -> Verdict:
    """One attack on a vault of its own."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        await (await open_vault(data, {}, FakeClock(), create=True)).close()
        siege = await Siege.begin(data)
        try:
            await act(siege)
        finally:
            await siege.end()
        return siege.verdict


async def run() -> dict[str, Verdict]:
    """Every attack in turn; what came of each is printed when it is over."""
    found = {}
    print(f"{'vault':44}{'acts':>8}{'refused':>9}{'harmless':>9}{'faults':>7}")
    for name, act in ACTS.items():
        found[name] = verdict = await besiege(act)
        counts = f"{verdict.acts:>8}{verdict.refused:>9}{verdict.harmless:>9}"
        print(f"{name:44}{counts}{len(verdict.faults):>7}", flush=True)
        for fault in verdict.faults[:5]:
            print(f"    {fault}")
    return found


if __name__ == "__main__":
    sys.exit(any(verdict.faults for verdict in asyncio.run(run()).values()))
