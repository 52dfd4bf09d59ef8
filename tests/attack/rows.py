"""Somebody who can write to the vault's database, without its keys: changes, swaps, replays.

Each act gives what came of it: the vault refused and named the row, or it served what was there
before, which is right only where the change says nothing of the key. Whatever else is a fault.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

from tests.support.clock import FakeClock
from vault import Credential, KeyRef, NewKey, Secret, Vault, VaultError, open_vault

Value = Any
ODD_VALUES: tuple[Value, ...] = (None, "", "x", "\x00", b"", b"\xff", 0, -1, 2**62, 1.5, 1e308)
BOUND = ("tenant", "service", "alias", "version", "sealed")
BOUND_FACTS = ("recognised_by", "masked", "hosts", "fingerprint")
FREE = ("data_key", "created_at", "retired_at")
OF_DATA_KEYS = ("id", "purpose", "master_id", "wrapped")

NEW_KEYS = (
    NewKey("default", "openai", "default", {"key": Secret(b"sk-one-0123456789abcdef")}),
    NewKey("default", "openai", "b", {"key": Secret(b"sk-two-0123456789abcdeg")}),
    NewKey("default", "cohere", "default", {"key": Secret(b"sk-thr-0123456789abcdeh")}),
    NewKey(
        "other",
        "openai",
        "default",
        {"token": Secret(b"sk-fou-0123456789abcdei"), "user": Secret(b"u")},
        "token",
        ("h",),
    ),
)


@dataclass
class Verdict:
    """What came of many acts. `faults`: each act that was neither refused by name nor harmless."""

    refused: int = 0
    harmless: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def acts(self) -> int:
        return self.refused + self.harmless + len(self.faults)

    def __add__(self, other: Verdict) -> Verdict:
        both = (self.refused + other.refused, self.harmless + other.harmless)
        return Verdict(*both, self.faults + other.faults)


class Intruder:
    """The database, behind the vault's back; every change can be taken back."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._database = sqlite3.connect(data / "vault.db", isolation_level=None)
        self._database.execute("PRAGMA synchronous = OFF")  # nobody cuts the power here
        self._database.text_factory = _text

    def run(self, statement: str, *values: Value) -> list[tuple[Value, ...]]:
        return self._database.execute(statement, values).fetchall()

    def columns(self, table: str) -> list[str]:
        return [name for _, name, *_ in self.run(f"PRAGMA table_info({table})")]

    def cell(self, table: str, row: int, column: str) -> Value:
        [(value,)] = self.run(f"SELECT {column} FROM {table} WHERE rowid = ?", row)
        return value

    def put(self, table: str, row: int, column: str, value: Value) -> None:
        self.run(f"UPDATE OR REPLACE {table} SET {column} = ? WHERE rowid = ?", value, row)

    def put_text(self, table: str, row: int, column: str, octets: bytes) -> None:
        statement = f"UPDATE OR REPLACE {table} SET {column} = CAST(? AS TEXT) WHERE rowid = ?"
        self.run(statement, octets, row)

    def numbers(self, table: str) -> list[int]:
        return [number for (number,) in self.run(f"SELECT rowid FROM {table} ORDER BY rowid")]

    def picture(self, *tables: str) -> dict[str, list[tuple[Value, ...]]]:
        return {table: self.run(f"SELECT rowid, * FROM {table}") for table in tables}

    def restore(self, picture: dict[str, list[tuple[Value, ...]]]) -> None:
        self.run("BEGIN")
        for table, rows in picture.items():
            self.run(f"DELETE FROM {table}")
            names = ", ".join(["rowid", *self.columns(table)])
            for row in rows:
                marks = ", ".join("?" * len(row))
                self.run(f"INSERT INTO {table} ({names}) VALUES ({marks})", *row)
        self.run("COMMIT")

    def close(self) -> None:
        self._database.close()


def _text(octets: bytes) -> str:
    """Of what was flipped, too, which may be no text any more."""
    return octets.decode(errors="surrogateescape")


EVERY_BIT = range(8)


