"""Whose call begins next, where many are ready at once."""

from __future__ import annotations

import asyncio
import select
import socket
import sys
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from ipaddress import ip_network
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.cli.server import Server
from proxy.clock import SystemClock
from proxy.door import OPEN_WIDE, Door, DoorRules
from proxy.fair import AT_ONCE, FairTurns
from tests.proxy.test_door import GET, PROXY, Noting, connection
from tests.support.relay import listener

MOST = 3
CROWD = 40
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="one loopback address elsewhere")
HERE, THERE = "127.0.0.1", "127.0.0.2"


class Ready:
    """A call. `others`: addresses that waited when it became the first of its own to wait, and
    `behind`: how many calls had begun by then."""

    def __init__(self, whose: str, number: int) -> None:
        self.whose = whose
        self.number = number
        self.others: int | None = None
        self.behind = 0


class Loop:
    """An event loop that has only calls: what begins in one turn runs in the next."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []
        self.turns = FairTurns(MOST, self.due.append)
        self.numbers = count()  # some calls go again
        self.calls: list[Ready] = []
        self.waiting: list[Ready] = []
        self.begun: list[Ready] = []

    def ready(self, whose: str) -> None:
        """A call comes."""
        call = Ready(whose, next(self.numbers))
        self.calls.append(call)
        if self.turns.take():
            self._begin(call)
            return
        others = {one.whose for one in self.waiting}
        call.others, call.behind = None if whose in others else len(others), len(self.begun)
        self.waiting.append(call)
        self.turns.wait(whose, call, partial(self._called, call))

    def hang_up(self, place: int) -> None:
        """The caller of one that waits has gone."""
        if self.waiting:
            call = self.waiting.pop(place % len(self.waiting))
            self.calls.remove(call)
            self.turns.forget(call.whose, call)

    def turn(self) -> int:
        """How many ran in it."""
        due, self.due[:] = list(self.due), []
        for one in due:
            one()
        return due.count(self.turns.ran)

    def _called(self, call: Ready) -> None:
        self.waiting.remove(call)
        self._begin(call)

    def _begin(self, call: Ready) -> None:
        self.begun.append(call)
        self.due.append(self.turns.ran)


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("ready"), st.sampled_from("aaaabcd")),
        st.tuples(st.just("hang up"), st.integers(0, 50)),
        st.tuples(st.just("turn"), st.none()),
    ),
    max_size=200,
)


@given(ACTS)
def test_whatever_comes_all_begin_a_few_in_each_turn_and_nobody_behind_a_crowd(
    acts: list[tuple[str, Any]],
) -> None:
    """None is lost and none begins that has gone; an address keeps its order; one that comes to
    wait begins once each address before it has had one turn at most."""
    loop = Loop()
    for act, what in acts:
        if act == "ready":
            loop.ready(what)
        elif act == "hang up":
            loop.hang_up(what)
        else:
            assert loop.turn() <= MOST
        assert loop.turns.waiting == len(loop.waiting)
        assert loop.turns.crowded or not loop.waiting
    while loop.due:
        assert loop.turn() <= MOST
    assert sorted(loop.begun, key=lambda call: call.number) == loop.calls
    for whose in "abcd":
        numbers = [call.number for call in loop.begun if call.whose == whose]
        assert numbers == sorted(numbers)
    for place, call in enumerate(loop.begun):
        assert call.others is None or place - call.behind <= call.others
    assert all(loop.turns.take() for _ in range(MOST))
    assert not loop.turns.take()


def test_a_newcomer_is_next_but_one_behind_a_crowd() -> None:
    """However large it is."""
    loop = Loop()
    for _ in range(1000):
        loop.ready("crowd")
    loop.ready("kind")
    while len(loop.begun) == MOST:
        loop.turn()
    assert [call.whose for call in loop.begun[MOST:]] == ["crowd", "kind", "crowd"]


def test_nothing_is_kept_of_who_has_hung_up() -> None:
    """Neither the call nor its address."""
    loop = Loop()
    for number in range(100):
        loop.ready(f"192.0.2.{number}")
    gone = weakref.ref(loop.waiting[-1])
    while loop.waiting:
        loop.hang_up(0)
    assert gone() is None
    assert (loop.turns.waiting, dict(loop.turns._queues)) == (0, {})


def test_at_the_end_nobody_is_called_any_more() -> None:
    """Who waits stays unanswered, and the places come back."""
    loop = Loop()
    for _ in range(10):
        loop.ready("crowd")
    loop.turns.give_up()
    assert loop.turn() == MOST
    assert len(loop.begun) == MOST
    assert loop.turns.take()


# At connections.

TRUSTING = DoorRules(1000, 1000, (ip_network("10.0.0.0/8"),))


def called(app: Noting, peers: list[str], forwarded: list[bytes]) -> tuple[Door, list[Any]]:
    """Connections of `peers` that call in one turn, each for whom it says."""
    door = Door(TRUSTING, SystemClock())
    made = [connection(door, peer, app)[0] for peer in peers]
    for one, who in zip(made, forwarded, strict=True):
        one.data_received(GET % (b"", who))
    return door, made


async def over(app: Noting, made: list[Any], calls: int) -> None:
    """All of them are answered, and the connections end."""
    async with asyncio.timeout(10):
        for _ in range(calls):
            app.turns.release()
        while len(app.callers) < calls or any(one.tasks for one in made):
            await asyncio.sleep(0)
    for one in made:
        one.connection_lost(None)


@pytest.mark.parametrize(
    ("crowd", "kind"),
    [(HERE, THERE), ("192.0.2.1", "192.0.2.2"), ("2001:db8::%d", "2001:db8:0:1::1")],
)
async def test_addresses_take_turns(crowd: str, kind: str) -> None:
    """Also those that the door does not count; all of a /64 are one."""
    app, peers = Noting(), [crowd.replace("%d", str(number)) for number in range(CROWD)]
    _, made = called(app, [*peers, kind], [b""] * (CROWD + 1))
    await over(app, made, CROWD + 1)
    assert app.callers.index(kind) == AT_ONCE + 1


async def test_behind_a_proxy_those_take_turns_for_whom_it_calls() -> None:
    """Its connections are one address's, its callers are not."""
    app = Noting()
    who = [b"X-Forwarded-For: 192.0.2.1\r\n"] * CROWD + [b"X-Forwarded-For: 192.0.2.2\r\n"]
    _, made = called(app, [PROXY] * (CROWD + 1), who)
    await over(app, made, CROWD + 1)
    assert app.callers.index("192.0.2.2") == AT_ONCE + 1


