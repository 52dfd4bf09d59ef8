"""Tenants as a whole: what one holds, ending one, and whose stored answers are over."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import groupby
from typing import Final

from sqlalchemy import delete, insert, select, union
from sqlalchemy.ext.asyncio import AsyncConnection

from vault import issued, keyrows, places
from vault.audit import Change
from vault.core import Core
from vault.errors import Declared, NotThere
from vault.held import held
from vault.lookups import Lookups
from vault.names import check_names
from vault.records import Holdings, Purge
from vault.register import words_of
from vault.registering import entry_in
from vault.tables import BACKENDS, KEYS, PURGES, TOKENS

_EVERY: Final = ""


class Tenants:
    """The verbs for tenants."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def list(self) -> list[str]:
        """Every tenant that has a key, a token or a backend, by name."""
        async with self._core.reading() as connection:
            stored = await _stored_tenants(connection)
        return sorted(stored | self._core.declared.tenants())

    async def remove(self, tenant: str) -> None:
        """Ends a tenant: its keys, tokens, backends and answers; raises NotThere, Declared."""
        if tenant in self._core.declared.tenants():
            raise Declared(
                f"tenant {tenant} has keys or backends that the configuration file declares; "
                "take them out there first"
            )
        async with self._core.changing() as change:
            if tenant not in await _stored_tenants(change.connection):
                raise NotThere(
                    f"there is no tenant {tenant!r}; see who there is with: keyrelay tenant list"
                )
            await keyrows.remove_all(change, tenant)
            await issued.remove_all(change, tenant)
            await places.remove_all(change, tenant)
            await _store_purge(change, Purge(change.at, tenant))
            await change.record("tenant remove", tenant, tenant)

    async def holdings(self, tenant: str) -> Holdings:
        """What one tenant holds, the file's share included."""
        seen = self._core.seen
        return seen.holdings.get(tenant) or await self._looked_up(tenant, seen)

    async def _looked_up(self, tenant: str, seen: Lookups) -> Holdings:
        """Once for all who ask meanwhile: of thousands of keys it takes its time."""
        looking = seen.looking.get(tenant)
        if looking is None:
            looking = seen.looking[tenant] = asyncio.create_task(self._look_up(tenant, seen))
            looking.add_done_callback(partial(_end, seen.looking, tenant))
        return await asyncio.shield(looking)

    async def _look_up(self, tenant: str, seen: Lookups) -> Holdings:
        async with self._core.reading() as connection:
            register = await self._core.register(connection)
            refs = await held(connection, tenant, register, self._core.rolls)
            backends = await places.of_tenant(connection, tenant, register)
        keys = {
            service: tuple(some) for service, some in groupby(refs, key=lambda ref: ref.service)
        }
        stored = Holdings(tenant, keys, tuple(backends))
        found = self._core.declared.merge(stored)
        seen.holdings.put(tenant, found)
        return found

    async def purge(self, purge: Purge) -> None:
        """Ends the answers stored up to a time."""
        named = {"tenant": purge.tenant, "service": purge.service}
        check_names(**{what: name for what, name in named.items() if name is not None})
        async with self._core.changing() as change:
            await _store_purge(change, purge)
            subject = purge.service or "every service"
            await change.record("cache purge", purge.tenant or _EVERY, subject)

    async def purges(self) -> tuple[Purge, ...]:
        """The newest purge for each tenant and service."""
        seen = self._core.seen
        if seen.purges is None:
            async with self._core.reading() as connection:
                register = await self._core.register(connection)
                found = [
                    (entry_in(row, PURGES), row)
                    for row in await connection.execute(select(PURGES).order_by(PURGES.c.at))
                ]
            known = [(entry.name, row) for entry, row in found if register.knows(entry)]
            # Of a row that is not as it was written, or gone, nobody knows until when.
            names = {*register.named(PURGES.name), *(entry.name for entry, _ in found)}
            doubtful = sorted(names - {name for name, _ in known})
            now = self._core.clock.now()
            seen.purges = (
                *(Purge(row.at, row.tenant or None, row.service or None) for _, row in known),
                *(Purge(now, *(word or None for word in words_of(name)[1:])) for name in doubtful),
            )
        return seen.purges


def _end(
    looking: dict[str, asyncio.Task[Holdings]], tenant: str, done: asyncio.Task[Holdings]
) -> None:
    del looking[tenant]
    if not done.cancelled():
        done.exception()  # whoever asked may have gone


async def _stored_tenants(connection: AsyncConnection) -> set[str]:
    owners = union(
        select(KEYS.c.tenant).where(KEYS.c.live),
        select(TOKENS.c.tenant),
        select(BACKENDS.c.tenant),
    )
    return set(await connection.scalars(owners))


async def _store_purge(change: Change, purge: Purge) -> None:
    tenant, service = purge.tenant or _EVERY, purge.service or _EVERY
    same = (PURGES.c.tenant == tenant, PURGES.c.service == service)
    before = await change.connection.scalar(select(PURGES.c.at).where(*same))
    at = purge.at if before is None else max(before, purge.at)
    await change.book.write(delete(PURGES).where(*same))
    await change.book.write(insert(PURGES).values(tenant=tenant, service=service, at=at))
