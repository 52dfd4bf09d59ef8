"""What becomes of a whole answer: into memory at once, and to the store."""

from __future__ import annotations

from dataclasses import dataclass, field

from proxy.cache.backlog import Backlog
from proxy.cache.commons import Fence, Overtaken
from proxy.cache.entry import Entry, Store, StoreError
from proxy.cache.flight import Flight
from proxy.cache.memory import Memory
from proxy.cache.policy import announced_age, kept_fields
from proxy.cache.purges import Purges, Unwritten
from proxy.cache.trouble import Trouble
from proxy.clock import Clock


@dataclass(slots=True)
class Keeping:
    """Keeps answers of flights. `unwritten`: those that the store could not take; `written`: how
    many went to the store and not into memory."""

    clock: Clock
    memory: Memory
    store: Store
    backlog: Backlog
    purges: Purges
    trouble: Trouble
    unwritten: Unwritten = field(default_factory=Unwritten)
    written: int = 0

    def arrived(self, flight: Flight) -> bool:
        """Whether a whole answer is still worth keeping; a small one is there for the next call."""
        entry = entry_of(flight)
        if self.clock.now() >= entry.expires_at:
            return False
        if self.purges.cover(entry.tenant, entry.service, entry.requested_at):
            return False
        body = self._small(flight)
        if body is not None:
            self.memory.put(entry, flight.leader.select, body)
        return True

    def _small(self, flight: Flight) -> bytes | None:
        """None where it is too large, or may be older than what another process has stored."""
        if flight.overtaken or not self.memory.takes(flight.spool.size):
            return None
        return flight.spool.in_memory()

    async def keep(self, flight: Flight, fence: Fence | None = None) -> bool:
        """Writes an answer to the store, unless too many octets wait for that already; whether it
        is there. One that comes too late is let go."""
        entry, select = entry_of(flight), flight.leader.select
        if self.backlog.full:
            self.unwritten.add(entry)
            self.trouble.tell("write as fast as answers come", StoreError("too many wait"))
            return False
        stored = await self._put(flight, entry, fence)
        if self._small(flight) is None:
            self.memory.forget(flight.key, select)
            self.written += 1
        return stored

    async def _put(self, flight: Flight, entry: Entry, fence: Fence | None) -> bool:
        try:
            with self.backlog.holding(flight.spool):
                await self.store.put(entry, flight.leader.select, flight.spool, fence)
        except Overtaken:  # the store is well
            self.drop(flight)
            return False
        except Exception as error:  # whatever it is, the answer has gone out
            self.unwritten.add(entry)
            self.trouble.tell("write its store", error)
            return False
        self.trouble.end()
        self.unwritten.forget(entry)
        return True

    def drop(self, flight: Flight) -> None:
        """Lets go of an answer that another has outdated before it was stored."""
        self.memory.forget(flight.key, flight.leader.select)


def entry_of(flight: Flight) -> Entry:
    """What is kept of a flight whose answer is whole."""
    grant, response = flight.leader.grant, flight.answer
    return Entry(
        key=flight.key,
        vary=flight.vary or b"",
        variant=flight.variant,
        tenant=grant.tenant,
        service=grant.service.name if grant.service else "",
        requested_at=flight.requested_at,
        made_at=flight.received_at - announced_age(response.fields),
        expires_at=flight.until or 0.0,
        status=response.status,
        fields=kept_fields(response.fields),
        size=flight.spool.size,
    )
