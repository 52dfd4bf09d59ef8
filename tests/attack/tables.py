"""Every octet of every row of every table that the vault keeps, and all pairs of rows and columns.

The judge is `Vault.examine` of a running vault, which `keyrelay audit rows` prints: each change is
named, whatever it would do to who is served. Harmless is only what the vault reads as it was, such
as a number that is spelled otherwise. `tests/attack/rows.py` asks for keys that are served.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import combinations, islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import select

from tests.attack.replays import ALL, Life
from tests.attack.rows import EVERY_BIT, Intruder, Verdict, flips
from tests.support.clock import FakeClock
from vault import VaultError, open_vault
from vault.tables import METADATA

Cells = tuple[tuple[int, str, Any], ...]
"""What is written: the number of a row, a column, and a value."""


class Change(NamedTuple):
    """Of one table. `text`: the octets are those of a text, whatever they spell."""

    table: str
    name: str
    cells: Cells
    text: bool = False


Rows = list[tuple[Any, ...]]
Changes = Callable[[Intruder, str], Iterator[Change]]


def flipped(intruder: Intruder, table: str) -> Iterator[Change]:
    """Each bit of each octet of each row."""
    for row in intruder.numbers(table):
        for column in intruder.columns(table):
            value = intruder.cell(table, row, column)
            if value is None:
                continue
            for octets in flips(value, EVERY_BIT):
                name = f"flip {column} of row {row}: {octets!r}"
                yield Change(table, name, ((row, column, octets),), not isinstance(value, bytes))


def rows_exchanged(intruder: Intruder, table: str) -> Iterator[Change]:
    """All pairs: each column by itself, and all but what names the rows."""
    for one, other in combinations(intruder.numbers(table), 2):
        cells: Cells = ()
        for column in intruder.columns(table):
            mine, theirs = (intruder.cell(table, row, column) for row in (one, other))
            if mine != theirs:
                swap = ((one, column, theirs), (other, column, mine))
                cells += swap
                yield Change(table, f"{column} of {one} and {other} exchanged", swap)
        yield Change(table, f"row {other} in the place of {one}", cells[::2])


def columns_exchanged(intruder: Intruder, table: str) -> Iterator[Change]:
    """All pairs of each row."""
    for row in intruder.numbers(table):
        for one, other in combinations(intruder.columns(table), 2):
            mine, theirs = (intruder.cell(table, row, column) for column in (one, other))
            if mine != theirs:
                cells = ((row, one, theirs), (row, other, mine))
                yield Change(table, f"{one} and {other} of {row} exchanged", cells)


KINDS: Final[Mapping[str, Changes]] = {
    "each bit of each octet of every table": flipped,
    "all pairs of rows of every table": rows_exchanged,
    "all pairs of columns of every table": columns_exchanged,
}


class Examined:
    """A vault with a past, which is asked after each change what is wrong."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._before = life.intruder.picture(*ALL)
        self._as_read: dict[str, Rows] = {}
        self.verdict = Verdict()

    async def suffer(self, changes: Changes, every: int) -> Verdict:
        """In all tables, or one change in so many of each."""
        for table in ALL:
            self._as_read[table] = await self._read(table)
            for change in islice(list(changes(self._life.intruder, table)), 0, None, every):
                try:
                    self._make(change)
                except sqlite3.IntegrityError:
                    pass  # the database itself refuses it
                else:
                    await self._judge(change)
                self._life.intruder.restore({table: self._before[table]})
        return self.verdict

    def _make(self, change: Change) -> None:
        put = self._life.intruder.put_text if change.text else self._life.intruder.put
        for row, column, value in change.cells:
            put(change.table, row, column, value)

    async def _judge(self, change: Change) -> None:
        self._life.vault._core.forget()  # as it would after the next change
        try:
            word = "" if await self._life.vault.examine() else "nobody noticed"
            if word and await self._read(change.table) == self._as_read[change.table]:
                self.verdict.harmless += 1
                return
        except VaultError as error:
            word = "" if "vault" in str(error) else f"unnamed: {error}"
        except Exception as error:
            word = f"crash: {error!r}"
        self.verdict.refused += not word
        if word:
            self.verdict.faults.append(f"{change.table}, {change.name}: {word}")

    async def _read(self, table: str) -> Rows:
        """As the vault does. A page of the register on which nothing stands is as good as none."""
        async with self._life.vault._core.reading() as connection:
            rows = [tuple(row) for row in await connection.execute(select(METADATA.tables[table]))]
        return sorted((row for row in rows if table != "register" or row[1]), key=repr)


@asynccontextmanager
async def examined(data: Path) -> AsyncIterator[Examined]:
    """On a data directory with a new vault."""
    clock = FakeClock()
    vault = await open_vault(data, {}, clock)
    life = Life(vault, clock, Intruder(data))
    try:
        await life.live()
        yield Examined(life)
    finally:
        life.intruder.close()
        await vault.close()
