"""The vault under attack: one row for each kind of change."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from tests.attack import replays, rows, tables
from tests.attack.outcome import Outcome
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


OLD_ROWS: Final = "old rows put back, rows taken out"


async def besiege_with_the_past(every: int = 1) -> Verdict:
    """Each row that was once another, on a vault of its own."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        await (await open_vault(data, {}, FakeClock(), create=True)).close()
        return await replays.replay(data, every)


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


async def besiege_tables(changes: tables.Changes, every: int = 1) -> Verdict:
    """One kind of change in all tables, on a vault of its own."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        await (await open_vault(data, {}, FakeClock(), create=True)).close()
        async with tables.examined(data) as examined:
            return await examined.suffer(changes, every)


async def outcomes(acts: str = "", every: int = 1) -> AsyncIterator[Outcome]:
    """Every attack in turn, or those whose names hold these letters. In tables and with old rows
    all changes, or one in so many."""
    for name in (name for name in ACTS if acts in name):
        verdict = await besiege(ACTS[name])
        told = f"{verdict.refused:,} refused, {verdict.harmless:,} harmless"
        faults = verdict.faults
        yield Outcome(name, verdict.acts, "changes", len(faults), told, tuple(faults[:5]))
    for name in (name for name in tables.KINDS if acts in name):
        verdict = await besiege_tables(tables.KINDS[name], every)
        faults, told = verdict.faults, f"{verdict.refused:,} named, {verdict.harmless:,} harmless"
        yield Outcome(name, verdict.acts, "changes", len(faults), told, tuple(faults[:5]))
    if acts in OLD_ROWS:
        verdict = await besiege_with_the_past(every)
        faults, told = verdict.faults, f"{verdict.refused:,} named, nothing of them served"
        yield Outcome(OLD_ROWS, verdict.acts, "changes", len(faults), told, tuple(faults[:5]))
