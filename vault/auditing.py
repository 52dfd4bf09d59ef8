"""The verb of `audit verify`: is each row of the audit log as it was written, and none gone?

Read in parts, so that nobody who writes waits for it; rows that come meanwhile are not looked at.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final, NamedTuple

from sqlalchemy import func, select, text

from vault.audit import ACCEPT, BEGIN
from vault.chain import START, Head, State, link_in, link_of
from vault.core import Core
from vault.records import AuditEntry, AuditFault, AuditReport
from vault.sealing import KeyedHasher
from vault.store import state_in
from vault.tables import AUDIT

_AT_ONCE: Final = 1000
_MOST_FAULTS: Final = 20
_NOBODYS: Final = "was put there by somebody else"
# As the driver gives it: what was put there may be of any type.
_ROWS: Final = text(
    "SELECT id, at, actor, action, tenant, subject, link FROM audit "
    "WHERE id > :after AND id <= :last ORDER BY id LIMIT :most"
)


class _Found(NamedTuple):
    """A row as it stands."""

    entry: AuditEntry
    link: object

    def fits(self, hasher: KeyedHasher, before: bytes, number: int) -> bool:
        """Whether it was written as the row of this number behind one with that link."""
        return bool(self.link) and self.link == link_of(hasher, before, number, self.entry)


class Auditing:
    """The verb `verify_audit`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def verify(self) -> AuditReport:
        """Reads the whole log; raises RolledBack where its sealed end is not the newest of ours."""
        hasher = await self._core.generation_hasher()
        state, odd = await self._ends(hasher)
        sealed = state.head or START
        walk = _Walk(hasher, sealed)
        async for found in self._rows(sealed.rows):
            walk.take(found)
            if len(walk.faults) >= _MOST_FAULTS:
                break
        else:
            walk.end()
        faults = [*odd, *[await self._named(walk, fault) for fault in walk.faults]]
        in_order = tuple(sorted(faults, key=lambda fault: fault.row))
        return AuditReport(sealed.rows, walk.since, in_order, tuple(walk.notable))

    async def _ends(self, hasher: KeyedHasher) -> tuple[State, list[AuditFault]]:
        """The sealed end, and rows that stand before the first or behind the last."""
        async with self._core.reading() as connection:
            state = await state_in(connection)
            self._core.judge(hasher, state)
            ends = select(func.min(AUDIT.c.id), func.max(AUDIT.c.id))
            first, last = (await connection.execute(ends)).one()
        odd = [first] if first is not None and first <= START.rows else []
        if state.head is not None and last is not None and last > state.head.rows:
            odd.append(last)
        return state, [AuditFault(number, _NOBODYS) for number in odd]

    async def _rows(self, last: int) -> AsyncIterator[_Found]:
        after = START.rows
        while after < last:
            asked = {"after": after, "last": last, "most": _AT_ONCE}
            async with self._core.reading() as connection:
                found = (await connection.execute(_ROWS, asked)).all()
            for number, at, actor, action, tenant, subject, link in found:
                yield _Found(AuditEntry(at, actor, action, tenant, subject, number), link)
            after = found[-1].id if found else last

    async def _named(self, walk: _Walk, fault: AuditFault) -> AuditFault:
        """Says of a row that does not fit where the one stands that does, if it is there."""
        for before in walk.before.get(fault.row, ()):
            async for found in self._rows(walk.sealed.rows):
                if found.fits(walk.hasher, before, fault.row):
                    where = f"what belongs there stands in row {found.entry.number}"
                    return replace(fault, what=f"is out of order: {where}")
        return fault


class _Walk:
    """From the first row to the sealed end. `before`: the links before each row that is wrong."""

    def __init__(self, hasher: KeyedHasher, sealed: Head) -> None:
        self.hasher = hasher
        self.sealed = sealed
        self.since: float | None = None
        self.faults: list[AuditFault] = []
        self.notable: list[AuditEntry] = []
        self.before: dict[int, tuple[bytes, ...]] = {}
        self._number = START.rows
        self._links: tuple[bytes, ...] = (START.link,)  # none: rows before are missing

    def take(self, found: _Found) -> None:
        """One more row."""
        entry = found.entry
        self._miss(entry.number - 1)
        self._number = entry.number
        if self.since is None and isinstance(entry.at, float):
            self.since = entry.at
        if self._links and not any(self._fits(found, link) for link in self._links):
            self._refuse(found)
            return
        self._links = (link_in(found.link),)
        if entry.action in (ACCEPT, BEGIN):
            self.notable.append(entry)

    def end(self) -> None:
        """There are no more rows."""
        self._miss(self.sealed.rows)
        if not self.faults and self.sealed.link not in self._links:
            self._wrong(self._number, "is not the one that was written last")

    def _fits(self, found: _Found, before: bytes) -> bool:
        return found.fits(self.hasher, before, found.entry.number)

    def _refuse(self, found: _Found) -> None:
        """The next row may follow what the link says, or what the contents say."""
        number = found.entry.number
        self.before[number] = self._links
        made = (link_of(self.hasher, link, number, found.entry) for link in self._links)
        self._links = (link_in(found.link), *made)
        self._wrong(number, "was changed")

    def _miss(self, last: int) -> None:
        """The rows up to this one are not there."""
        first = self._number + 1
        if first > last:
            return
        self._number, self._links = last, ()
        what = "is missing" if first == last else f"to row {last} are missing"
        self._wrong(first, what + (": the end was cut off" if last == self.sealed.rows else ""))

    def _wrong(self, number: int, what: str) -> None:
        self.faults.append(AuditFault(number, what))
