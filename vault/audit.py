"""The audit log: who did what to which thing, and when. Append-only, chained, never a value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import BigInteger, ColumnElement, func, insert, literal, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from vault.chain import START, Head, follow, link_in
from vault.errors import RolledBack
from vault.records import AuditEntry, AuditWanted
from vault.registering import Book
from vault.sealing import KeyedHasher
from vault.tables import AUDIT

BEGIN: Final = "audit begin"
"""The action of the row that says which rows before it were taken in as they stood."""

TAKEN_IN: Final = "register begin"
"""The action of the row that says how many rows were taken as they stood, when none was marked."""

ACCEPT: Final = "rollback accept"
"""The action of the row that says that an older database was accepted."""

_OWN: Final = "data-key make"  # the only rows that there are before the first chain
_HIGHEST: Final = 2**62
_ENTRY: Final = (AUDIT.c.at, AUDIT.c.actor, AUDIT.c.action, AUDIT.c.tenant, AUDIT.c.subject)


class Log:
    """The log inside one transaction that holds the others out.

    `hasher` None: the vault is just being made; `head` None: its log is no chain yet.
    """

    __slots__ = ("hasher", "head")

    def __init__(self, hasher: KeyedHasher | None, head: Head | None) -> None:
        self.hasher = hasher
        self.head = head

    async def append(self, connection: AsyncConnection, entry: AuditEntry) -> None:
        """Leaves an entry; raises RolledBack where somebody else has put one in its place."""
        await self.append_all(connection, [entry])

    async def append_all(self, connection: AsyncConnection, entries: Sequence[AuditEntry]) -> None:
        """The same for several."""
        rows = [self._row(entry) for entry in entries]
        try:
            await connection.execute(insert(AUDIT), rows)
        except IntegrityError as error:
            raise RolledBack(
                "somebody who does not have the master key put a row behind the end of the audit "
                "log; look at it with keyrelay audit verify, and go on with: "
                "keyrelay serve --accept-rollback"
            ) from error

    def _row(self, entry: AuditEntry) -> dict[str, object]:
        values: dict[str, object] = {
            "at": entry.at,
            "actor": entry.actor,
            "action": entry.action,
            "tenant": entry.tenant,
            "subject": entry.subject,
        }
        if self.hasher is not None and self.head is not None:
            self.head = follow(self.hasher, self.head, entry)
            values |= {"id": self.head.rows, "link": self.head.link}
        return values


@dataclass(frozen=True, slots=True)
class Change:
    """One transaction that changes something: its connection, its time, and who makes it."""

    connection: AsyncConnection
    at: float
    actor: str
    log: Log
    book: Book

    async def record(self, action: str, tenant: str, subject: str) -> None:
        """Leaves an entry, in the transaction of the change itself."""
        entry = AuditEntry(self.at, self.actor, action, tenant, subject)
        await self.log.append(self.connection, entry)

    async def record_all(self, acts: Iterable[tuple[str, str, str]]) -> None:
        """The same for several: action, tenant and subject of each."""
        entries = [AuditEntry(self.at, self.actor, *act) for act in acts]
        await self.log.append_all(self.connection, entries)

    async def begin(self, hasher: KeyedHasher) -> None:
        """Chains the rows that are there, as they stand, and says so; numbers them without gaps."""
        query = select(*_ENTRY, AUDIT.c.id).order_by(AUDIT.c.id)
        found = [AuditEntry(*row) for row in await self.connection.execute(query)]
        head = START
        for entry in found:
            head = follow(hasher, head, entry)
            mine = update(AUDIT).where(AUDIT.c.id == entry.number)
            await self.connection.execute(mine.values(id=head.rows, link=head.link))
        self.log.hasher, self.log.head = hasher, head
        if any(entry.action != _OWN for entry in found):
            await self.record(BEGIN, "", f"{head.rows} earlier rows")


async def end_of(connection: AsyncConnection, sealed: Head | None) -> Head | None:
    """Where the log of an accepted database goes on: behind every row that is there.

    `sealed`: the end that it was sealed with, if that is authentic. None: it is no chain.
    """
    query = select(AUDIT.c.id, AUDIT.c.link).where(AUDIT.c.id < literal(_HIGHEST, BigInteger))
    last = (await connection.execute(query.order_by(AUDIT.c.id.desc()).limit(1))).first()
    if last is None or (sealed is not None and last.id <= sealed.rows):
        return sealed
    linked = select(func.count()).where(AUDIT.c.link.is_not(None))
    if sealed is None and not await connection.scalar(linked):
        return None
    return Head(last.id, link_in(last.link))


async def latest(connection: AsyncConnection, limit: int, wanted: AuditWanted) -> list[AuditEntry]:
    """The newest entries that are wanted, newest first."""
    query = select(*_ENTRY, AUDIT.c.id).where(*_conditions(wanted))
    found = await connection.execute(query.order_by(AUDIT.c.id.desc()).limit(limit))
    return [AuditEntry(*row) for row in found]


def _conditions(wanted: AuditWanted) -> list[ColumnElement[bool]]:
    """`action`: by its first words, so that `key` stands for every act on a key."""
    tenant, before = wanted.get("tenant"), wanted.get("before")
    since, action = wanted.get("since"), wanted.get("action")
    actor = wanted.get("actor")
    a, found = AUDIT.c, list[ColumnElement[bool]]()
    if tenant is not None:
        found.append(a.tenant == tenant)
    if before is not None:
        found.append(a.id < before)
    if since is not None:
        found.append(a.at >= since)
    if actor is not None:
        found.append(a.actor == actor)
    if action is not None:
        found.append((a.action == action) | a.action.startswith(f"{action} ", autoescape=True))
    return found
