"""What each tenant has in Redis: the quota, the sums, and where to find what a purge covers."""

from __future__ import annotations

import asyncio
from typing import Final

from proxy.cache.entry import CacheStats, Entry, Holding
from proxy.cache.scripts import DROP, EXPIRE, HOLDS, REGISTER
from proxy.cache.shelf import Label, Member, member, tag_of
from proxy.cache.shelves import Shelves
from vault import Purge

REGISTER_MS: Final = 86_400_000
"""How long a register outlives the last answer in it."""

AT_ONCE: Final = 64
"""Answers that are taken off their shelves together: no look-up waits behind more."""

BATCH: Final = 500
"""Members of a register that are looked at in one go."""

SAMPLE: Final = 32
"""Members of a register that are looked for at each sweep: Redis may have evicted them."""

SETTLE_SECONDS: Final = 5.0
"""After so long a purge looks once more: for what other processes were about to write."""


class Registers:
    """A register for each tenant, and a list of the tenants. `quota`: octets of one tenant."""

    def __init__(self, shelves: Shelves, quota: int) -> None:
        self._on = shelves
        self._quota = quota
        self._tenants: set[str] = set()  # those that are known to be in the list of tenants
        self._evicted = 0

    def _names(self, tenant: str) -> tuple[str, str]:
        name = self._on.name("cache-of", tenant)
        return f"{name}:ends", f"{name}:sums"

    @property
    def _list(self) -> str:
        return self._on.name("cache-of", "", "tenants")

    async def add(self, entry: Entry, label: Label, gone: list[str]) -> None:
        """Takes an answer in, and those out that it replaced or that have to make room."""
        tag, service = tag_of(entry.key), entry.service
        await self._enlist(entry.tenant)
        own = member(tag, f"{label.number:x} {label.cost} {label.asked}", service)
        values = (own, entry.expires_at, self._quota, REGISTER_MS)
        went = [member(tag, told, service) for told in gone]
        names = self._names(entry.tenant)
        victims = await self._on.run(REGISTER, names, *values, *went)
        for victim in map(Member.read, victims):
            self._evicted += 1
            await self._on.remove(self._on.shelf(victim.tag), [victim.number])

    async def _enlist(self, tenant: str) -> None:
        if tenant not in self._tenants:
            await self._on.ask("sadd", self._list, tenant)
            self._tenants.add(tenant)

    async def purge(self, purge: Purge) -> None:
        """Removes what it covers, once for all processes: one that starts later need not. Raises
        StoreError: nobody answers with it all the same, and its time ends by itself."""
        reach = f"{purge.tenant or '*'}:{purge.service or '*'}"
        mark = self._on.name("cache-of", "", "purged", reach)
        done = await self._on.ask("get", mark)
        if done is not None and float(done) >= purge.at:
            return
        for wait in (SETTLE_SECONDS, 0.0):
            for tenant in await self._all_tenants():
                if purge.tenant in (None, tenant):
                    await self._purge_of(tenant, purge)
            await asyncio.sleep(wait)
        await self._on.ask("set", mark, purge.at, px=30 * REGISTER_MS)

    async def _purge_of(self, tenant: str, purge: Purge) -> None:
        names, cursor = self._names(tenant), 0
        while True:
            cursor, page = await self._on.ask("zscan", names[0], cursor, count=BATCH)
            members = [Member.read(text) for text, _score in page]
            await self._drop(names, [one for one in members if self._covers(purge, one)])
            if not cursor:
                return

    def _covers(self, purge: Purge, one: Member) -> bool:
        """Also what a clock that ran ahead says is still to come."""
        if purge.service not in (None, one.service):
            return False
        return not purge.at < one.asked <= self._on.clock.now()

    async def _drop(self, names: tuple[str, str], members: list[Member]) -> None:
        for start in range(0, len(members), AT_ONCE):
            some = members[start : start + AT_ONCE]
            going = (self._on.remove(self._on.shelf(one.tag), [one.number]) for one in some)
            await asyncio.gather(*going)
            await self._on.run(DROP, names, *(one.text for one in some))

    async def sweep(self, now: float) -> None:
        """Takes out of the registers what is over, and some of what Redis has evicted."""
        self._tenants.clear()
        for tenant in await self._all_tenants():
            names, over = self._names(tenant), BATCH
            while over == BATCH:
                over = await self._on.run(EXPIRE, names, now, BATCH)
            await self._drop(names, await self._missing(names))

    async def _missing(self, names: tuple[str, str]) -> list[Member]:
        """Of some members, those that are on no shelf: evicted, or replaced by two at once."""
        texts = await self._on.ask("zrandmember", names[0], SAMPLE)
        found = []
        for one in map(Member.read, texts):
            if not await self._on.run(HOLDS, (self._on.shelf(one.tag),), one.number):
                found.append(one)
        return found

    async def _all_tenants(self) -> list[str]:
        return sorted(one.decode() for one in await self._on.ask("smembers", self._list))

    async def stats(self) -> CacheStats:
        """How much is stored, by the registers."""
        holdings: dict[tuple[str, str], Holding] = {}
        for tenant in await self._all_tenants():
            sums = await self._on.all_of(self._names(tenant)[1])
            for field, entries in sums.items():
                service = field[2:]
                if field.startswith(b"n:") and int(entries) > 0:
                    octets = int(sums.get(b"o:" + service, 0))
                    holdings[tenant, service.decode()] = Holding(int(entries), octets)
        return CacheStats(holdings, self._evicted)
