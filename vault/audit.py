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


async def latest(connection: AsyncConnection, limit: int) -> list[AuditEntry]:
    """The newest entries, newest first."""
    columns = (AUDIT.c.at, AUDIT.c.actor, AUDIT.c.action, AUDIT.c.tenant, AUDIT.c.subject)
    found = await connection.execute(select(*columns).order_by(AUDIT.c.id.desc()).limit(limit))
    return [AuditEntry(*row) for row in found]