def flips(value: Value, bits: Iterable[int]) -> Iterator[bytes]:
    """Each octet with one bit flipped, for each of these bits."""
    octets = value if isinstance(value, bytes) else str(value).encode()
    for place in range(len(octets)):
        for bit in bits:
            changed = bytes([octets[place] ^ 1 << bit])
            yield octets[:place] + changed + octets[place + 1 :]


class Siege:
    """A vault with known keys, and whether it serves or refuses them."""

    def __init__(self, vault: Vault, intruder: Intruder, known: dict[KeyRef, Credential]) -> None:
        self.vault = vault
        self.intruder = intruder
        self.known = known
        self.verdict = Verdict()
        self._before = intruder.picture("key_versions", "data_keys")

    @classmethod
    async def begin(cls, data: Path) -> Siege:
        vault = await open_vault(data, {}, FakeClock())
        known = {(await vault.put_key(new)).ref: new.credential for new in NEW_KEYS}
        return cls(vault, Intruder(data), known)

    async def end(self) -> Verdict:
        self.intruder.close()
        await self.vault.close()
        return self.verdict

    async def judge(self, act: str, *, harmless: bool = False) -> None:
        """Asks a running vault for every key; then all is as it was.

        One key at least must be refused by its name, unless the change says nothing of a key; and
        none may be another than it was.
        """
        self.vault._core.forget()  # as it would after the next change
        said = Counter[str]()
        for ref, credential in self.known.items():
            said[await self._asked(ref, credential)] += 1
        self._count(act, said, harmless)
        self.intruder.restore(self._before)

    async def judge_start(self, act: str, *, harmless: bool = False) -> None:
        """The same for a vault that is opened after the change."""
        try:
            vault = await open_vault(self.intruder.data, {}, FakeClock())
        except VaultError as error:
            word = "refused" if "data key" in str(error) or "master key" in str(error) else ""
            self._count(act, Counter([word or f"unnamed: {error}"]), harmless)
        except Exception as error:
            self._count(act, Counter([f"crash: {error!r}"]), harmless)
        else:
            said = Counter[str]()
            for ref, credential in self.known.items():
                said[await self._asked(ref, credential, vault)] += 1
            self._count(act, said, harmless)
            await vault.close()
        self.intruder.restore(self._before)

    async def _asked(self, ref: KeyRef, credential: Credential, vault: Vault | None = None) -> str:
        try:
            found = await (vault or self.vault).open_key(ref)
        except VaultError as error:
            name = f"key {ref.service}/{ref.alias} of tenant {ref.tenant}"
            named = name in str(error) or f"tenant {ref.tenant} has no key" in str(error)
            return "refused" if named else f"unnamed: {error}"
        except Exception as error:
            return f"crash: {error!r}"
        return "right" if found == credential else "WRONG KEY SERVED"

    def _count(self, act: str, said: Counter[str], harmless: bool) -> None:
        faults = [word for word in said if word not in {"right", "refused"}]
        if faults:
            self.verdict.faults.append(f"{act}: {faults[0]}")
        elif said["refused"]:
            self.verdict.refused += 1
        elif harmless:
            self.verdict.harmless += 1
        else:
            self.verdict.faults.append(f"{act}: nobody noticed")


async def flip_rows(
    siege: Siege, bits: Sequence[int] = EVERY_BIT, every: int = 1, step: int = 1
) -> None:
    """Each octet of each sealed row, and of what its value is bound to."""
    intruder = siege.intruder
    for row in intruder.numbers("key_versions")[::every]:
        for column in (*BOUND, *BOUND_FACTS, "data_key"):
            value = intruder.cell("key_versions", row, column)
            put = intruder.put if isinstance(value, bytes) else intruder.put_text
            for octets in list(flips(value, bits))[::step]:
                put("key_versions", row, column, octets)
                harmless = column in FREE
                await siege.judge(f"flip {column} of row {row}: {octets!r}", harmless=harmless)


