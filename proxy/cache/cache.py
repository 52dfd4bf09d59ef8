"""The cache: look-up, flights and stores put together over an Upstream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from proxy.cache.backlog import Backlog
from proxy.cache.commons import Commons
from proxy.cache.entry import CacheStats, Entry, Found, Miss, Store, StoreError
from proxy.cache.fetch import Fetch
from proxy.cache.flight import SLACK, Flight, Ground, Seat
from proxy.cache.flights import Flights
from proxy.cache.keeping import Keeping, entry_of
from proxy.cache.key import Keyer, Keying, Select
from proxy.cache.memory import Memory
from proxy.cache.policy import (
    CacheSettings,
    Forward,
    Plan,
    Verdict,
    decide,
    hit_field,
    passed,
)
from proxy.cache.purges import Purges
from proxy.cache.removing import Removing
from proxy.cache.request import Request
from proxy.cache.sharing import Shares
from proxy.cache.spool import ReadBody, Rest, read_body
from proxy.cache.sqlite import SqliteStore
from proxy.cache.trouble import Trouble, logger
from proxy.call import Call
from proxy.clock import Clock
from proxy.errors import RelayError
from proxy.grant import Grant
from proxy.messages import RequestBody, Response
from proxy.upstream.seam import Upstream
from vault import Purge, Sealer

SWEEP_SECONDS = 60.0
AHEAD_SECONDS = 5.0
"""A purge that is further ahead is told of: who made it has another time."""


STORES: Mapping[str, Callable[[Path, Sealer, Clock, CacheSettings], Store]] = {
    "sqlite": SqliteStore,
}
"""What keeps answers beyond the life of the process, by the name in the configuration."""

FORWARDS = {
    Miss.ABSENT: Forward.URI_MISS,
    Miss.VARIES: Forward.VARY_MISS,
    Miss.OVER: Forward.STALE,
}


class Cache:
    """Answers a call from what is stored, from a flight of equal calls, or from the upstream."""

    def __init__(
        self,
        upstream: Upstream,
        keyer: Keyer,
        store: Store,
        clock: Clock,
        settings: CacheSettings,
    ) -> None:
        self._upstream = upstream
        self._keyer = keyer
        self._store = store
        self._clock = clock
        self._settings = settings
        self._memory = Memory(settings.memory_bytes)
        self._trouble = Trouble(clock)
        self._flights = Flights()
        self._purges = Purges()
        backlog = Backlog(settings.memory_bytes, settings.disk_bytes)
        self._removing = Removing(store, self._trouble)
        self._keeping = Keeping(clock, self._memory, store, backlog, self._purges, self._trouble)
        self._ground = Ground(
            self._sent,
            clock,
            settings,
            keyer,
            self._keeping.arrived,
            self._keeping.keep,
            self._trouble.tell,
        )
        self._shares: Shares | None = None
        self._sweeper: asyncio.Task[None] | None = None

    # Life.

    def share(self, commons: Commons) -> None:
        """Makes equal calls of several processes one; before `start`."""
        self._shares = shares = Shares(
            upstream=self._upstream,
            commons=commons,
            stored=self._stored,
            purged=self._purges.newest_of,
            keep=self._keeping.keep,
            drop=self._keeping.drop,
            room=max(self._settings.entry_limit, 4 * SLACK),
        )
        self._ground = replace(self._ground, send=shares.send, keep=shares.store)

    async def start(self) -> None:
        """Opens the store; one that can't be opened is logged and tried again later.

        Raises SchemaTooNew.
        """
        try:
            await self._store.start()
        except StoreError as error:
            self._trouble.tell("open its store", error)
        self._sweeper = asyncio.create_task(self._sweep_forever(), name="keyrelay-cache-sweeper")

    async def aclose(self) -> None:
        """Ends all flights and closes the store."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait([self._sweeper])
        await self._removing.aclose()
        await self._flights.close()
        if self._shares is not None:
            await self._shares.aclose()
        await self._store.close()

    async def check(self) -> None:
        """Whether the store opens and lets us write; raises StoreError, SchemaTooNew."""
        await self._store.start()

    async def stats(self) -> CacheStats:
        """How much is stored; raises StoreError."""
        return await self._store.stats()

    @property
    def in_memory(self) -> CacheStats:
        """How much of it is in memory as well, of all tenants together."""
        return CacheStats({("", ""): self._memory.holding}, self._memory.evicted)

    @property
    def ails(self) -> bool:
        """Whether the store has refused something and taken nothing since."""
        return self._trouble.lasts

    async def purge(self, purge: Purge) -> None:
        """Ends the answers that a purge covers; returns when the store has taken them out, or has
        refused to."""
        self.apply_purges((purge,))
        await self._removing.done()

    def apply_purges(self, purges: Iterable[Purge]) -> None:
        """Ends the answers that purges cover, at once; the same ones again do nothing. The store
        takes them out meanwhile: a million take their time, and nobody waits for it."""
        for purge in purges:
            if self._purges.add(purge):
                now = self._clock.now()
                if purge.at > now + AHEAD_SECONDS:
                    logger.warning(
                        "a purge is %.0f s ahead of this clock, and nothing that it covers is kept"
                        " for so long: set the clocks right",
                        purge.at - now,
                    )
                self._memory.purge(purge, now)
                self._flights.close_covered(self._purges)
                self._removing.add(purge)

    def forget(self, key: bytes) -> None:
        """Another process has replaced what is stored under this key: nobody joins older ones."""
        self._memory.clear(key)
        self._flights.overtake(key)

    def remember(self, hears: bool) -> None:
        """Forgets all that is in memory; it stays so unless it `hears` of what others replace."""
        self._memory.clear()
        self._memory.closed = not hears
        if hears:
            self._flights.overtake()

    async def sweep(self) -> None:
        """Gives back the room of answers that are over; of purged ones, if the store refused."""
        self._removing.try_again()
        now = self._clock.now()
        self._memory.sweep(now)
        try:
            await self._store.sweep(now)
        except Exception as error:  # whatever it is, the next one may succeed
            self._trouble.tell("sweep its store", error)

    async def _sweep_forever(self) -> None:
        while True:
            await self.sweep()
            await asyncio.sleep(SWEEP_SECONDS)

    # Answering.

    def fetch(self, call: Call, grant: Grant) -> Fetch:
        """The response to an authorised call, with its Cache-Status: a context that may raise a
        RelayError on its way in."""
        return Fetch(self, call, grant)

    def plan(self, call: Call) -> Plan:
        """What a call does with the cache; raises the RelayError of a line that can't be read."""
        if isinstance(call.directions, RelayError):
            raise call.directions
        return decide(call.method, call.directions, self._clock.now(), self._settings)

    def looks_up(self, call: Call) -> bool:
        """Whether what is stored may answer a call."""
        plan = self.plan(call)
        return plan.lookup and self.passing(call, plan) is None

    def begin(self, call: Call, grant: Grant) -> Keying:
        """The call's key, without the body."""
        return self._keyer.begin(call, grant)

    def passing(self, call: Call, plan: Plan) -> Verdict | None:
        """Why the cache has no part in this call; None: it has."""
        if not plan.keyed:
            return passed(plan.forward, plan.detail)
        if (call.body.length or 0) > self._settings.max_keyed_body_bytes:
            return passed(Forward.BYPASS, "body-too-large")
        return None

    def send(
        self, call: Call, grant: Grant, body: RequestBody
    ) -> AbstractAsyncContextManager[Response]:
        """The upstream's response, past the cache."""
        return self._upstream.send(call, grant, body)

    def _sent(self, _flight: Flight, seat: Seat) -> AbstractAsyncContextManager[Response]:
        return self.send(seat.call, seat.grant, seat.body)

    async def read(self, call: Call, keying: Keying) -> ReadBody:
        """The body, for its key and to be sent."""
        bounds = self._settings.spool_memory_bytes, self._settings.max_keyed_body_bytes
        return await read_body(call.body, keying.absorb, *bounds)

    def at_hand(self, request: Request) -> Response | None:
        """A hit from memory, where no flight could know better."""
        if not request.plan.lookup or self._flights.under_way(request.key):
            return None
        found = self._recall(request)
        if isinstance(found, Found):
            return self._hit(request, found.entry, found.octets(), found.content)
        return None

    def unread(self, rest: Rest) -> Verdict:
        """The verdict on a call whose body was too much to be keyed."""
        if rest.failure is not None:
            self._trouble.tell("hold a request on disk", rest.failure)
        return Verdict(Forward.BYPASS, detail=rest.detail)

    @asynccontextmanager
    async def answered(self, request: Request) -> AsyncIterator[Response]:
        """A hit, or a seat in a flight whose answer suits; whom it does not suit looks on."""
        while True:
            seat = request.seat()
            found = await self._look_up(request, seat) if request.plan.lookup else None
            if isinstance(found, Found):
                with contextlib.closing(found):
                    yield self._hit(request, found.entry, found.octets())
                return
            flight = self._board(request, seat)
            try:
                error = await seat.outcome
                if error is not None:
                    raise error
                if flight.suits(seat):
                    async with contextlib.aclosing(flight.body(seat)) as octets:
                        yield self._flown(request, flight, seat, octets)
                    return
            finally:
                flight.leave(seat)
            request.hint, request.alone = flight.vary, flight.vary is None

    def _board(self, request: Request, seat: Seat) -> Flight:
        """The flight that the caller joins, or a new one."""
        joins = request.plan.lookup and not request.alone
        flight = self._flights.find(request.key, seat) if joins else None
        if flight is None:
            flight = Flight(request.key, self._ground, seat)
            self._flights.add(flight, replaces=not request.plan.lookup, alone=request.alone)
        flight.join(seat)
        return flight

    def _hit(
        self,
        request: Request,
        entry: Entry,
        octets: AsyncIterator[bytes],
        content: bytes | None = None,
    ) -> Response:
        now = self._clock.now()
        own = (
            (b"age", b"%d" % max(0, int(now - entry.made_at))),
            hit_field(int(entry.expires_at - now), request.plan.detail),
        )
        return Response(entry.status, entry.fields, octets, content=content, own=own, verdict="hit")

    def _flown(
        self, request: Request, flight: Flight, seat: Seat, octets: AsyncIterator[bytes]
    ) -> Response:
        if seat.late:
            return self._hit(request, entry_of(flight), octets)
        response = flight.answer
        until = flight.until if flight.kept else None
        trouble = "store-error" if flight.kept and self._trouble.lasts else None
        verdict = Verdict(
            request.forward,
            response.status,
            stored=flight.kept,
            collapsed=flight.abroad or seat is not flight.leader,
            ttl=None if until is None else int(until - self._clock.now()),
            detail=request.detail or request.plan.detail or flight.refusal or trouble,
        )
        return response._replace(
            body=octets, spoiled=None, content=None, own=(verdict.field(),), verdict=verdict.name
        )

    # Looking up.

    async def _look_up(self, request: Request, seat: Seat) -> Found | None:
        """What is stored for the request. Between a miss and `_board` nothing is awaited."""
        found: Found | Miss = Miss.ABSENT
        if not request.alone and self._flights.holds_complete(request.key, seat):
            return None  # newer than what is stored
        found = self._recall(request)
        while isinstance(found, Miss) and not self._is_under_way(request, seat):
            written = self._keeping.written
            found = await self._ask_store(request)
            if written == self._keeping.written:
                break
        if isinstance(found, Found):
            return found
        request.forward = FORWARDS[found]
        return None

    def _is_under_way(self, request: Request, seat: Seat) -> bool:
        """Whether somebody who found nothing has sent this call already."""
        flight = None if request.alone else self._flights.find(request.key, seat)
        return flight is not None and flight.found_nothing

    def _recall(self, request: Request) -> Found | Miss:
        now = self._clock.now()
        found = self._memory.get(request.key, request.keying.select, now)
        if isinstance(found, Found):
            self._store.touch(request.key, now)
        return found

    async def _ask_store(self, request: Request) -> Found | Miss:
        """What the store holds; by then there may be something newer in memory."""
        key, select = request.key, request.keying.select
        try:
            found = await self._store.get(key, select, self._clock.now())
        except Exception as error:  # whatever it is, the call goes on
            self._trouble.tell("read its store", error)
            request.detail = "store-error"
            found = Miss.ABSENT
        recalled = self._recall(request)
        if isinstance(recalled, Found):
            if isinstance(found, Found):
                found.close()
            return recalled
        if isinstance(found, Found):
            return self._judged(found, select)
        return max(found, recalled, key=lambda miss: miss.value)

    async def _stored(self, key: bytes, select: Select) -> Found | None:
        """What another process has stored a moment ago."""
        try:
            found = await self._store.get(key, select, self._clock.now())
        except Exception as error:  # whatever it is, the call goes on
            self._trouble.tell("read its store", error)
            return None
        judged = self._judged(found, select) if isinstance(found, Found) else found
        return judged if isinstance(judged, Found) else None

    def _judged(self, found: Found, select: Select) -> Found | Miss:
        entry = found.entry
        covered = self._purges.cover(entry.tenant, entry.service, entry.requested_at)
        if covered or self._keeping.unwritten.outdate(entry):
            found.close()
            return Miss.ABSENT
        if isinstance(found.body, bytes) and self._memory.takes(entry.size):
            self._memory.put(entry, select, found.body)
        return found
