"""Somebody who can write to the vault's database, without its keys, and wants the audit log to say
something else: changes, removals, exchanges, cuts, rows of their own, and an end of before.

Each must be found, and the row that is named must be the first one that is wrong.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Final

from tests.attack.outcome import Outcome
from tests.attack.rows import EVERY_BIT, ODD_VALUES, Intruder, Verdict, flips
from tests.support.clock import FakeClock
from vault import AuditEntry, NewToken, RolledBack, Vault, open_vault

COLUMNS: Final = ("at", "actor", "action", "tenant", "subject", "link")
STATE: Final = ("generation", "seal", "audit_rows", "audit_link")


class Forger:
    """A vault with a log, and what its verification says after each act. All is put back then."""

    def __init__(self, vault: Vault, intruder: Intruder) -> None:
        self.vault = vault
        self.intruder = intruder
        self.verdict = Verdict()
        self._before = intruder.picture("audit", "vault_state")

    @classmethod
    async def begin(cls, data: Path, rows: int = 9) -> Forger:
        clock = FakeClock()
        vault = await open_vault(data, {}, clock, create=True)
        for number in range(rows - 5):
            clock.advance(1.5)
            await vault.issue_token(NewToken("default", f"t{number}"))
        for number in range(3):  # the last ones count nothing up
            clock.advance(1.5)
            entry = AuditEntry(clock.now(), "token t0", "destination refused", "b", f"h{number}")
            await vault.note([entry])
        return cls(vault, Intruder(data))

    async def end(self) -> Verdict:
        self.intruder.close()
        await self.vault.close()
        return self.verdict

    @property
    def rows(self) -> list[int]:
        return self.intruder.numbers("audit")

    async def judge(self, act: str, row: int | None) -> None:
        """`row`: the first that must be named; None: the row vault_state."""
        said = await self._said(row)
        if said:
            self.verdict.faults.append(f"{act}: {said}")
        else:
            self.verdict.refused += 1
        self.intruder.restore(self._before)

    async def _said(self, row: int | None) -> str:
        try:
            report = await self.vault.verify_audit()
        except RolledBack as error:
            named = "vault_state" in str(error) or "replaced by an older one" in str(error)
            return "" if row is None and named else f"refused as: {error}"
        except Exception as error:
            return f"crash: {error!r}"
        if not report.faults:
            return "nobody noticed"
        first = report.faults[0]
        return "" if first.row == row else f"row {first.row} {first.what}"

    async def judge_order(self, act: str, one: int, other: int) -> None:
        """The first of two rows in each other's place is named, with where it is."""
        [first, *_] = (await self.vault.verify_audit()).faults
        expected = f"is out of order: what belongs there stands in row {other}"
        if first.what != expected:
            self.verdict.faults.append(f"{act}: row {first.row} {first.what}")
        await self.judge(act, one)


async def flip(forger: Forger, bits: Sequence[int] = EVERY_BIT, step: int = 1) -> None:
    """Each octet of each column of each row."""
    intruder = forger.intruder
    for row in forger.rows:
        for column in COLUMNS:
            value = intruder.cell("audit", row, column)
            put = intruder.put if isinstance(value, bytes) else intruder.put_text
            for octets in list(flips(value, bits))[::step]:
                put("audit", row, column, octets)
                if intruder.cell("audit", row, column) != value:  # `1.0` and `1. ` are one number
                    await forger.judge(f"flip {column} of row {row}: {octets!r}", row)


async def flip_end(forger: Forger, bits: Sequence[int] = EVERY_BIT, step: int = 1) -> None:
    """Each octet of what says where the log ends."""
    intruder = forger.intruder
    for column in STATE:
        value = intruder.cell("vault_state", 1, column)
        put = intruder.put if isinstance(value, bytes) else intruder.put_text
        for octets in list(flips(value, bits))[::step]:
            put("vault_state", 1, column, octets)
            await forger.judge(f"flip {column} of the end: {octets!r}", None)


async def put_odd_values(forger: Forger, values: Sequence[object] = ODD_VALUES) -> None:
    """What no release has written, of any type, in every column of every row."""
    intruder = forger.intruder
    for row in forger.rows:
        for column in COLUMNS:
            for value in values:
                before = intruder.cell("audit", row, column)
                with suppress(sqlite3.IntegrityError):  # where the database itself refuses it
                    intruder.put("audit", row, column, value)
                    if intruder.cell("audit", row, column) != before:
                        await forger.judge(f"{value!r} as {column} of row {row}", row)
    for column in STATE:
        for value in values:
            with suppress(sqlite3.IntegrityError):
                intruder.put("vault_state", 1, column, value)
                await forger.judge(f"{value!r} as {column} of the end", None)


