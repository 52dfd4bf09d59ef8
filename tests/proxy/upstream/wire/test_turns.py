"""The pool's turns, one event at a time: connections are made of nothing here."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from proxy.errors import Unavailable, UpstreamUnreachable
from proxy.reach import Reach
from proxy.upstream.wire.connector import Route
from proxy.upstream.wire.pool import Bounds, Pool
from tests.support.clock import FakeClock

A = Route("http", "a.test", 80, Reach.PUBLIC, False, "")
B = A._replace(host="b.test")


class Connection:
    def __init__(self, on_close: Callable[[Any], None]) -> None:
        self.closed = False
        self.usable = True
        self.expires = 0.0
        self._on_close = on_close

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._on_close(self)


class Connector:
    """Opens at once, or with the failure that a test sets."""

    def __init__(self) -> None:
        self.opened: list[Route] = []
        self.failure: Exception | None = None
        self.stillborn = False

    async def connect(
        self, route: Route, seconds: float, on_close: Callable[[Any], None]
    ) -> Connection:
        await asyncio.sleep(0)
        if self.failure:
            raise self.failure
        self.opened.append(route)
        connection = Connection(on_close)
        connection.closed = self.stillborn
        return connection


class Desk:
    """A pool for two, and what is asked of it."""

    def __init__(self, connections: int = 1, per_route: int = 9) -> None:
        self.connector = Connector()
        self.clock = FakeClock()
        bounds = Bounds(connections, per_route)
        self.pool = Pool(self.connector, self.clock, bounds)  # type: ignore[arg-type]

    async def acquire(self, route: Route = A, seconds: float = 5.0) -> Any:
        return await self.pool.acquire(route, seconds)

    async def queue(self, *routes: Route) -> list[asyncio.Task[Any]]:
        waiting = []
        for route in routes:
            waiting.append(asyncio.create_task(self.acquire(route)))
            await asyncio.sleep(0)
        return waiting

    @property
    def counts(self) -> tuple[int, int, int]:
        waiting = sum(len(lane.waiting) for lane in self.pool._waiting)
        return self.pool._opened, len(self.pool._lanes), waiting


@pytest.mark.parametrize("closed", [False, True])
async def test_a_turn_that_comes_too_late_goes_to_the_next(closed: bool) -> None:
    """Given and given up in the same moment: a connection, or the room for one."""
    desk = Desk()
    first = await desk.acquire()
    given_up, second = await desk.queue(A, A)
    first.close() if closed else desk.pool.release(first, 30)
    given_up.cancel()
    got = await asyncio.wait_for(second, 5)
    assert (got is first) is not closed
    assert given_up.cancelled()
    assert desk.counts == (1, 1, 0)


async def test_a_connection_that_died_in_a_turn_given_up_is_forgotten() -> None:
    """Nothing is left to pass on."""
    desk = Desk()
    first = await desk.acquire()
    (given_up,) = await desk.queue(A)
    desk.pool.release(first, 30)
    first.close()
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    assert desk.counts == (0, 0, 0)


@pytest.mark.parametrize("closed", [False, True])
async def test_who_has_just_given_up_is_passed_over(closed: bool) -> None:
    """Before the queue has heard of it."""
    desk = Desk()
    first = await desk.acquire()
    given_up, second = await desk.queue(A, A)
    given_up.cancel()
    first.close() if closed else desk.pool.release(first, 30)
    await asyncio.wait_for(second, 5)
    assert desk.counts == (1, 1, 0)


async def test_with_nobody_left_to_serve_a_connection_is_kept() -> None:
    """All who waited have given up."""
    desk = Desk()
    first = await desk.acquire()
    (given_up,) = await desk.queue(A)
    given_up.cancel()
    desk.pool.release(first, 30)
    await asyncio.sleep(0)
    assert await desk.acquire() is first


async def test_a_connection_that_dies_on_its_way_is_replaced() -> None:
    """By a new one, over the pool's own bounds."""
    desk = Desk()
    first = await desk.acquire()
    (second,) = await desk.queue(A)
    desk.pool.release(first, 30)
    first.close()
    assert not (await asyncio.wait_for(second, 5)).closed
    assert desk.counts == (1, 1, 0)


