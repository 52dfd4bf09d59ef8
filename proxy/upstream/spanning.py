"""Slots whose bounds hold over several instances. The queues stay here, and fair: whose turn it is
here asks for all, and waits in front while others have what he needs.

While Redis is gone this instance has its share of each bound, and nobody is asked.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from math import ceil, inf
from typing import Final

from proxy.engine import Gone
from proxy.upstream.leases import Leases, Scope
from proxy.upstream.slots import Queue, Service, Slot, SlotLimits, Slots, Tenant

POLL_SECONDS: Final = 0.02
"""How often somebody asks again who waits for what another instance holds."""


class SpanningSlots(Slots):
    """Bounds that the admin named span instances; `instances` tells how many there are."""

    def __init__(self, limits: SlotLimits, leases: Leases, instances: Callable[[], int]) -> None:
        super().__init__(limits)
        self._whole = limits
        self._leases = leases
        self._instances = instances
        self._alone = False
        self._full: set[str] = set()
        self._asking: Counter[Slot] = Counter()
        self._spans = _spans(limits)
        self._of_slots: dict[Slot, tuple[Scope, ...]] = {}
        self._news = asyncio.Event()
        self._handing: asyncio.Task[None] | None = None
        self._stopping = False
        leases.when_changed(self._settle)

    async def start(self) -> None:
        """From now on calls may wait."""
        await self._leases.start()
        self._handing = asyncio.create_task(self._hand_out(), name="keyrelay-slots")

    async def stop(self) -> None:
        """Holds nothing any more."""
        self._stopping = True
        self._news.set()
        if self._handing is not None:
            await self._handing
        await self._leases.stop()

    def take(self, tenant: str, service: str) -> Slot | None:
        """A slot, where no other instance is to be asked for it."""
        if not self._spans:
            return super().take(tenant, service)
        slot = self._slot(tenant, service)
        scopes = self._scopes(slot)
        if scopes and not self._alone:
            return None
        taken = super().take(tenant, service)
        if taken is not None and scopes:
            self._leases.note(scopes)
        return taken

    async def wait(self, tenant: str, service: str) -> Slot:
        """A slot, as soon as all agree; as in one process."""
        slot = self._slot(tenant, service)
        scopes = self._scopes(slot)
        if scopes and self._is_next(slot, scopes) and await self._try(slot, scopes):
            return slot
        if self._alone and (taken := self.take(tenant, service)) is not None:
            return taken  # it has become alone while it asked
        return await super().wait(tenant, service)

    def release(self, slot: Slot) -> None:
        """Give a slot back, once."""
        if self._spans:
            scopes = self._scopes(slot)
            if scopes:
                self._leases.give_back(scopes)
        super().release(slot)

    def become(self, limits: SlotLimits) -> None:
        """Other limits from now on; what is held counts in the scopes that they have."""
        before = self._loads()
        self._whole, self._spans, self._of_slots = limits, _spans(limits), {}
        held, loads = self._leases.held, self._loads()
        for name in before.keys() - loads.keys():
            del held[name]
        for name in loads.keys() - before.keys():
            held[name] = loads[name]
        super().become(self._share() if self._alone else limits)

    # With the others, or alone.

    def _settle(self) -> None:
        """Whether Redis is there decides by which limits it goes."""
        if self._alone == self._leases.up:
            self._alone = not self._leases.up
            super().become(self._share() if self._alone else self._whole)
            self._news.set()

    def _share(self) -> SlotLimits:
        """This instance's of what spans them all, at least one of each."""
        many, whole = self._instances(), self._whole
        total = ceil(whole.total / many) if whole.spans_total else whole.total
        return replace(
            whole,
            total=total,
            per_tenant=_part(whole.per_tenant, many),
            per_service=_part(whole.per_service, many),
            tenants={name: _part(count, many) for name, count in whole.tenants.items()},
            services={name: _part(count, many) for name, count in whole.services.items()},
        )

    def _scopes(self, slot: Slot) -> tuple[Scope, ...]:
        """What spans instances of what a call takes; by the whole limits, also when alone."""
        known = self._of_slots.get(slot)
        if known is None:
            tenant, service = slot
            bounds = self._total(), self._of_tenant(tenant), self._of_service(service)
            known = self._of_slots[slot] = tuple([one for one in bounds if one[1] != inf])
        return known

    def _total(self) -> Scope:
        return "all", self._whole.total if self._whole.spans_total else inf

    def _of_tenant(self, tenant: Tenant) -> Scope:
        whole = self._whole
        return f"tenant/{tenant.name}", whole.tenants.get(tenant.name, whole.per_tenant)

    def _of_service(self, service: Service) -> Scope:
        whole = self._whole
        return f"service/{service.name}", whole.services.get(service.name, whole.per_service)

    def _loads(self) -> Counter[str]:
        """The scopes that there are, and the calls in each that go already."""
        scopes = [(self._total(), self.in_flight)]
        scopes += [(self._of_tenant(one), one.in_flight) for one in self._tenants.values()]
        scopes += [(self._of_service(one), one.in_flight) for one in self._services.values()]
        loads = Counter({name: load for (name, bound), load in scopes if bound != inf})
        for slot, count in self._asking.items():
            loads.subtract({name: count for name, _ in self._scopes(slot)})
        return loads

    def _slot(self, tenant: str, service: str) -> Slot:
        return Slot(
            self._tenants.get(tenant) or self._tenant(tenant),
            self._services.get(service) or self._service(service),
        )

    # Asking.

    def _is_next(self, slot: Slot, scopes: tuple[Scope, ...]) -> bool:
        """Whether there may be room, and nobody here waits for the same."""
        if self._alone or self.in_flight >= self._limits.total or not super()._fits(*slot):
            return False
        if not self.waiting:
            return True
        others = bool(self._full) and self._full.isdisjoint(name for name, _ in scopes)
        return others and slot.service not in slot.tenant.queues

    async def _try(self, slot: Slot, scopes: tuple[Scope, ...]) -> bool:
        """Asks at once, and holds the slot here if it is granted."""
        full = await self._ask(slot, scopes, waits=False)
        if not full:
            self._hold(slot)
        return not full

    async def _ask(self, slot: Slot, scopes: tuple[Scope, ...], *, waits: bool) -> str:
        """The scope that is full, or nothing. The slot is held here meanwhile, so that nobody here
        takes it too."""
        turn = slot.tenant.turn
        self._hold(slot)
        self._asking[slot] += 1
        try:
            return await self._leases.take(scopes, waits)
        except Gone:  # and this instance is alone now
            return scopes[0][0]
        finally:
            self._asking[slot] -= 1
            self._let_go(slot, turn)

    def _let_go(self, slot: Slot, turn: int) -> None:
        self.in_flight -= 1
        slot.tenant.in_flight -= 1
        slot.tenant.turn = turn
        slot.service.in_flight -= 1

    # The queues.

    def _fits(self, tenant: Tenant, service: Service) -> bool:
        if not super()._fits(tenant, service):
            return False
        if self._alone or not self._full:
            return True
        return not any(name in self._full for name, _ in self._scopes(Slot(tenant, service)))

    def _serve(self) -> None:
        if self._alone:
            super()._serve()
        else:
            self._news.set()

    def _give(self, queue: Queue) -> None:
        before = self.in_flight
        super()._give(queue)
        if self._alone and self.in_flight > before:
            self._leases.note(self._scopes(queue.slot))

    def _join(self, slot: Slot) -> tuple[Queue, asyncio.Future[None]]:
        joined = super()._join(slot)
        self._serve()
        return joined

    async def _hand_out(self) -> None:
        """Whenever something has come free here, and again and again while somebody waits."""
        while not self._stopping:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS if self.waiting else None):
                    await self._news.wait()
            self._news.clear()
            if self._alone:
                super()._serve()
            else:
                await self._ask_for_all()

    async def _ask_for_all(self) -> None:
        """For each whose turn it is here, until what is left waits for the same that is full."""
        self._full.clear()
        while not self._alone and self.waiting and self.in_flight < self._limits.total:
            queue = min(self._next(), key=lambda one: one.slot.tenant.turn, default=None)
            if queue is None:
                break
            scopes = self._scopes(queue.slot)
            if scopes and not await self._ask_for(queue, scopes):
                continue
            self._give_first(queue, scopes)

    async def _ask_for(self, queue: Queue, scopes: tuple[Scope, ...]) -> bool:
        full = await self._ask(queue.slot, scopes, waits=True)
        if full:
            self._full.add(full)
        return not full

    def _give_first(self, queue: Queue, scopes: tuple[Scope, ...]) -> None:
        """To the first who still waits; if nobody does, it goes back."""
        while queue.turns:
            before = self.in_flight
            self._give(queue)
            if self.in_flight > before:
                return
        if scopes:
            self._leases.give_back(scopes)


def _part(count: float, many: int) -> float:
    return count if count == inf else ceil(count / many)


def _spans(limits: SlotLimits) -> bool:
    bounds = limits.per_tenant, limits.per_service, *limits.tenants.values()
    named = (*bounds, *limits.services.values())
    return limits.spans_total or any(one != inf for one in named)