async def remove(forger: Forger) -> None:
    """Each run of rows, down to a single one; then the same with no gap left in the numbers."""
    intruder, rows = forger.intruder, forger.rows
    for first, last in [(row, row) for row in rows] + list(combinations(rows, 2)):
        intruder.run("DELETE FROM audit WHERE id BETWEEN ? AND ?", first, last)
        await forger.judge(f"rows {first} to {last} removed", first)
        intruder.run("DELETE FROM audit WHERE id BETWEEN ? AND ?", first, last)
        shift = last - first + 1
        intruder.run("UPDATE audit SET id = id - ? WHERE id > ?", shift, last)
        await forger.judge(f"rows {first} to {last} removed, and the gap closed", first)


async def swap(forger: Forger) -> None:
    """All pairs of rows: whole, and each column by itself."""
    intruder = forger.intruder
    names = ", ".join(COLUMNS)
    for one, other in combinations(forger.rows, 2):
        for row, place in ((one, -1), (other, one), (-1, other)):
            intruder.run("UPDATE audit SET id = ? WHERE id = ?", place, row)
        await forger.judge_order(f"rows {one} and {other} exchanged", one, other)
        copy = f"UPDATE audit SET ({names}) = (SELECT {names} FROM audit WHERE id = ?) WHERE id = ?"
        intruder.run(copy, other, one)
        await forger.judge(f"row {other} in the place of {one}", one)
        for column in COLUMNS:
            mine, theirs = (intruder.cell("audit", row, column) for row in (one, other))
            if mine != theirs:
                intruder.put("audit", one, column, theirs)
                intruder.put("audit", other, column, mine)
                await forger.judge(f"{column} of rows {one} and {other} exchanged", one)


async def add(forger: Forger) -> None:
    """Rows of their own: before the first, behind the last, as a copy of each."""
    intruder, end = forger.intruder, forger.rows[-1]
    names = ", ".join(COLUMNS)
    copy = f"INSERT INTO audit (id, {names}) SELECT ?, {names} FROM audit WHERE id = ?"
    for row in forger.rows:
        for place in (-(2**63), -1, 0, end + 1, end + 7, 2**63 - 1):
            intruder.run(copy, place, row)
            await forger.judge(f"row {row} once more as row {place}", place)


async def go_back(forger: Forger) -> None:
    """The end and all rows as they were after each change: by itself, and with the rows."""
    intruder, vault = forger.intruder, forger.vault
    for _ in range(4):
        [ended] = intruder.run(f"SELECT {', '.join(STATE)} FROM vault_state")
        last = forger.rows[-1]
        await vault.note([AuditEntry(1.0, "x", "page sign-in", "default", "x")])
        forger._before = intruder.picture("audit", "vault_state")
        put = f"UPDATE vault_state SET ({', '.join(STATE)}) = (?, ?, ?, ?)"
        intruder.run(put, *ended)
        await forger.judge(f"the end of row {last}", None)
        intruder.run("DELETE FROM audit WHERE id > ?", last)
        await forger.judge(f"cut behind row {last}", last + 1)
        intruder.run(put, *ended)
        intruder.run("DELETE FROM audit WHERE id > ?", last)
        await forger.judge(f"rows and end as of row {last}", None)


Act = Callable[[Forger], Awaitable[None]]

ACTS: Final[Mapping[str, Act]] = {
    "each bit of each octet of each row": flip,
    "each bit of each octet of the sealed end": flip_end,
    "values of any type in every column": put_odd_values,
    "each run of rows removed": remove,
    "all pairs of rows, by column and whole": swap,
    "rows of their own": add,
    "an end of before": go_back,
}


async def forge(act: Act, rows: int = 9) -> Verdict:
    """One attack on a vault of its own."""
    with tempfile.TemporaryDirectory() as folder:
        forger = await Forger.begin(Path(folder) / "data", rows)
        try:
            await act(forger)
        finally:
            await forger.end()
        return forger.verdict


async def outcomes(acts: str = "", rows: int = 9) -> AsyncIterator[Outcome]:
    """One for each attack; `acts`: those with this word in their name, or all."""
    for name, act in ACTS.items():
        if acts in name:
            verdict = await forge(act, rows)
            told = f"{verdict.refused} found, and the row named"
            faults = tuple(verdict.faults[:5])
            yield Outcome(
                f"audit log: {name}", verdict.acts, "acts", len(verdict.faults), told, faults
            )
