"""The register in the database: read in the snapshot that asks, written with what it is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Delete, Insert, Row, Table, Update, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from vault.errors import Unopenable
from vault.register import (
    EMPTY,
    PAGES,
    TABLES,
    Entry,
    Register,
    entry_of,
    mark_of_page,
    marks_in,
    page_in,
    words_of,
)
from vault.tables import DATA_KEYS, METADATA, REGISTER

_FEW: Final = 32
_KINDS: Final = {
    "keys": "key {2}/{3} of tenant {1}",
    "key_versions": "key {2}/{3} of tenant {1}, version {4},",
    "tokens": "token {2} of tenant {1}",
    "backends": "backend number {2} of tenant {1}",
    "purges": "purge of {2!r} of tenant {1!r}",
    "data_keys": "data key {2} ({1})",
}


def described(name: str) -> str:
    """A row by its name, for a message."""
    words = words_of(name)
    return _KINDS[words[0]].format(*words)


def refused(name: str) -> Unopenable:
    """What to raise for a row that is not as it was written."""
    return Unopenable(
        f"{described(name)} was changed, put back or taken out by somebody who does not have the "
        "master key; remove it and make it anew, or restore the database from a backup"
    )


def entry_in(row: Row[Any], table: Table) -> Entry:
    """The entry of a row that was read with all its columns."""
    return entry_of(table.name, row._mapping)  # type: ignore[arg-type]


class Book:
    """What one transaction writes into the tables of the register.

    `register`: as it was before; None for a vault that is just being made and has none yet.
    """

    __slots__ = ("_connection", "_rows", "register")

    def __init__(self, connection: AsyncConnection, register: Register | None) -> None:
        self._connection = connection
        self.register = register
        self._rows: dict[str, bytes | None] = {}

    async def write(self, statement: Insert | Update | Delete, *, judged: bool = False) -> None:
        """Carries it out. A row that stays must have been as it should be, or Unopenable is raised.

        `judged`: somebody has looked already, or the row is to be good from now on as it will be.
        """
        table = statement.table
        assert isinstance(table, Table)  # noqa: S101 - for the types: nothing else is written to
        if isinstance(statement, Update) and not judged:
            where = select(table).where(statement.whereclause)  # type: ignore[arg-type]
            for row in await self._connection.execute(where):
                self._require(entry_in(row, table))
        gone = isinstance(statement, Delete)
        for row in await self._connection.execute(statement.returning(*table.c)):
            name, mark = entry_in(row, table)
            self._rows[name] = None if gone else mark

    async def insert(self, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
        """New rows of one table, each with the same columns."""
        for row in await self._connection.execute(insert(table).returning(*table.c), rows):
            name, mark = entry_in(row, table)
            self._rows[name] = mark

    def _require(self, entry: Entry) -> None:
        if entry.name in self._rows:
            sound = self._rows[entry.name] == entry.mark
        else:
            sound = self.register is None or self.register.knows(entry)
        if not sound:
            raise refused(entry.name)

    async def take_in(self) -> int:
        """Begins anew with every row as it stands; how many there are, but for data keys."""
        self._rows, known = {}, 0
        for table in _TABLES:
            for row in await self._connection.execute(select(table)):
                name, mark = entry_in(row, table)
                self._rows[name] = mark
                known += table is not DATA_KEYS
        await self._connection.execute(delete(REGISTER))
        self.register = EMPTY
        return known

    async def close(self) -> Register | None:
        """Writes the pages that are different now; None where there is no register yet."""
        if self.register is None or not self._rows:
            return self.register
        self.register, pages = self.register.with_rows(self._rows)
        mine = delete(REGISTER).where(REGISTER.c.page.in_(pages))
        await self._connection.execute(mine)
        found = [{"page": number, "entries": octets} for number, octets in pages.items()]
        await self._connection.execute(insert(REGISTER), found)
        return self.register


async def held_rows(connection: AsyncConnection) -> bool:
    """Whether there is any row that the register keeps, but for data keys."""
    for table in _TABLES:
        if table is not DATA_KEYS and (await connection.execute(select(table).limit(1))).first():
            return True
    return False


async def read(connection: AsyncConnection, root: bytes, held: Register | None) -> Register:
    """The register of this root; of `held` what has stayed the same."""
    marks = marks_in(root)
    stale = [at for at in range(PAGES) if held is None or held.marks[at] != marks[at]]
    query = select(REGISTER.c.page, REGISTER.c.entries)
    if len(stale) <= _FEW:
        query = query.where(REGISTER.c.page.in_(stale))
    found = {row.page: row.entries for row in await connection.execute(query)}
    pages = list((held or EMPTY).pages)
    for number in stale:
        octets = found.get(number, b"")
        sound = isinstance(octets, bytes) and mark_of_page(number, octets) == marks[number]
        pages[number] = page_in(octets) if sound else None
    return Register(marks, tuple(pages))


async def faults(connection: AsyncConnection, register: Register) -> list[str]:
    """Every row that is not as it was written, that should not be there, or is gone."""
    there: set[str] = set()
    odd: list[str] = []
    for table in _TABLES:
        for row in await connection.execute(select(table)):
            entry = entry_in(row, table)
            there.add(entry.name)
            if not register.knows(entry):
                odd.append(entry.name)
    gone = [name for table in TABLES for name in register.named(table) if name not in there]
    pages = [f"page {at} of the register" for at, page in enumerate(register.pages) if page is None]
    return [*pages, *_said(odd, "is not as it was written last"), *_said(gone, "is missing")]


def _said(names: Iterable[str], what: str) -> list[str]:
    return [f"{described(name).rstrip(',')} {what}" for name in sorted(names)]


_TABLES: Final = [METADATA.tables[name] for name in TABLES]