async def flip_data_keys(siege: Siege, bits: Sequence[int] = EVERY_BIT, step: int = 1) -> None:
    """Each octet of each wrapped data key, and of what its wrapping is bound to."""
    intruder = siege.intruder
    for row in intruder.numbers("data_keys"):
        for column in OF_DATA_KEYS:
            value = intruder.cell("data_keys", row, column)
            put = intruder.put if isinstance(value, bytes) else intruder.put_text
            for octets in list(flips(value, bits))[::step]:
                put("data_keys", row, column, octets)
                await siege.judge_start(f"flip {column} of data key {row}: {octets!r}")


async def swap_rows(siege: Siege) -> None:
    """All pairs of rows: each column by itself, and all that is bound together."""
    intruder = siege.intruder
    for one, other in permutations(intruder.numbers("key_versions"), 2):
        for column in (*("sealed", *BOUND_FACTS), *FREE):
            mine, theirs = (intruder.cell("key_versions", row, column) for row in (one, other))
            if mine != theirs:
                intruder.put("key_versions", one, column, theirs)
                intruder.put("key_versions", other, column, mine)
                await siege.judge(f"swap {column} of {one} and {other}", harmless=column in FREE)
        for column in ("sealed", *BOUND_FACTS, *FREE):
            value = intruder.cell("key_versions", other, column)
            intruder.put("key_versions", one, column, value)
        await siege.judge(f"row {other} in the place of {one}")


async def swap_names(siege: Siege) -> None:
    """Each row under the name of each other one."""
    intruder = siege.intruder
    for one, other in combinations(intruder.numbers("key_versions"), 2):
        names = ("tenant", "service", "alias")
        first, second = (
            [intruder.cell("key_versions", row, name) for name in names] for row in (one, other)
        )
        intruder.run("UPDATE key_versions SET version = 77 WHERE rowid = ?", one)
        for row, values in ((other, first), (one, second)):
            statement = "UPDATE key_versions SET tenant = ?, service = ?, alias = ? WHERE rowid = ?"
            intruder.run(statement, *values, row)
        intruder.run("UPDATE key_versions SET version = 1 WHERE rowid = ?", one)
        await siege.judge(f"names of {one} and {other} exchanged")


async def swap_columns(siege: Siege, every: int = 1) -> None:
    """All pairs of columns of each row."""
    intruder = siege.intruder
    columns = intruder.columns("key_versions")
    for row in intruder.numbers("key_versions")[::every]:
        for one, other in combinations(columns, 2):
            mine, theirs = (intruder.cell("key_versions", row, name) for name in (one, other))
            with suppress(sqlite3.IntegrityError):  # where the database itself refuses it
                intruder.put("key_versions", row, one, theirs)
                intruder.put("key_versions", row, other, mine)
                harmless = mine == theirs or {one, other} <= set(FREE)
                await siege.judge(f"{one} and {other} of {row} exchanged", harmless=harmless)


async def swap_data_keys(siege: Siege) -> None:
    """All pairs of data keys and of their columns."""
    intruder = siege.intruder
    for one, other in permutations(intruder.numbers("data_keys"), 2):
        value = intruder.cell("data_keys", other, "wrapped")
        intruder.put("data_keys", one, "wrapped", value)
        await siege.judge_start(f"data key {other} in the place of {one}")
    for row in intruder.numbers("data_keys"):
        for first, second in combinations(OF_DATA_KEYS, 2):
            mine, theirs = (intruder.cell("data_keys", row, name) for name in (first, second))
            intruder.put("data_keys", row, first, theirs)
            intruder.put("data_keys", row, second, mine)
            await siege.judge_start(f"{first} and {second} of data key {row} exchanged")


async def put_odd_values(siege: Siege, values: Sequence[Value] = ODD_VALUES) -> None:
    """What no release has written, of any type, in every column: nothing but a named refusal."""
    intruder = siege.intruder
    for table, ask in (("key_versions", siege.judge), ("data_keys", siege.judge_start)):
        row = intruder.numbers(table)[0]
        for column in intruder.columns(table):
            for value in values:
                with suppress(sqlite3.IntegrityError):  # where the database itself refuses it
                    intruder.put(table, row, column, value)
                    await ask(f"{value!r} as {column} of {table} {row}", harmless=True)
