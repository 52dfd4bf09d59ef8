"""Room for so many calls at once, and the queues of those who wait for it, fair between tenants.

A call takes one slot of all, one of its tenant and one of its service. A queue holds the calls of
one tenant for one service. Nobody waits while there is room for him: room that comes free goes at
once to the tenant whose last turn is longest ago, and there to the service that has waited longest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final, NamedTuple

from proxy.errors import Overloaded

RETRY_SECONDS: Final = 5


@dataclass(frozen=True, slots=True)
class SlotLimits:
    """How many calls at once: in all, of one tenant, for one service; inf: no bound.

    `queue_length`: how many may wait in one queue, and `queue_timeout`: for how many seconds;
    `spans_total`: whether the total is of all instances, where several share a Redis.
    """

    total: float = 1000
    per_tenant: float = inf
    per_service: float = inf
    tenants: Mapping[str, float] = field(default_factory=dict)
    services: Mapping[str, float] = field(default_factory=dict)
    queue_length: int = 1000
    queue_timeout: float = 30.0
    spans_total: bool = False


class Load(NamedTuple):
    """How many calls of a service are under way, and how many wait."""

    in_flight: int
    waiting: int


@dataclass(slots=True, eq=False)
class Service:
    """Calls for one service, whoever makes them."""

    name: str
    limit: float
    in_flight: int = 0
    waiting: int = 0


@dataclass(slots=True, eq=False)
class Tenant:
    """`turn`: the number of the last slot that it was given; `queues` by service, the one that is
    next in front."""

    name: str
    limit: float
    in_flight: int = 0
    turn: int = 0
    queues: dict[Service, Queue] = field(default_factory=dict)


class Slot(NamedTuple):
    """What a call holds; for `release`."""

    tenant: Tenant
    service: Service


@dataclass(slots=True, eq=False)
class Queue:
    """Who waits for one slot, the first in front."""

    slot: Slot
    turns: dict[asyncio.Future[None], None] = field(default_factory=dict)


class Slots:
    """Gives slots out and takes them back. `in_flight`, `waiting`: how many calls, in all."""

    def __init__(self, limits: SlotLimits) -> None:
        self.in_flight = 0
        self.waiting = 0
        self._limits = limits
        self._given = 0
        self._tenants: dict[str, Tenant] = {}
        self._services: dict[str, Service] = {}
        self._queued: dict[Tenant, None] = {}

    def take(self, tenant: str, service: str) -> Slot | None:
        """A slot, where there is room; `service` is empty where there is none."""
        mine = self._tenants.get(tenant) or self._tenant(tenant)
        its = self._services.get(service) or self._service(service)
        if self.in_flight < self._limits.total and self._fits(mine, its):
            slot = Slot(mine, its)
            self._hold(slot)
            return slot
        return None

    async def wait(self, tenant: str, service: str) -> Slot:
        """A slot, when it is this call's turn; to be asked for once `take` gave none.

        Raises Overloaded where the queue is full, or the turn does not come in time.
        """
        slot = Slot(self._tenants[tenant], self._services[service])
        seconds = self._limits.queue_timeout
        queue, turn = self._join(slot)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException as error:
            self._leave(queue, turn)
            if isinstance(error, TimeoutError):
                text = f"Too many calls are under way: {seconds:g} s were not enough to wait for"
                raise Overloaded(f"{text} a turn; try again.", retry_after=RETRY_SECONDS) from error
            raise
        return slot

    def release(self, slot: Slot) -> None:
        """Give a slot back, once."""
        self.in_flight -= 1
        slot.tenant.in_flight -= 1
        slot.service.in_flight -= 1
        if self.waiting:
            self._serve()

    def become(self, limits: SlotLimits) -> None:
        """Other limits from now on; who is over a smaller one stays, who fits a larger one goes."""
        self._limits = limits
        for name, tenant in self._tenants.items():
            tenant.limit = limits.tenants.get(name, limits.per_tenant)
        for name, service in self._services.items():
            service.limit = limits.services.get(name, limits.per_service)
        self._serve()

    def loads(self) -> dict[str, Load]:
        """What is going on, by service."""
        return {name: Load(one.in_flight, one.waiting) for name, one in self._services.items()}

    # Tenants and services, made when they are met first.

    def _tenant(self, name: str) -> Tenant:
        limit = self._limits.tenants.get(name, self._limits.per_tenant)
        made = self._tenants[name] = Tenant(name, limit)
        return made

    def _service(self, name: str) -> Service:
        limit = self._limits.services.get(name, self._limits.per_service)
        made = self._services[name] = Service(name, limit)
        return made

    # Giving.

    def _fits(self, tenant: Tenant, service: Service) -> bool:
        return tenant.in_flight < tenant.limit and service.in_flight < service.limit

    def _hold(self, slot: Slot) -> None:
        self._given += 1
        self.in_flight += 1
        slot.tenant.in_flight += 1
        slot.tenant.turn = self._given
        slot.service.in_flight += 1

    def _serve(self) -> None:
        """Gives the room there is to those whose turn it is."""
        while self.waiting and self.in_flight < self._limits.total:
            queue = min(self._next(), key=lambda one: one.slot.tenant.turn, default=None)
            if queue is None:
                return
            self._give(queue)

    def _next(self) -> Iterator[Queue]:
        """The queue of each tenant from which a call may go."""
        if not any(one.waiting and one.in_flight < one.limit for one in self._services.values()):
            return
        for tenant in self._queued:
            for service, queue in tenant.queues.items():
                if self._fits(tenant, service):
                    yield queue
                    break

    def _give(self, queue: Queue) -> None:
        """To the first who has not just given up."""
        turn = next(iter(queue.turns))
        self._unqueue(queue, turn)
        if not turn.done():
            self._hold(queue.slot)
            turn.set_result(None)
            if queue.turns:  # the tenant's other services are first now
                queues = queue.slot.tenant.queues
                queues[queue.slot.service] = queues.pop(queue.slot.service)

    # Waiting.

    def _join(self, slot: Slot) -> tuple[Queue, asyncio.Future[None]]:
        queue = slot.tenant.queues.get(slot.service) or Queue(slot)
        if len(queue.turns) >= self._limits.queue_length:
            text = "Too many calls are under way, and as many as may wait do; try again."
            raise Overloaded(text, retry_after=RETRY_SECONDS)
        turn = asyncio.get_running_loop().create_future()
        queue.turns[turn] = None
        slot.tenant.queues[slot.service] = queue
        self._queued[slot.tenant] = None
        slot.service.waiting += 1
        self.waiting += 1
        return queue, turn

    def _leave(self, queue: Queue, turn: asyncio.Future[None]) -> None:
        """Out of the queue; a slot that has been given already goes to the next."""
        if turn in queue.turns:
            self._unqueue(queue, turn)
        elif not turn.cancelled():
            self.release(queue.slot)

    def _unqueue(self, queue: Queue, turn: asyncio.Future[None]) -> None:
        tenant, service = queue.slot
        del queue.turns[turn]
        service.waiting -= 1
        self.waiting -= 1
        if not queue.turns:
            del tenant.queues[service]
            if not tenant.queues:
                del self._queued[tenant]