@pytest.mark.parametrize("peer", [HERE, PROXY])
async def test_a_caller_that_hangs_up_while_it_waits_is_forgotten(peer: str) -> None:
    """At once, without a collector; the call is never begun, or not even read."""
    app = Noting()
    door, made = called(app, [peer] * CROWD, [b"X-Forwarded-For: 192.0.2.1\r\n"] * CROWD)
    assert door.turns.waiting == CROWD - AT_ONCE
    gone = [weakref.ref(one) for one in made[AT_ONCE:]]
    while len(made) > AT_ONCE:
        made.pop().connection_lost(None)
    assert door.turns.waiting == 0
    assert [one() for one in gone] == [None] * len(gone)
    await over(app, made, AT_ONCE)
    assert len(app.callers) == AT_ONCE


async def test_who_waits_is_read_no_further() -> None:
    """What came with one read waits, and what was under way; nothing of it is lost."""
    app, door = Noting(), Door(OPEN_WIDE, SystemClock())
    made = [connection(door, HERE, app) for _ in range(AT_ONCE + 1)]
    for one, _ in made:
        one.data_received(GET % (b"first", b""))
    last, wire = made[-1]
    for piece in (b"GET /second HTTP/1.1\r\nHo", b"st: a\r\n\r\n"):
        last.data_received(piece)
        assert not wire.reads
    await over(app, [one for one, _ in made], AT_ONCE + 2)
    assert wire.reads
    assert app.paths.count("/first") == AT_ONCE + 1
    assert wire.written.count(b"HTTP/1.1 200 ") == 2


