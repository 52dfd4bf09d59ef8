"""Which connection a call gets, and who waits for one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from proxy.errors import Unavailable, UpstreamUnreachable
from proxy.upstream.transport import Deadlines
from proxy.upstream.wire.connection import Connection
from proxy.upstream.wire.pool import Bounds
from tests.support.clock import FakeClock
from tests.support.origin import Exchange, Origin, reply
from tests.support.outbound import Sender, fetch
from tests.support.resolver import FakeResolver
from tests.support.wire import left_behind, wire_sender

LOCAL = FakeResolver(default=["127.0.0.1"])


class Gate:
    """Answers one held call after the other, each with its path."""

    def __init__(self) -> None:
        self.held: list[tuple[str, asyncio.Event]] = []
        self._arrived = asyncio.Condition()

    async def __call__(self, exchange: Exchange) -> None:
        released = asyncio.Event()
        async with self._arrived:
            self.held.append((exchange.request.path, released))
            self._arrived.notify_all()
        await exchange.wait(released)
        await exchange.reply(200, (), exchange.request.path.encode())

    async def arrivals(self, number: int) -> list[str]:
        async with asyncio.timeout(5), self._arrived:
            await self._arrived.wait_for(lambda: len(self.held) >= number)
        return [path for path, _ in self.held]

    def release(self, index: int) -> None:
        self.held[index][1].set()


@asynccontextmanager
async def held(bounds: Bounds) -> AsyncIterator[tuple[Sender, Gate, str]]:
    gate = Gate()
    async with Origin(gate) as origin, wire_sender(LOCAL, bounds=bounds) as to:
        yield to, gate, f":{origin.port}"


def calls(to: Sender, *urls: str) -> list[asyncio.Task[tuple[object, bytes]]]:
    return [asyncio.create_task(fetch(to, url)) for url in urls]


async def turns(number: int = 20) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_who_waits_is_served_in_turn() -> None:
    """First come, first served; a newcomer never overtakes."""
    async with held(Bounds(per_route=1)) as (to, gate, at):
        waiting = calls(to, *(f"http://a.test{at}/{number}" for number in range(4)))
        await gate.arrivals(1)
        for number in range(4):
            await gate.arrivals(number + 1)
            gate.release(number)
            await waiting[number]
            if number == 0:
                waiting += calls(to, f"http://a.test{at}/4")
        await gate.arrivals(5)
        gate.release(4)
        await waiting[4]
        assert await gate.arrivals(5) == ["/0", "/1", "/2", "/3", "/4"]
        assert left_behind(to) == (1, 1, 0)
        assert to.dialler.dialled == 1


async def test_a_route_that_is_full_leaves_room_for_others() -> None:
    """Calls to one slow provider don't hold up the rest."""
    async with held(Bounds(connections=9, per_route=1)) as (to, gate, at):
        one = calls(to, f"http://a.test{at}/1", f"http://a.test{at}/2", f"http://b.test{at}/3")
        assert sorted(await gate.arrivals(2)) == ["/1", "/3"]
        for index in (0, 1):
            gate.release(index)
        await gate.arrivals(3)
        gate.release(2)
        await asyncio.gather(*one)


async def test_where_all_are_taken_routes_take_turns() -> None:
    """Whoever has waited longest gets the place, even if a connection elsewhere must close."""
    async with held(Bounds(connections=1, per_route=9)) as (to, gate, at):
        urls = [f"http://{name}.test{at}/{name}" for name in ("a", "b", "a", "c")]
        every = calls(to, *urls)
        for number in range(4):
            await gate.arrivals(number + 1)
            gate.release(number)
        await asyncio.gather(*every)
        assert await gate.arrivals(4) == ["/a", "/b", "/a", "/c"]
        assert left_behind(to) == (1, 1, 0)


async def test_an_idle_connection_makes_room() -> None:
    """The one that was idle longest, whatever its route."""
    async with held(Bounds(connections=2, per_route=2)) as (to, gate, at):
        for number, name in enumerate(("a", "b", "c", "b")):
            (call,) = calls(to, f"http://{name}.test{at}/{name}")
            await gate.arrivals(number + 1)
            gate.release(number)
            await call
        assert to.dialler.dialled == 3
        assert left_behind(to) == (2, 2, 0)


async def test_nobody_waits_longer_than_the_deadline() -> None:
    """503, and the queue forgets who left."""
    async with held(Bounds(per_route=1)) as (to, gate, at):
        first, given_up = calls(to, f"http://a.test{at}/0", f"http://a.test{at}/1")
        await gate.arrivals(1)
        with pytest.raises(Unavailable):
            await fetch(to, f"http://a.test{at}/2", deadlines=Deadlines(connect=0.05))
        given_up.cancel()
        last = calls(to, f"http://a.test{at}/3")[0]
        await turns()
        gate.release(0)
        await first
        await gate.arrivals(2)
        gate.release(1)
        await last
        assert await gate.arrivals(2) == ["/0", "/3"]


@pytest.mark.parametrize("given", ["a connection", "room"])
@pytest.mark.parametrize("wait", range(6))
async def test_who_gives_up_as_the_turn_comes_leaves_it_to_the_next(given: str, wait: int) -> None:
    """It was given what it never used."""
    gone = asyncio.Event()

    async def closes(exchange: Exchange) -> None:
        await exchange.wait(gone)
        says = [("Connection", "close")] if given == "room" else []
        await exchange.send(reply(200, says, b"ok"))

    async with (
        Origin([closes, reply(200, (), b"ok")]) as origin,
        wire_sender(bounds=Bounds(connections=1)) as to,
    ):
        loop = asyncio.get_running_loop()
        first, second, third = calls(to, *[origin.url] * 3)
        await turns()

        def cancel_after(number: int) -> None:
            if number:
                loop.call_soon(cancel_after, number - 1)
            else:
                second.cancel()

        first.add_done_callback(lambda _: cancel_after(wait))
        gone.set()
        async with asyncio.timeout(5):
            assert (await first)[1] == (await third)[1] == b"ok"
            await asyncio.gather(second, return_exceptions=True)
        assert left_behind(to) == (1, 1, 0)


