"""The audit log: who did what to which thing, and when. Append-only, never a value."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from vault.records import AuditEntry
from vault.tables import AUDIT


@dataclass(frozen=True, slots=True)
class Change:
    """One transaction that changes something: its connection, its time, and who makes it."""

    connection: AsyncConnection
    at: float
    actor: str

    async def record(self, action: str, tenant: str, subject: str) -> None:
        """Leaves an entry, in the transaction of the change itself."""
        entry = {"at": self.at, "actor": self.actor, "action": action}
        await self.connection.execute(insert(AUDIT).values(**entry, tenant=tenant, subject=subject))


async def latest(
    connection: AsyncConnection, limit: int, tenant: str | None = None, before: int | None = None
) -> list[AuditEntry]:
    """The newest entries, newest first: of one tenant or of all, numbered below `before`."""
    a = AUDIT.c
    query = select(a.at, a.actor, a.action, a.tenant, a.subject, a.id)
    if tenant is not None:
        query = query.where(a.tenant == tenant)
    if before is not None:
        query = query.where(a.id < before)
    found = await connection.execute(query.order_by(a.id.desc()).limit(limit))
    return [AuditEntry(*row) for row in found]
