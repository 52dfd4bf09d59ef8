"""Equal calls in flight: one upstream call, one spool, and everybody who reads from it.

waiting --header--> flowing --clean end--> complete --stored--> landed
   |  a failure wakes one follower, who leads     | a cut
   +--nobody left--> landed                       +--> broken --> landed
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from proxy.cache.key import Keyer, Select
from proxy.cache.policy import CacheSettings, has_body, length, refusal
from proxy.cache.spool import PIECE, PrefixGoneError, ReadBody, Spool
from proxy.call import Call
from proxy.clock import Clock
from proxy.errors import InternalError, Overloaded, Unavailable, UpstreamIncomplete
from proxy.grant import Grant
from proxy.messages import Response

SLACK = 1 << 20
"""Octets that the upstream may be ahead of the fastest reader of an answer too large to keep."""


@dataclass(slots=True, eq=False)
class Seat:
    """One caller aboard. `until`: the time its answer would be kept to, None: it is not to be.

    `looked_up`: it found nothing stored. `hint`: the names that an equal call's answer was found to
    vary by. `late`: it came when the answer was whole. `outcome` is done when the
    header is there (None) or the caller's own attempt failed (the error).
    """

    call: Call
    grant: Grant
    body: ReadBody
    select: Select
    until: float | None
    looked_up: bool
    hint: bytes | None = None
    late: bool = False
    place: int = 0
    outcome: asyncio.Future[Exception | None] = field(init=False)

    def tell(self, error: Exception | None) -> None:
        """Ends the waiting, unless the caller has gone."""
        if not self.outcome.done():
            self.outcome.set_result(error)


@dataclass(frozen=True, slots=True)
class Ground:
    """What every flight needs from below. `send`: makes its call, for one caller. `arrived`: told
    of a clean end, before any reader is; says whether to keep the answer. `keep`: writes it down.
    `complain`: told what the disk refuses.
    """

    send: Callable[[Flight, Seat], AbstractAsyncContextManager[Response]]
    clock: Clock
    settings: CacheSettings
    keyer: Keyer
    arrived: Callable[[Flight], bool]
    keep: Callable[[Flight], Awaitable[bool]]
    complain: Callable[[str, Exception], None]


class Told(NamedTuple):
    """What another process says of an answer that is its own: `variant` by its own request."""

    requested_at: float
    received_at: float
    until: float
    variant: bytes


class Sharing(Protocol):
    """How the call of a flight is shared with other processes. `told`: by the one that makes it,
    if that is another."""

    @property
    def told(self) -> Told | None:
        """Known once the header is there."""
        ...

    def shut(self) -> None:
        """Nobody is to join any more."""
        ...

    def over(self) -> None:
        """The call has ended; its octets are still there."""
        ...


class Flight:
    """One upstream call. `leader`: whose call is sent; `kept`: whether its answer is to stay.

    `until`: to when; `apart`: it is shared with nobody; `abroad`: another process makes the call.
    `overtaken`: another has stored something under its key since it began, or may have.
    """

    def __init__(self, key: bytes, ground: Ground, leader: Seat) -> None:
        self.key = key
        self.leader = leader
        self.until = leader.until
        self.apart = False
        self.abroad = False
        self.sharing: Sharing | None = None
        self.found_nothing = leader.looked_up
        self.storing = leader.until is not None
        self.kept = self.storing
        self.closed = self.overtaken = False
        self.successor: Flight | None = None
        self.complete = False
        self.refusal: str | None = None
        self.response: Response | None = None
        self.vary: bytes | None = b""
        self.variant = b""
        self.requested_at = ground.clock.now()
        self.received_at = 0.0
        settings = ground.settings
        self.spool = Spool(settings.spool_memory_bytes, max(settings.entry_limit, 4 * SLACK))
        self._ground = ground
        self._seats: dict[Seat, None] = {}
        self._broken: Exception | None = None
        self.overflowed = False
        self._landed = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._task: asyncio.Task[None]

    # Boarding.

    def start(self, landed: Callable[[Flight], None]) -> None:
        """Sends the call in a task that belongs to no caller."""
        self._task = asyncio.create_task(self._fly(), name="keyrelay-flight")
        self._task.add_done_callback(lambda _task: self._land(landed))

    def admits(self, seat: Seat) -> bool:
        """Whether a caller may join now."""
        if self.closed or self.overflowed or self._broken is not None:
            return False
        if self.response is None:
            return (self.storing or seat.until is None) and self._is_alike(seat)
        return self.kept and not self._is_over and self.suits(seat)

    def join(self, seat: Seat) -> None:
        """Takes a caller aboard."""
        seat.outcome = asyncio.get_running_loop().create_future()
        self._seats[seat] = None
        if self.response is not None:
            seat.late = self.complete
            seat.tell(None)

    def suits(self, seat: Seat) -> bool:
        """Whether the answer is one for this caller, by its `Vary` (RFC 9111 section 4.1)."""
        if self.vary == b"" or (seat is self.leader and not self.abroad):
            return True
        return self.vary is not None and seat.select(self.vary) == self.variant

    @property
    def aboard(self) -> int:
        """How many callers wait or read."""
        return len(self._seats)

    def leave(self, seat: Seat) -> None:
        """Lets a caller go; with nobody left the call goes on only if its answer will be stored."""
        del self._seats[seat]
        self._room.set()
        if not self._seats:
            if self._landed:
                self.spool.close()
            elif not (self._goes_on or self.complete):
                self.cancel()

    def cancel(self) -> None:
        """Ends the upstream call; nobody joins it any more."""
        self.closed = True
        self._task.cancel()

    async def ended(self) -> None:
        """Waits until the call is over, however it ended."""
        await asyncio.wait([self._task])

    @property
    def _is_over(self) -> bool:
        until = self.until
        return self.complete and until is not None and self._ground.clock.now() >= until

    @property
    def _goes_on(self) -> bool:
        """Whether it is worth its while with nobody aboard."""
        return self.kept and not self.abroad

    @property
    def outdated(self) -> bool:
        """Whether a later refresh of the same answer has come in already."""
        later = self.successor
        while later is not None and not (later.complete and later.kept):
            later = later.successor
        return later is not None

    def _is_alike(self, seat: Seat) -> bool:
        return seat.hint is None or seat.select(seat.hint) == self.leader.select(seat.hint)

    @property
    def answer(self) -> Response:
        """The response, once its header is there."""
        if self.response is None:
            raise InternalError("a flight was read before its header came")
        return self.response

    # Reading.

    async def body(self, seat: Seat) -> AsyncGenerator[bytes, None]:
        """What has arrived, then what arrives; raises UpstreamIncomplete where it is cut."""
        while True:
            if seat.place < self.spool.size:
                piece = await self._piece(seat.place)
                seat.place += len(piece)
                self._room.set()
                yield piece
            elif self.complete:
                return
            elif self._broken is not None:
                raise UpstreamIncomplete(
                    "the destination hung up before its answer was whole; try again"
                ) from self._broken
            else:
                await self._news.wait()

    async def _piece(self, place: int) -> bytes:
        try:
            return await self.spool.read(place)
        except (PrefixGoneError, OSError) as error:
            raise UpstreamIncomplete(
                "the answer is too large to keep, and was read too slowly; call without cache"
            ) from error

    # Flying.

    async def _fly(self) -> None:
        try:
            while (leader := self._next_leader()) is not None:
                if await self._attempt(leader):
                    break
            if self.complete and self.kept and not self.outdated:
                await self._ground.keep(self)
        finally:
            self.closed = True
            if self.sharing is not None:
                self.sharing.over()

    def _next_leader(self) -> Seat | None:
        waiting = [seat for seat in self._seats if not seat.outcome.done()]
        return next((seat for seat in waiting if seat.until is not None), next(iter(waiting), None))

    async def _attempt(self, leader: Seat) -> bool:
        """Sends one caller's call; whether its header came."""
        self.leader, self.until = leader, leader.until
        self.storing = self.kept = leader.until is not None
        self.requested_at = self._ground.clock.now()
        leader.body.hold()
        try:
            async with self._ground.send(self, leader) as response:
                self._header(response)
                await self._read(response)
        except Exception as error:
            if self.response is None:
                # all of one tenant and service: the others would wait in the same queue again
                for seat in tuple(self._seats) if isinstance(error, Overloaded) else (leader,):
                    seat.tell(error)
                return False
            if not self.complete:
                self._break(error)
        finally:
            leader.body.release()
        return True

    def _header(self, response: Response) -> None:
        leader, ground = self.leader, self._ground
        honour = leader.grant.service is not None and leader.grant.service.honour_no_store
        self.refusal = refusal(leader.call.method, response, honour, ground.settings)
        self.kept = self.storing and self.refusal is None
        self.response = response
        self.received_at = ground.clock.now()
        self.vary = ground.keyer.vary(response.fields)
        self.variant = leader.select(self.vary) if self.vary else b""
        if self.sharing is not None and self.sharing.told is not None:
            self.requested_at, self.received_at, self.until, self.variant = self.sharing.told
        for seat in self._seats:
            seat.tell(None)
        if not self.kept:
            self._shut()

    async def _read(self, response: Response) -> None:
        async for chunk in response.body:
            if not self.overflowed and self.spool.size + len(chunk) > self._limit:
                self._overflow()
            if self.overflowed:
                await self._pace(chunk)
            else:
                await self._take(chunk)
            if not self._seats and not self._goes_on:
                self._break(UpstreamIncomplete("nobody waits for this answer any more"))
                return
        self._end(response)

    @property
    def _limit(self) -> int:
        return self._ground.settings.entry_limit

    async def _take(self, chunk: bytes) -> None:
        self.spool.append(chunk)
        self._tell()
        if self.spool.heavy:
            try:
                await self.spool.spill()
            except OSError as error:
                self._ground.complain("hold an answer on disk", error)
                self._overflow()

    def _overflow(self) -> None:
        self.overflowed = True
        self.kept = False
        self._shut()

    def _shut(self) -> None:
        if self.sharing is not None:
            self.sharing.shut()

    async def _pace(self, chunk: bytes) -> None:
        """Takes octets that will not be kept, not far ahead of the fastest reader."""
        for start in range(0, len(chunk), PIECE):
            while self._seats and self.spool.size - self._fastest() > SLACK:
                self._room.clear()
                await self._room.wait()
            self.spool.append(chunk[start : start + PIECE])
            self._tell()
            if self.spool.heavy:
                await self._make_room()

    async def _make_room(self) -> None:
        try:
            await self.spool.spill()
        except OSError:  # no disk: what the fastest reader has read is gone for the others
            self.spool.trim(self._fastest())

    def _fastest(self) -> int:
        return max((seat.place for seat in self._seats), default=self.spool.size)

    def _end(self, response: Response) -> None:
        leader = self.leader
        announced = length(response.fields)
        expected = has_body(leader.call.method, response.status) and announced is not None
        if expected and announced != self.spool.size:
            self._break(UpstreamIncomplete("the answer is not as long as it was announced"))
            return
        spoiled = response.spoiled is not None and response.spoiled()
        self.kept = self.kept and not spoiled and not self.outdated and self._ground.arrived(self)
        self.complete = True
        self._tell()

    def _break(self, error: Exception) -> None:
        self._broken = error
        self.kept = False
        for seat in self._seats:
            seat.tell(error)
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news.clear()

    def _land(self, landed: Callable[[Flight], None]) -> None:
        self._landed = True
        landed(self)
        if not self.complete and self._broken is None:
            self._break(Unavailable("keyrelay is shutting down; try again", retry_after=5))
        if not self._seats:
            self.spool.close()