async def test_a_handed_over_connection_that_dies_is_replaced() -> None:
    """Between its end and its next call it was nobody's."""
    async with held(Bounds(per_route=1)) as (to, gate, at):
        first, second = calls(to, f"http://a.test{at}/0", f"http://a.test{at}/1")
        await gate.arrivals(1)
        pool = to.transport._pool  # type: ignore[attr-defined]
        give = pool._give

        def give_and_close(lane: object, connection: Connection | None) -> None:
            give(lane, connection)
            if connection is not None:
                connection.close()

        pool._give = give_and_close
        gate.release(0)
        await first
        await gate.arrivals(2)
        gate.release(1)
        assert (await second)[1] == b"/1"
        assert left_behind(to) == (1, 1, 0)


async def test_a_failed_connection_leaves_its_place() -> None:
    """To whoever waits, who then fails by itself."""
    async with Origin() as origin:
        pass
    async with wire_sender(bounds=Bounds(connections=1)) as to:
        failed = await asyncio.gather(*calls(to, *[origin.url] * 3), return_exceptions=True)
        assert [type(error) for error in failed] == [UpstreamUnreachable] * 3
        assert left_behind(to) == (0, 0, 0)


async def test_the_last_connection_used_goes_out_first() -> None:
    """The others can expire."""
    async with held(Bounds()) as (to, gate, at):
        both = calls(to, f"http://a.test{at}/0", f"http://a.test{at}/1")
        await gate.arrivals(2)
        for index in (0, 1):
            gate.release(index)
            await both[int(gate.held[index][0][1:])]
        newest = gate.held[1][0]
        for index in (2, 3):
            (again,) = calls(to, f"http://a.test{at}/again")
            await gate.arrivals(index + 1)
            gate.release(index)
            await again
        pool = to.transport._pool  # type: ignore[attr-defined]
        counts = sorted(connection.calls for connection in pool._connections)
        assert newest in ("/0", "/1")
        assert counts == [1, 3]


@pytest.mark.parametrize(("says", "seconds"), [([], 30.0), ([("Keep-Alive", "timeout=5")], 4.0)])
async def test_an_idle_connection_expires(says: list[tuple[str, str]], seconds: float) -> None:
    """After half a minute, or when the upstream is about to close it."""
    clock = FakeClock()
    async with Origin(reply(200, says, b"ok")) as origin, wire_sender(clock=clock) as to:
        await fetch(to, origin.url)
        clock.advance(seconds - 0.1)
        await fetch(to, origin.url)
        assert origin.connections == 1
        clock.advance(seconds)
        await fetch(to, origin.url)
        assert origin.connections == 2
        assert left_behind(to) == (1, 1, 0)


async def test_expired_connections_are_closed_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked through now and then, as long as any is idle."""
    monkeypatch.setattr("proxy.upstream.wire.pool.SWEEP_SECONDS", 0.01)
    clock, over = FakeClock(), asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await exchange.reply()
        await exchange.hung_up()
        over.set()

    async with Origin(handler) as origin, wire_sender(clock=clock) as to:
        await fetch(to, origin.url)
        await asyncio.sleep(0.05)
        assert left_behind(to) == (1, 1, 0)
        clock.advance(30)
        await asyncio.wait_for(over.wait(), 5)
        assert left_behind(to) == (0, 0, 0)


async def test_an_idle_connection_that_the_upstream_closes_is_forgotten(to: Sender) -> None:
    """At once, not at the next call."""

    async def handler(exchange: Exchange) -> None:
        await exchange.reply()
        await exchange.close()

    async with Origin(handler) as origin:
        await fetch(to, origin.url)
        async with asyncio.timeout(5):
            while left_behind(to) != (0, 0, 0):
                await asyncio.sleep(0)


async def test_partitions_share_no_connection(to: Sender) -> None:
    """Where credentials differ, so do connections."""
    async with Origin(reply(200, (), b"ok")) as origin:
        for partition in ("a", "b", "a", "b"):
            request = to.request(origin.url)._replace(partition=partition)
            async with to.transport.send(request) as response:
                assert [part async for part in response.body] == [b"ok"]
    assert origin.connections == 2


async def test_the_end_refuses_whoever_waits_and_cuts_the_rest() -> None:
    """Nothing stays open, and nothing is opened any more."""
    async with held(Bounds(per_route=1)) as (to, gate, at):
        under_way, waiting = calls(to, f"http://a.test{at}/0", f"http://a.test{at}/1")
        opening = calls(to, f"http://b.test{at}/2")[0]
        await gate.arrivals(2)
        await to.transport.aclose()
        results = await asyncio.gather(under_way, waiting, opening, return_exceptions=True)
        assert [type(error) for error in results] == [
            UpstreamUnreachable,
            Unavailable,
            UpstreamUnreachable,
        ]
        with pytest.raises(Unavailable):
            await fetch(to, f"http://a.test{at}/3")
        assert left_behind(to) == (0, 0, 0)


async def test_the_end_overtakes_a_connection_that_is_being_opened() -> None:
    """It is closed as soon as it is there."""
    async with Origin() as origin, wire_sender() as to:
        calling = calls(to, origin.url)[0]
        await asyncio.sleep(0)
        await to.transport.aclose()
        with pytest.raises(Unavailable):
            await calling
        assert left_behind(to) == (0, 0, 0)
    assert origin.requests == []
