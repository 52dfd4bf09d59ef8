"""Makes the call of a flight, or hears another process's answer to the same call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Final

from proxy.cache import telling
from proxy.cache.commons import Boarded, Commons, Fence, Follow, Lead, Lost, Overtaken, Put, Wish
from proxy.cache.entry import Found
from proxy.cache.flight import Flight, Seat, Told
from proxy.cache.key import Select
from proxy.cache.teller import Teller
from proxy.errors import UpstreamIncomplete
from proxy.grant import Grant
from proxy.messages import Response
from proxy.upstream.seam import Upstream

CLOSING_SECONDS: Final = 2.0
"""For those elsewhere who are still behind when this process ends."""


@dataclass(frozen=True, slots=True)
class Shares:
    """What the flights of one process need to share with others.

    `stored`: the answer that is stored for a key and a call. `purged`: when what is kept for a
    grant was last purged. `keep`: stores an answer; `drop`: lets go of one that was outdated.
    `room`: octets of an answer that are held for those elsewhere.
    """

    upstream: Upstream
    commons: Commons
    stored: Callable[[bytes, Select], Awaitable[Found | None]]
    purged: Callable[[Grant], float]
    keep: Callable[[Flight, Fence | None], Awaitable[bool]]
    drop: Callable[[Flight], None]
    room: int
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def send(self, flight: Flight, seat: Seat) -> AbstractAsyncContextManager[Response]:
        """The call of one who is to lead a flight, as the Upstream has it.

        One whose answer will not be stored is shared with nobody, and so is one that an answer
        for somebody else did not suit.
        """
        flight.sharing, flight.abroad = None, False
        if seat.until is None or seat.hint is not None or flight.apart:
            return self.upstream.send(seat.call, seat.grant, seat.body)
        return Shared(self, flight, seat)

    async def store(self, flight: Flight) -> bool:
        """Stores an answer if it is this process that made the call, and no later one has begun."""
        shared = flight.sharing
        if not isinstance(shared, Shared):
            return await self.keep(flight, None)
        if flight.abroad:
            return False
        try:
            shared.landed = await shared.keep(partial(self.keep, flight))
        except Overtaken:
            self.drop(flight)
        return shared.landed

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Does something that no caller waits for."""
        task = asyncio.create_task(work, name="keyrelay-sharing")
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def aclose(self) -> None:
        """Ends, once those elsewhere have heard what there is; but it does not wait for long."""
        tasks = tuple(self.tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSING_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.commons.aclose()


class Shared:
    """One attempt of a flight: made here, and told to others once they ask; or heard from one.

    Enter: the header is there. Exit: the upstream, or the place aboard another's call, is let go.
    """

    def __init__(self, shares: Shares, flight: Flight, seat: Seat) -> None:
        self.told: Told | None = None
        self.landed = False
        self._shares = shares
        self._flight = flight
        self._seat = seat
        self._teller: Teller | None = None
        self._follow: Follow | None = None
        self._found: Found | None = None
        self._sending: AbstractAsyncContextManager[Response] | None = None
        self._kept_there = False
        self._is_wanted = False

    async def __aenter__(self) -> Response:
        self._flight.sharing = self
        besides, joins = b"", self._seat.looked_up
        while True:
            boarded = await self._board(besides, joins)
            if boarded.landed:
                found = await self._shares.stored(self._flight.key, self._seat.select)
                if found is not None:
                    return self._stored(found)
                besides = boarded.landed
            elif boarded.follow is not None:
                response = await self._hear_header(boarded.follow)
                if response is not None:
                    return response
                besides = boarded.follow.leader
            else:
                return await self._lead(boarded.lead)

    def _board(self, besides: bytes, joins: bool) -> Awaitable[Boarded]:
        flight, shares = self._flight, self._shares
        after = shares.purged(self._seat.grant)
        wish = Wish(
            flight.key, flight.requested_at, after, joins, shares.room, self._wanted, besides
        )
        return shares.commons.board(wish)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._follow is not None:
            self._follow.leave()
        if self._found is not None:
            self._found.close()
        if self._sending is not None:
            await self._sending.__aexit__(kind, error, traceback)

    # The call is made here.

    async def _lead(self, lead: Lead | None) -> Response:
        flight, seat = self._flight, self._seat
        flight.abroad = False
        if lead is not None:
            self._teller = Teller(flight, lead, self._shares.spawn, self._is_wanted)
        sending = self._shares.upstream.send(seat.call, seat.grant, seat.body)
        try:
            response = await sending.__aenter__()
        except BaseException as error:
            if self._teller is not None:
                teller, self._teller = self._teller, None
                await teller.fail(error)
            raise
        self._sending = sending
        if self._teller is not None:
            self._teller.tell()
        return response

    def _wanted(self) -> None:
        self._is_wanted = True
        if self._teller is not None:
            self._teller.want()

    async def keep(self, put: Put) -> bool:
        """Stores the answer; raises Overtaken where another call has taken its place."""
        return await (put(Fence()) if self._teller is None else self._teller.lead.keep(put))

    def shut(self) -> None:
        """Nobody elsewhere joins any more."""
        if self._teller is not None:
            self._teller.shut()

    def over(self) -> None:
        """Nothing more comes; those elsewhere who are behind still get the rest."""
        if self._teller is not None:
            self._teller.over(self.landed)

    # It is made elsewhere.

    async def _hear_header(self, follow: Follow) -> Response | None:
        """None: there will be none from this one."""
        self._flight.abroad = True
        if not self._flight.aboard:
            self._flight.cancel()
        try:
            first, *others = await follow.hear()
        except Lost:
            follow.leave()
            return None
        except BaseException:
            follow.leave()
            raise
        if first.startswith(telling.OVERLOADED):
            follow.leave()
            raise telling.read_overloaded(first)
        self._follow = follow
        response, self.told = telling.read_header(first, self._octets(follow, others))
        return response._replace(spoiled=lambda: not self._kept_there)

    async def _octets(self, follow: Follow, records: list[bytes]) -> AsyncGenerator[bytes, None]:
        while True:
            for record in records:
                if not record.startswith(telling.OCTETS):
                    self._kept_there = record == telling.KEPT
                    return
                yield record[1:]
            try:
                records = await follow.hear()
            except Lost as error:
                raise UpstreamIncomplete(
                    "the instance that made this call is gone; try again"
                ) from error

    def _stored(self, found: Found) -> Response:
        """What another has stored since this one looked."""
        entry = found.entry
        self._flight.abroad, self._found = True, found
        self.told = Told(entry.requested_at, entry.made_at, entry.expires_at, entry.variant)
        return Response(entry.status, entry.fields, found.octets())