async def test_a_full_route_waits_while_others_are_served() -> None:
    """One who may not replace the connection is passed over; the order stays."""
    desk = Desk(connections=2, per_route=1)
    a, b = await desk.acquire(A), await desk.acquire(B)
    third, fourth = await desk.queue(A, B)
    desk.pool.release(b, 30)
    assert await asyncio.wait_for(fourth, 5) is b
    assert not third.done()
    desk.pool.release(a, 30)
    assert await asyncio.wait_for(third, 5) is a


async def test_a_failure_to_open_passes_the_room_on() -> None:
    """Its error is the caller's alone."""
    desk = Desk()
    first = await desk.acquire()
    second, third = await desk.queue(A, B)
    desk.connector.failure = UpstreamUnreachable("no")
    first.close()
    with pytest.raises(UpstreamUnreachable):
        await second
    desk.connector.failure = None
    assert not (await asyncio.wait_for(third, 5)).closed
    assert desk.counts == (1, 1, 0)


async def test_a_connection_that_is_born_dead_is_a_failure() -> None:
    """The upstream hung up at once."""
    desk = Desk()
    desk.connector.stillborn = True
    with pytest.raises(UpstreamUnreachable):
        await desk.acquire()
    assert desk.counts == (0, 0, 0)


async def test_who_waits_is_given_no_connection_on_which_octets_have_come() -> None:
    """They would be taken for the answer to a call that was not sent yet."""
    desk = Desk()
    first = await desk.acquire()
    [second] = await desk.queue(A)
    first.usable = False
    desk.pool.release(first, 30)
    assert first.closed
    assert await asyncio.wait_for(second, 5) is not first
    assert desk.counts == (1, 1, 0)


@pytest.mark.parametrize("what", ["expired", "unusable", "for no time", "closed twice"])
async def test_what_can_not_be_used_again_is_closed(what: str) -> None:
    """And counted no more."""
    desk = Desk()
    first = await desk.acquire()
    desk.pool.release(first, 0 if what == "for no time" else 30)
    if what == "expired":
        desk.clock.advance(30)
    first.usable = what != "unusable"
    if what == "closed twice":
        first.close()
        desk.pool.release(first, 30)
        desk.pool._closed(first)
    assert await desk.acquire() is not first
    assert first.closed
    assert desk.counts == (1, 1, 0)


async def test_the_end_finds_somebody_who_has_just_given_up() -> None:
    """And one who was about to be served."""
    desk = Desk()
    first = await desk.acquire()
    given_up, waiting = await desk.queue(A, A)
    given_up.cancel()
    await desk.pool.aclose()
    results = await asyncio.gather(given_up, waiting, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError, Unavailable]
    assert first.closed
    assert desk.counts == (0, 0, 0)
    desk.pool.release(first, 30)
    desk.pool.distrust(A)


async def test_who_gives_up_late_takes_no_connections_of_others_along() -> None:
    """By then his route may have been forgotten, and be in use anew."""
    desk = Desk()
    first = await desk.acquire(A._replace(host="other.test"))
    (given_up,) = await desk.queue(A)
    given_up.cancel()
    desk.pool.release(first, 30)
    second = await desk.acquire()
    assert given_up.cancelled()
    desk.pool.release(second, 30)
    assert desk.counts == (1, 1, 0)
    assert await desk.acquire() is second


async def test_a_storm_of_callers_leaves_the_counts_true() -> None:
    """Whatever they do, in whatever order."""
    desk, chance = Desk(connections=5, per_route=3), random.Random(3)
    routes = [A._replace(host=f"{name}.test") for name in "abcd"]

    async def caller() -> None:
        for _ in range(30):
            try:
                async with asyncio.timeout(chance.choice([0.0, 0.001, 5, 5, 5])):
                    connection = await desk.acquire(chance.choice(routes))
            except TimeoutError:
                continue
            assert not connection.closed
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            assert len(desk.pool._connections) <= 5
            if chance.random() < 0.3:
                connection.close()
            else:
                desk.pool.release(connection, 30)

    async with asyncio.timeout(30):
        await asyncio.gather(*(caller() for _ in range(50)))
    assert desk.pool._opened == len(desk.pool._connections) == len(list(desk.pool._idle()))
    assert desk.pool._waiting == set()
    assert sum(lane.opened for lane in desk.pool._lanes.values()) == desk.pool._opened
