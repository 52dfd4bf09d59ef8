"""Tells an answer to those who follow it in other processes, once there are any."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

from proxy.cache import telling
from proxy.cache.commons import Lead, Lost
from proxy.cache.flight import Flight, Seat, Told
from proxy.errors import Overloaded, RelayError

Spawn = Callable[[Coroutine[Any, Any, Any]], object]
"""Does something that no caller waits for."""


class Teller:
    """One more reader of its flight, for all followers elsewhere. Where there are none it does
    nothing; where all have left it stops, and goes on from there when the next one comes."""

    def __init__(self, flight: Flight, lead: Lead, spawn: Spawn, wanted: bool) -> None:
        self.lead = lead
        self._flight = flight
        self._spawn = spawn
        self._seat: Seat | None = None
        self._place: int | None = None  # the next octet to be told; None: first the header
        self._wanted = wanted
        self._late = False  # its beginning is gone already: whoever follows looks on
        self._done = False  # all was told, or can't be
        self._over = False

    def want(self) -> None:
        """Somebody follows."""
        self._wanted = True
        if self._flight.response is not None:
            self.tell()

    def tell(self) -> None:
        """The header is there, or about to be."""
        if self._wanted and self._seat is None and not (self._done or self._over):
            self._spawn(self._tell(self._sit()))

    def _sit(self) -> Seat:
        of = self._flight.leader
        self._seat = seat = Seat(of.call, of.grant, of.body, of.select, of.until, False)
        seat.place = self._place or 0
        self._wanted = False
        self._late = self._place is None and self._flight.overflowed
        self._flight.join(seat)
        return seat

    async def _tell(self, seat: Seat) -> None:
        try:
            await seat.outcome
            self._done = await self._said(seat)
        except (Lost, RelayError):
            self._done = True
            await self.lead.end()  # what they have heard has no end: it is cut
        finally:
            self._seat = None
            self._flight.leave(seat)
        if self._over:
            await self.lead.end()
        self.tell()

    async def _said(self, seat: Seat) -> bool:
        """Whether all was."""
        flight = self._flight
        if self._place is None:
            if self._late:
                raise Lost
            if not await self.lead.say(telling.header(flight.answer, self._told())):
                return False
            self._place = 0
        async with aclosing(flight.body(seat)) as pieces:
            async for piece in pieces:
                if not await self.lead.say(telling.OCTETS + piece):
                    return False
                self._place = seat.place
        return await self.lead.say(telling.KEPT if flight.kept else telling.UNKEPT)

    def _told(self) -> Told:
        flight = self._flight
        return Told(flight.requested_at, flight.received_at, flight.until or 0.0, flight.variant)

    def shut(self) -> None:
        """Nobody joins any more, as soon as that is known elsewhere."""
        self._spawn(self._shut())

    async def _shut(self) -> None:
        if await self.lead.close(landed=False):
            self.want()

    async def fail(self, error: BaseException) -> None:
        """There is no header. Those who follow try for themselves, one after the other; but not
        where each would wait in the same queue again."""
        if await self.lead.close(landed=False):
            if isinstance(error, Overloaded):
                await self._say(telling.overloaded(error))
            await self.lead.end()

    async def _say(self, record: bytes) -> None:
        try:
            await self.lead.say(record)
        except Lost:
            return

    def over(self, landed: bool) -> None:
        """The flight is about to land; what has not been told of it yet still is."""
        self._over = True
        seat = None if self._seat is not None or self._done else self._sit()
        self._spawn(self._close(landed, seat))

    async def _close(self, landed: bool, seat: Seat | None) -> None:
        followed = await self.lead.close(landed)
        if seat is not None and followed:
            await self._tell(seat)
        elif seat is not None:
            self._seat = None
            self._flight.leave(seat)
        elif followed and self._done:
            await self.lead.end()
