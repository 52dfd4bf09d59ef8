"""Open connections by route: the last one used goes out first, and who waits is served in turn."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from proxy.clock import Clock
from proxy.errors import Unavailable, UpstreamUnreachable
from proxy.upstream.wire.connection import Connection
from proxy.upstream.wire.connector import Connector, Route
from proxy.upstream.wire.sentences import CLOSING, NOT_ANSWERED, TOO_MANY_CALLS

SWEEP_SECONDS: Final = 5.0
"""How often idle connections are looked through for expired ones."""

Turn = asyncio.Future[Connection | None]
"""What a waiter is given: a connection, or None: the room to open one."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """`connections` in all and `per_route`, idle or not; `idle_seconds` until one that waits for
    another call is closed."""

    connections: int = 4096
    per_route: int = 1024
    idle_seconds: float = 30.0


@dataclass(slots=True, eq=False)
class _Lane:
    """What there is for one route; `opened` counts the connections that are being opened too."""

    route: Route
    opened: int = 0
    idle: list[Connection] = field(default_factory=list)
    waiting: OrderedDict[Turn, int] = field(default_factory=OrderedDict)

    @property
    def first(self) -> int:
        """The number of the waiter who has waited longest."""
        return next(iter(self.waiting.values()))


class Pool:
    """Lends connections, and opens them within bounds."""

    def __init__(self, connector: Connector, clock: Clock, bounds: Bounds) -> None:
        self._connector = connector
        self._clock = clock
        self._bounds = bounds
        self._lanes: dict[Route, _Lane] = {}
        self._waiting: set[_Lane] = set()
        self._connections: dict[Connection, _Lane] = {}
        self._opened = 0
        self._numbers = count()
        self._sweep: asyncio.TimerHandle | None = None
        self._closing = False

    # Lending.

    async def acquire(self, route: Route, seconds: float) -> Connection:
        """A connection that no other call uses; `seconds`: to wait in the queue, and to connect.

        Raises Unavailable, and what `Connector.connect` raises.
        """
        lane = self._lanes.get(route) or _Lane(route)
        while lane.idle:
            connection = lane.idle.pop()
            if connection.expires > self._clock.monotonic() and connection.usable:
                return connection
            connection.close()
        return await self._new(lane, seconds)

    def release(self, connection: Connection, seconds: float) -> None:
        """Give back a connection that has no call; `seconds`: how long it may wait for one."""
        lane = self._connections.get(connection)
        if lane is None:
            return
        seconds = min(seconds, self._bounds.idle_seconds)
        # Who waits is given it without another look: what nobody asked for may have come already.
        if seconds <= 0 or self._closing or (self._waiting and not connection.usable):
            connection.close()
            return
        connection.expires = self._clock.monotonic() + seconds
        if self._waiting and not self._hand_over(connection, lane):
            return
        lane.idle.append(connection)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._expire)

    def distrust(self, route: Route) -> None:
        """Close what is idle there: one of these connections had been dead for a while."""
        lane = self._lanes.get(route)
        for connection in tuple(lane.idle) if lane is not None else ():
            connection.close()

    async def aclose(self) -> None:
        """Close every connection, used or idle; whoever waits is refused."""
        self._closing = True
        if self._sweep is not None:
            self._sweep.cancel()
        for lane in tuple(self._waiting):
            for turn in tuple(lane.waiting):
                if not turn.done():
                    turn.set_exception(Unavailable(CLOSING))
        for connection in tuple(self._connections):
            connection.close()
        await asyncio.sleep(0)  # the event loop closes the sockets

    def load(self) -> tuple[int, int, int]:
        """How many connections are open, how many of them idle, and how many callers wait."""
        idle = sum(len(lane.idle) for lane in self._lanes.values())
        waiting = sum(len(lane.waiting) for lane in self._lanes.values())
        return len(self._connections), idle, waiting

    # Opening.

    async def _new(self, lane: _Lane, seconds: float) -> Connection:
        if self._closing:
            raise Unavailable(CLOSING)
        self._lanes[lane.route] = lane
        if not self._has_room(lane):
            self._evict()
        if self._has_room(lane):
            self._reserve(lane)
        else:
            connection = await self._queue(lane, seconds)
            if connection is not None:
                return connection
        return await self._open(lane, seconds)

    async def _open(self, lane: _Lane, seconds: float) -> Connection:
        try:
            connection = await self._connector.connect(lane.route, seconds, self._closed)
        except BaseException:
            self._give_up(lane)
            raise
        self._connections[connection] = lane
        if connection.closed:
            self._closed(connection)
            raise UpstreamUnreachable(NOT_ANSWERED)
        if self._closing:
            connection.close()
            raise Unavailable(CLOSING)
        return connection

    def _has_room(self, lane: _Lane) -> bool:
        bounds = self._bounds
        return lane.opened < bounds.per_route and self._opened < bounds.connections

    def _reserve(self, lane: _Lane) -> None:
        lane.opened += 1
        self._opened += 1

    def _give_up(self, lane: _Lane) -> None:
        lane.opened -= 1
        self._opened -= 1
        self._forget(lane)
        self._serve()

    def _closed(self, connection: Connection) -> None:
        lane = self._connections.pop(connection, None)
        if lane is None:
            return
        if connection in lane.idle:
            lane.idle.remove(connection)
        self._give_up(lane)

    # Waiting.

    async def _queue(self, lane: _Lane, seconds: float) -> Connection | None:
        turn: Turn = asyncio.get_running_loop().create_future()
        lane.waiting[turn] = next(self._numbers)
        self._waiting.add(lane)
        try:
            async with asyncio.timeout(seconds):
                connection = await turn
        except BaseException as error:
            self._leave(lane, turn)
            if isinstance(error, TimeoutError):
                raise Unavailable(TOO_MANY_CALLS) from error
            raise
        if connection is not None and connection.closed:  # since it was handed over
            return await self.acquire(lane.route, seconds)
        return connection

    def _leave(self, lane: _Lane, turn: Turn) -> None:
        """Out of the queue; what has been given already goes to the next."""
        self._unqueue(lane, turn)
        if not turn.done() or turn.cancelled() or turn.exception() is not None:
            return
        connection = turn.result()
        if connection is None:
            self._give_up(lane)
        elif not connection.closed:
            self.release(connection, connection.expires - self._clock.monotonic())

    def _unqueue(self, lane: _Lane, turn: Turn) -> None:
        lane.waiting.pop(turn, None)
        if not lane.waiting:
            self._waiting.discard(lane)
            self._forget(lane)

    def _forget(self, lane: _Lane) -> None:
        """Nothing is kept for a route that has neither connections nor callers; another lane of the
        same route, made since this one was forgotten, is."""
        unused = not lane.opened and not lane.waiting
        if unused and self._lanes.get(lane.route) is lane:
            self._lanes.pop(lane.route, None)

    def _queues(self) -> list[_Lane]:
        """The lanes where somebody waits who has not just given up."""
        for lane in tuple(self._waiting):
            while lane.waiting and (turn := next(iter(lane.waiting))).done():
                self._unqueue(lane, turn)
        return list(self._waiting)

    def _hand_over(self, connection: Connection, lane: _Lane) -> bool:
        """Whether the connection is left over, those who wait having been served."""
        entitled = [one for one in self._queues() if one is lane or self._may_replace(one)]
        if not entitled:
            return True
        turn_of = min(entitled, key=lambda one: one.first)
        if turn_of is lane:
            self._give(lane, connection)
        else:
            connection.close()  # makes room, and that goes to whoever has waited longest
        return False

    def _may_replace(self, lane: _Lane) -> bool:
        return lane.opened < self._bounds.per_route

    def _serve(self) -> None:
        """Give the room there is to those who have waited longest."""
        while self._waiting:
            entitled = [lane for lane in self._queues() if self._has_room(lane)]
            if not entitled:
                return
            lane = min(entitled, key=lambda one: one.first)
            self._reserve(lane)
            self._give(lane, None)

    def _give(self, lane: _Lane, what: Connection | None) -> None:
        turn = next(iter(lane.waiting))
        self._unqueue(lane, turn)
        turn.set_result(what)

    # Idle connections.

    def _idle(self) -> Iterator[Connection]:
        for lane in tuple(self._lanes.values()):
            yield from tuple(lane.idle)

    def _evict(self) -> None:
        """Where all connections are taken, the one that has been idle longest makes room."""
        if self._opened >= self._bounds.connections:
            oldest = min(self._idle(), key=lambda one: one.expires, default=None)
            if oldest is not None:
                oldest.close()

    def _expire(self) -> None:
        self._sweep = None
        now = self._clock.monotonic()
        for connection in self._idle():
            if connection.expires <= now:
                connection.close()
        if any(lane.idle for lane in self._lanes.values()):
            self._sweep = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._expire)