async def test_a_turn_with_which_no_call_begins_is_the_next_ones() -> None:
    """Half a header, or what is no HTTP, holds no place."""
    app, door = Noting(), Door(OPEN_WIDE, SystemClock())
    made = [connection(door, HERE, app)[0] for _ in range(CROWD)]
    for place, one in enumerate(made):
        waits = AT_ONCE <= place < CROWD - AT_ONCE
        one.data_received((b"GET /", b"junk\r\n\r\n")[place % 2] if waits else GET % (b"", b""))
    assert door.turns.waiting == CROWD - AT_ONCE
    await over(app, made, 2 * AT_ONCE)
    assert all(door.turns.take() for _ in range(AT_ONCE))
    assert not door.turns.take()


async def test_a_connection_keeps_its_order() -> None:
    """Each of its calls waits for its turn behind those of others."""
    app, door = Noting(), Door(OPEN_WIDE, SystemClock())
    one, other = (connection(door, peer, app)[0] for peer in (HERE, THERE))
    one.data_received(b"".join(GET % (b"%d" % number, b"") for number in range(8)))
    other.data_received(GET % (b"other", b""))
    await over(app, [one, other], 9)
    assert [path for path in app.paths if path != "/other"] == [f"/{n}" for n in range(8)]


# Over sockets.


class Crowd:
    """Callers whose requests are all there before the server looks; the last one's address is
    another."""

    def __init__(self, port: int, stack: ExitStack) -> None:
        self._port = port
        self._stack = stack
        self.callers = [self._caller(HERE) for _ in range(CROWD)] + [self._caller(THERE)]

    def _caller(self, address: str) -> socket.socket:
        one = self._stack.enter_context(socket.socket())
        one.bind((address, 0))
        one.connect((HERE, self._port))
        return one

    def call(self, server: Server) -> None:
        """All at once, and nothing else happens until they have come."""
        for one in self.callers:
            one.sendall(GET % (b"", b"Connection: close\r\n"))
        poll = select.poll()
        for there in server.server_state.connections:
            poll.register(there.transport.get_extra_info("socket"), select.POLLIN)
        while len(poll.poll(10_000)) < len(self.callers):
            pass

    async def hear(self) -> list[bytes]:
        """What each is answered, to its connection's end."""
        return await asyncio.gather(*map(_heard, self.callers))


async def _heard(one: socket.socket) -> bytes:
    heard = b""
    one.setblocking(False)
    async with asyncio.timeout(20):
        while part := await asyncio.get_running_loop().sock_recv(one, 4096):
            heard += part
    return heard


@asynccontextmanager
async def crowded(app: Any) -> AsyncIterator[tuple[Server, Crowd]]:
    """A server that all of them are connected to."""
    with ExitStack() as stack:
        place = stack.enter_context(listener())
        server = Server(app, place)
        async with server.running(), asyncio.timeout(30):
            while not server.started:
                await asyncio.sleep(0)
            crowd = Crowd(place.getsockname()[1], stack)
            while len(server.server_state.connections) < CROWD + 1:
                await asyncio.sleep(0)
            yield server, crowd


@LINUX
async def test_another_address_is_answered_beside_a_crowd() -> None:
    """Though all of it had called before."""
    app = Noting()
    for _ in range(CROWD + 1):
        app.turns.release()
    async with crowded(app) as (server, crowd):
        crowd.call(server)
        answers = await crowd.hear()
    assert {answer[:13] for answer in answers} == {b"HTTP/1.1 200 "}
    assert app.callers.index(THERE) <= AT_ONCE + 1
    assert len(app.callers) == CROWD + 1


@LINUX
async def test_a_server_that_stops_answers_who_waits() -> None:
    """Told so by the first of them."""
    app = Noting()

    async def stopping(scope: Any, receive: Any, send: Any) -> None:
        app.turns.release()
        if not server.should_exit:
            server.stop()
        await app(scope, receive, send)

    async with crowded(stopping) as (server, crowd):
        crowd.call(server)
        answers = await crowd.hear()
    assert {answer[:13] for answer in answers} == {b"HTTP/1.1 200 "}
    assert server.cut == 0
