"""Every flight that has not landed, by key: who may join which."""

from __future__ import annotations

from proxy.cache.flight import Flight, Seat
from proxy.cache.purges import Purges


class Flights:
    """All flights, by key; of one key the newest first."""

    def __init__(self) -> None:
        self._joinable: dict[bytes, list[Flight]] = {}
        self._all: set[Flight] = set()

    def find(self, key: bytes, seat: Seat) -> Flight | None:
        """A flight that a caller may join."""
        return next((f for f in self._joinable.get(key, ()) if f.admits(seat)), None)

    def under_way(self, key: bytes) -> bool:
        """Whether there is any flight to ask."""
        return key in self._joinable

    def holds_complete(self, key: bytes, seat: Seat) -> bool:
        """Whether a whole answer for this caller is being written down."""
        flight = self.find(key, seat)
        return flight is not None and flight.complete

    def close_covered(self, purges: Purges) -> None:
        """Lets nobody join what was purged."""
        for flight in self._all:
            grant = flight.leader.grant
            service = grant.service.name if grant.service else ""
            if purges.cover(grant.tenant, service, flight.requested_at):
                flight.closed = True

    def overtake(self, key: bytes | None = None) -> None:
        """Another process has stored something under a key, or may have, under any."""
        for flight in self._all if key is None else self._joinable.get(key, ()):
            flight.closed = flight.overtaken = True

    def add(self, flight: Flight, *, replaces: bool, alone: bool = False) -> None:
        """Starts a flight. `replaces`: nobody joins earlier ones; `alone`: nobody joins it."""
        self._all.add(flight)
        if replaces:
            for earlier in self._joinable.pop(flight.key, ()):
                earlier.closed, earlier.successor = True, flight
        flight.apart = alone
        if not alone:
            self._joinable.setdefault(flight.key, []).insert(0, flight)
        flight.start(self._landed)

    def all(self) -> list[Flight]:
        """Every flight that has not landed."""
        return list(self._all)

    async def close(self) -> None:
        """Ends every flight; an answer that is whole is still written down."""
        flights = self.all()
        for flight in flights:
            if not flight.complete:
                flight.cancel()
        for flight in flights:
            await flight.ended()

    def _landed(self, flight: Flight) -> None:
        self._all.discard(flight)
        same_key = self._joinable.get(flight.key, [])
        if flight in same_key:
            same_key.remove(flight)
        if not same_key:
            self._joinable.pop(flight.key, None)
