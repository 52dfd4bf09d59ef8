"""Which keys a tenant holds, judged by the register: of many only those that have changed since.

A roll is what many keys were found to be when all were as they were written, and what the register
said of each. The register is authentic: as long as it says the same of a row, that is what the row
was written as, whatever stands there now; whoever opens the key reads and judges it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, Select
from sqlalchemy.ext.asyncio import AsyncConnection

from vault import keyrows
from vault.keyrows import Name, StoredKey
from vault.lookups import Bounded
from vault.records import KeyRef
from vault.register import PAGES, Register, entry_of, words_of
from vault.tables import KEY_VERSIONS, KEYS

_FEW: Final = 256
"""Rows that are judged at once: some 20 ms, in which nobody else is answered."""

Share = Mapping[str, bytes]
"""What one page says of a tenant's keys: their rows' names and marks."""


@dataclass(frozen=True, slots=True)
class Roll:
    """A tenant's keys, all of them sound. `marks`: of the register by which; `shares`: its pages'.

    `keys`: how they were numbered when they were added, beside what is known of each.
    """

    marks: tuple[bytes, ...]
    shares: tuple[Share, ...]
    keys: Mapping[Name, tuple[int, KeyRef]]
    refs: tuple[KeyRef, ...]


async def held(
    connection: AsyncConnection, tenant: str, register: Register, rolls: Bounded[str, Roll]
) -> Sequence[KeyRef]:
    """A tenant's keys by service, the one to prefer first.

    One whose rows are not as they were written, or gone, stands in front of all but a sound
    default: opening it says so, and no other key is taken in its place. Many are judged in a
    thread: whoever asks about others goes on meanwhile.
    """
    roll = rolls.get(tenant)
    if roll is not None:
        roll = await _followed(connection, tenant, register, roll)
    if roll is None:
        refs, roll = await _judged(connection, tenant, register)
        if roll is None:
            return refs
    rolls.put(tenant, roll)
    return roll.refs


# what has changed ----------------------------------------------------------------------------


async def _followed(
    connection: AsyncConnection, tenant: str, register: Register, roll: Roll
) -> Roll | None:
    """The roll by this register; None: not all is as it was written, or too much is new."""
    shares, changed = list(roll.shares), set[str]()
    for number, mark in enumerate(register.marks):
        if mark != roll.marks[number]:
            share = _share(register, number, tenant)
            if share is None:
                return None
            changed.update(name for name, _ in share.items() ^ shares[number].items())
            shares[number] = share
    if not changed:
        return Roll(register.marks, tuple(shares), roll.keys, roll.refs)
    if len(changed) > _FEW:
        return None
    keys = await _read_again(connection, register, roll.keys, changed)
    return None if keys is None else _roll(register, shares, keys)


async def _read_again(
    connection: AsyncConnection,
    register: Register,
    keys: Mapping[Name, tuple[int, KeyRef]],
    changed: Iterable[str],
) -> Mapping[Name, tuple[int, KeyRef]] | None:
    """With what is there now of rows that have changed; None where one is not as it should be."""
    asked = {(words[1], words[2], words[3]) for words in map(words_of, changed)}
    now = {name: key for name, key in keys.items() if name not in asked}
    async for row in keyrows.current_of(connection, sorted(asked)):
        if not _is_whole(row, register):
            return None
        now[row.name] = (row.added, row.ref)
    missing = sorted(asked - now.keys())
    return now if await _were_removed(connection, missing, register) else None


async def _were_removed(
    connection: AsyncConnection, names: Sequence[Name], register: Register
) -> bool:
    """Whether all of them were keys once, by rows that are as they were written."""
    removed = 0
    for some in keyrows.in_parts(names):
        found = await connection.execute(keyrows.resting().where(keyrows.among(some)))
        removed += sum(_was_removed(row, register) for row in found)
    return removed == len(names)


def _was_removed(row: Row[Any], register: Register) -> bool:
    return not row.live and register.knows(entry_of(KEYS.name, dict(row._mapping)))


# all of it -----------------------------------------------------------------------------------


async def _judged(
    connection: AsyncConnection, tenant: str, register: Register
) -> tuple[Sequence[KeyRef], Roll | None]:
    current = await _all(connection, keyrows.in_order(tenant))
    rest = await _all(connection, keyrows.resting().where(KEYS.c.tenant == tenant))
    if len(current) + len(rest) <= _FEW:
        return _ranked(tenant, register, current, rest)[0], None
    return await asyncio.to_thread(_ranked, tenant, register, current, rest)


async def _all(connection: AsyncConnection, query: Select[Any]) -> Sequence[Row[Any]]:
    rows = list[Row[Any]]()
    for some in (await connection.execute(query)).partitions(_FEW):
        rows += some
        await asyncio.sleep(0)  # others go on between them
    return rows


def _ranked(
    tenant: str, register: Register, current: Sequence[Row[Any]], rest: Sequence[Row[Any]]
) -> tuple[Sequence[KeyRef], Roll | None]:
    """The keys in their order, and the roll if all are sound and many."""
    rows = [keyrows.stored(row) for row in current]
    ranked = [(2 - 2 * row.ref.default if row.known_to(register) else 1, row.ref) for row in rows]
    names = {(row.ref.service, row.ref.alias) for row in rows}
    names |= {(row.service, row.alias) for row in rest if _was_removed(row, register)}
    there = {(words[2], words[3]) for words in map(words_of, register.named(KEYS.name, tenant))}
    missing = sorted(there - names)
    ranked += [(1, KeyRef(tenant, service, alias, 0)) for service, alias in missing]
    refs = [ref for _, ref in sorted(ranked, key=lambda pair: (pair[1].service, pair[0]))]
    sound = len(rows) > _FEW and not missing and all(_is_whole(row, register) for row in rows)
    return refs, _enrolled(tenant, register, rows) if sound else None


def _enrolled(tenant: str, register: Register, rows: Iterable[StoredKey]) -> Roll | None:
    shares = [_share(register, number, tenant) for number in range(PAGES)]
    readable = [share for share in shares if share is not None]
    if len(readable) < PAGES:
        return None
    return _roll(register, readable, {row.name: (row.added, row.ref) for row in rows})


def _roll(
    register: Register, shares: Sequence[Share], keys: Mapping[Name, tuple[int, KeyRef]]
) -> Roll:
    ordered = sorted(keys.values(), key=lambda key: (key[1].service, not key[1].default, key[0]))
    return Roll(register.marks, tuple(shares), keys, tuple(ref for _, ref in ordered))


def _is_whole(row: StoredKey, register: Register) -> bool:
    """Whether both of its rows are there, and as they were written."""
    return len(row.entries) == len((KEYS, KEY_VERSIONS)) and row.known_to(register)


def _share(register: Register, number: int, tenant: str) -> Share | None:
    """None: the page is not as it was written."""
    page = register.pages[number]
    if page is None:
        return None
    return {
        name: page[name]
        for table in (KEYS, KEY_VERSIONS)
        for name in page.names(table.name, tenant)
    }
