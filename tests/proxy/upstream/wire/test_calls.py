"""Calls over the wire: what is sent when, what ends early, and what is left behind."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

import pytest

from proxy.errors import (
    BadRequest,
    UpstreamError,
    UpstreamIncomplete,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from proxy.network import dial
from proxy.upstream.transport import Deadlines
from proxy.upstream.wire.connection import MAX_JOINED
from proxy.upstream.wire.pool import Bounds
from tests.support.origin import Exchange, Origin, chunked, head, reply
from tests.support.outbound import Body, Sender, fetch, whole
from tests.support.wire import left_behind, wire_sender


class AtHand(Body):
    """A body that has come already."""

    def at_hand(self) -> bytes | None:
        return b"".join(self._parts)  # type: ignore[arg-type]


class Reads(asyncio.Protocol):
    """A server that keeps each read apart, and answers the first."""

    def __init__(self, reads: list[bytes]) -> None:
        self.reads = reads

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.reads.append(data)
        if len(self.reads) == 1:
            self.transport.write(reply(200, (), b"ok"))  # type: ignore[attr-defined]


# What is sent.


@pytest.mark.parametrize(
    ("parts", "length"), [([b"x" * 300], 300), ([b"a", b"b"], None), ([], 0), ([], None)]
)
async def test_a_small_request_is_one_write(
    to: Sender, parts: list[bytes], length: int | None
) -> None:
    """Header, body and the last chunk, where they are there at once."""
    body = Body(parts, length)
    reads: list[bytes] = []
    server = await asyncio.get_running_loop().create_server(lambda: Reads(reads), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await fetch(to, f"http://127.0.0.1:{port}/", "POST", body=body)
    assert len(reads) == 1
    assert body.reads == (length != 0)


@pytest.mark.parametrize("size", [1, MAX_JOINED, MAX_JOINED + 1])
async def test_a_body_that_is_there_already_is_not_waited_for(to: Sender, size: int) -> None:
    """Nor read, unless it is long."""
    body = AtHand([b"x" * size], size)
    async with Origin(reply(200, (), b"ok")) as origin:
        await fetch(to, origin.url, "POST", body=body)
    assert len(origin.requests[0].body) == size
    assert body.reads == (size > MAX_JOINED)


@pytest.mark.parametrize("declared", [1, 3])
async def test_a_body_that_is_there_must_be_as_long_as_declared(to: Sender, declared: int) -> None:
    """RFC 9112 section 6.2."""
    async with Origin(reply(200, (), b"ok")) as origin:
        with pytest.raises(BadRequest):
            await fetch(to, origin.url, "POST", body=AtHand([b"xx"], declared))


async def test_the_header_does_not_wait_for_a_slow_body(to: Sender) -> None:
    """The upstream may judge a request before its body exists."""
    arrived = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        arrived.set()
        await exchange.read_body()
        await exchange.reply()

    async def parts() -> AsyncIterator[bytes]:
        await arrived.wait()
        yield b"late"

    async with Origin(handler, read_body=False) as origin:
        await asyncio.wait_for(fetch(to, origin.url, "POST", body=Body(parts(), 4)), 5)
    assert origin.last.body == b"late"


@pytest.mark.parametrize(
    ("parts", "length"),
    [([b"abc"], 5), ([b"abc", b"defgh"], 5), ([], 5), ([b"a" * MAX_JOINED, b"b" * MAX_JOINED], 9)],
)
async def test_a_body_of_another_length_than_declared_breaks_the_request(
    to: Sender, parts: list[bytes], length: int
) -> None:
    """Whole it never arrives, and nothing else goes over that connection."""
    async with Origin(reply(200, (), b"ok")) as origin:
        with pytest.raises(BadRequest):
            await fetch(to, origin.url, "POST", body=Body(parts, length))
        assert (await fetch(to, origin.url))[1] == b"ok"
    assert [request.method for request in origin.requests] == ["GET"]
    assert origin.connections == 2


async def test_expect_is_never_sent(to: Sender) -> None:
    """It is answered by us (contract section 2)."""
    async with Origin() as origin:
        await fetch(to, origin.url, "POST", ((b"expect", b"100-continue"),), whole(b"x"))
    assert origin.last.header("expect") is None


# Early answers.


async def test_an_early_answer_does_not_wait_for_a_silent_caller(to: Sender) -> None:
    """The upload is stopped where it stands, and its connection is not used again."""
    closed = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await exchange.send(reply(413, (), b"too large"))
        await exchange.hung_up()

    async def parts() -> AsyncIterator[bytes]:
        try:
            yield b"a"
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with Origin([handler, reply()], read_body=False) as origin:
        response, body = await asyncio.wait_for(
            fetch(to, origin.url, "POST", body=Body(parts(), 9)), 5
        )
        assert closed.is_set()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await fetch(to, origin.url)
    assert (response.status, body) == (413, b"too large")
    assert origin.connections == 2


async def test_an_early_answer_ends_an_upload_that_nobody_takes(to: Sender) -> None:
    """The upstream reads none of it, and says why."""
    begun = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await exchange.wait(begun)
        await exchange.send(reply(429, (), b"slow down"))
        await exchange.hung_up()

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(64):  # more than buffers take, however much that is
            begun.set()
            yield bytes(1 << 20)

    async with Origin(handler, read_body=False, limit=1 << 16) as origin:
        response, body = await fetch(to, origin.url, "POST", body=Body(parts(), None))
    assert (response.status, body) == (429, b"slow down")


async def test_a_connection_that_is_full_of_an_unread_body_is_not_used_again(to: Sender) -> None:
    """The next call would stand behind octets that the upstream may never take."""

    async def refuse(exchange: Exchange) -> None:
        await exchange.reply(413, (), b"no")
        await exchange.hung_up()

    octets = bytes(32 << 20)
    async with Origin([refuse, reply(200, (), b"ok")], read_body=False) as origin:
        _, first = await fetch(to, origin.url, "POST", body=whole(octets))
        _, second = await asyncio.wait_for(fetch(to, origin.url), 10)
    assert (first, second) == (b"no", b"ok")
    assert origin.connections == 2


async def test_an_early_answer_outlives_its_connection(to: Sender) -> None:
    """The upstream refuses, hangs up hard, and only then the caller's next octets come."""
    loop, gone = asyncio.get_running_loop(), asyncio.Event()

    async def parts() -> AsyncIterator[bytes]:
        yield b"a"
        await gone.wait()
        yield bytes(MAX_JOINED + 1)
        yield bytes(MAX_JOINED + 1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        calling = asyncio.create_task(fetch(to, url, "POST", body=Body(parts(), None)))
        connection, _ = await loop.sock_accept(listener)
        await loop.sock_recv(connection, 65536)
        connection.send(reply(413, (), b"too large"))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        gone.set()
        response, body = await asyncio.wait_for(calling, 5)
    assert (response.status, body) == (413, b"too large")


async def test_an_upstream_that_hangs_up_ends_the_upload(to: Sender) -> None:
    """Nobody waits for the caller's next octets."""

    async def handler(exchange: Exchange) -> None:
        exchange.abort()

    async def parts() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.Event().wait()

    async with Origin(handler, read_body=False) as origin:
        with pytest.raises(UpstreamUnreachable):
            await asyncio.wait_for(fetch(to, origin.url, "POST", body=Body(parts(), 9)), 5)


async def test_a_caller_who_hangs_up_as_the_answer_comes_is_gone(to: Sender) -> None:
    """The cancellation that ends an upload never hides another one."""
    arrived, answer = asyncio.Event(), asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        arrived.set()
        await exchange.wait(answer)
        await exchange.send(reply(413))
        await exchange.hung_up()

    async def parts() -> AsyncIterator[bytes]:
        yield b"a"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            calling.cancel()  # the caller's, in the same turn
            raise

    async with Origin(handler, read_body=False) as origin:
        calling = asyncio.create_task(fetch(to, origin.url, "POST", body=Body(parts(), 9)))
        await arrived.wait()
        answer.set()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(calling, 5)


async def test_a_body_that_shrugs_off_a_cancellation_is_stopped_too(to: Sender) -> None:
    """After its next part, and the task is not left half cancelled."""
    seen: list[int] = []

    async def handler(exchange: Exchange) -> None:
        await exchange.send(reply(413, (), b"no"))
        await exchange.hung_up()

    async def parts() -> AsyncIterator[bytes]:
        yield b"a"
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        seen.append(1)
        yield b"b"
        seen.append(2)
        yield b"c"

    async with Origin(handler, read_body=False) as origin:
        _, body = await fetch(to, origin.url, "POST", body=Body(parts(), None))
        await asyncio.sleep(0)
    assert (body, seen) == (b"no", [1])


# Deadlines.


@pytest.mark.parametrize("stage", ["request", "header", "body"])
async def test_a_call_may_be_bounded_as_a_whole(to: Sender, stage: str) -> None:
    """Octets that drip don't stretch it, nor does a silent caller."""

    async def handler(exchange: Exchange) -> None:
        if stage == "body":
            await exchange.start()
        if stage != "request":
            await exchange.drip(b"1\r\na\r\n" * 1000 if stage == "body" else head(100) * 9, 0.005)
        await exchange.hung_up()

    async def parts() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.Event().wait()

    body = Body(parts(), 9) if stage == "request" else None
    async with Origin(handler, read_body=False) as origin:
        with pytest.raises(UpstreamTimeout):
            await asyncio.wait_for(
                fetch(to, origin.url, "POST", body=body, deadlines=Deadlines(total=0.1)), 5
            )
        assert left_behind(to) == (0, 0, 0)


async def test_a_deadline_ends_with_its_call(to: Sender) -> None:
    """The next call over the same connection has its own."""
    async with Origin(reply(200, (), b"ok")) as origin:
        await fetch(to, origin.url, deadlines=Deadlines(total=1.5, first_byte=1.5, idle=1.5))
        await asyncio.sleep(1.6)
        await fetch(to, origin.url)
    assert origin.connections == 1


# Bodies.


async def test_what_has_come_is_given_at_once(to: Sender) -> None:
    """Pieces that came since the last time are joined."""
    parts = [b"%d" % number * 10 for number in range(10)]
    async with Origin(chunked(parts)) as origin, to.transport.send(to.request(origin.url)) as got:
        assert await anext(got.body) == b"".join(parts)
        assert [part async for part in got.body] == []


async def test_a_body_ends_with_its_call(to: Sender) -> None:
    """Read later it never gives the octets of another call."""
    async with Origin([chunked([b"first"]), reply(200, (), b"second")]) as origin:
        async with to.transport.send(to.request(origin.url)) as unread:
            pass
        assert (await fetch(to, origin.url))[1] == b"second"
        assert [part async for part in unread.body] == [b"first"]


async def test_a_body_that_was_given_up_is_cut(to: Sender) -> None:
    """Nothing tells later that more would have come."""

    async def handler(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.hung_up()

    async with Origin(handler) as origin:
        async with to.transport.send(to.request(origin.url)) as response:
            pass
        with pytest.raises(UpstreamIncomplete):
            await anext(response.body)


async def test_a_paused_connection_goes_on_for_the_next_call(to: Sender) -> None:
    """A complete answer that nobody read leaves nothing paused."""
    size = 1 << 19
    async with Origin([reply(200, (), bytes(size)), reply(200, (), b"next")]) as origin:
        async with to.transport.send(to.request(origin.url)) as response:
            while not response.body._answer.complete:  # type: ignore[attr-defined]
                response.body._connection.taken(response.body._answer)  # type: ignore[attr-defined]
                await asyncio.sleep(0)
        assert (await fetch(to, origin.url))[1] == b"next"
    assert origin.connections == 1


# What is left behind.


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_call_given_up_at_any_moment_leaves_its_place(streamed: bool) -> None:
    """Only one connection may be open, and the next call has it."""

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"a"
            await asyncio.sleep(0)

    async with Origin(chunked([b"o", b"k"])) as origin:
        for turns in range(40):
            async with wire_sender(bounds=Bounds(connections=1)) as to:
                body = Body(parts(), None) if streamed else None
                given_up = asyncio.create_task(fetch(to, origin.url, "POST", body=body))
                for _ in range(turns):
                    await asyncio.sleep(0)
                given_up.cancel()
                await asyncio.gather(given_up, return_exceptions=True)
                _, octets = await asyncio.wait_for(fetch(to, origin.url), 5)
                assert octets == b"ok"
            assert left_behind(to) == (0, 0, 0)


@pytest.mark.parametrize(
    "raw",
    [
        reply(200, (), b"ok") + b"x",
        reply(200) + b"x",
        chunked([b"ok"]) + b"x",
        head(200, [("Transfer-Encoding", "chunked")]) + b"x\r\nok\r\n0\r\n\r\n",
    ],
)
async def test_an_answer_that_has_no_end_of_its_own_is_refused(to: Sender, raw: bytes) -> None:
    """Octets behind it, or a chunk that is none: while nothing of it was passed on."""
    async with Origin([raw, reply(200, (), b"next")]) as origin:
        with pytest.raises(UpstreamError, match="does not end where it says"):
            await fetch(to, origin.url)
        assert (await fetch(to, origin.url))[1] == b"next"
    assert origin.connections == 2


@pytest.mark.parametrize("stage", ["turn", "name"])
async def test_the_bound_of_a_call_holds_before_it_has_a_connection(stage: str) -> None:
    """It may be shorter than the time for a connection."""
    seconds = Deadlines(connect=60, total=0.05)
    arrived, release = asyncio.Event(), asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        arrived.set()
        await exchange.wait(release)
        await exchange.reply(200, (), b"ok")

    async def endless(*_: object) -> socket.socket:
        await asyncio.Event().wait()
        raise AssertionError

    wires = endless if stage == "name" else dial
    async with (
        Origin(handler) as origin,
        wire_sender(wires=wires, bounds=Bounds(connections=1)) as to,
    ):
        waiting = [asyncio.create_task(fetch(to, origin.url))] if stage == "turn" else []
        if waiting:
            await arrived.wait()
        with pytest.raises(UpstreamTimeout, match="longer than it may"):
            await asyncio.wait_for(fetch(to, origin.url, deadlines=seconds), 10)
        release.set()
        await asyncio.gather(*waiting)
        assert left_behind(to)[2] == 0


@pytest.mark.parametrize("surplus", [b"", reply(200, (), b"SURPLUS")])
async def test_what_waits_in_the_kernel_is_noticed(to: Sender, surplus: bytes) -> None:
    """The event loop hasn't seen it yet: nothing was sent, so even a POST may go anew."""
    taken, over = asyncio.Event(), asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await exchange.reply(200, (), b"first")
        await exchange.wait(taken)
        await exchange.send(surplus)
        await exchange.close()
        over.set()

    async with Origin([handler, reply(200, (), b"second")]) as origin:
        await fetch(to, origin.url)
        taken.set()
        await over.wait()
        body = whole(b"once")
        _, second = await fetch(to, origin.url, "POST", body=body)
    assert (second, body.reads) == (b"second", 1)
    assert [request.body for request in origin.requests] == [b"", b"once"]


async def test_a_dead_connection_makes_its_neighbours_suspect(to: Sender) -> None:
    """The repeated call goes over a new one."""
    together = asyncio.Barrier(3)

    async def first(exchange: Exchange) -> None:
        await together.wait()
        await exchange.reply()

    async def dies(exchange: Exchange) -> None:
        await exchange.close()

    async with Origin([first, first, first, dies, reply(200, (), b"ok")]) as origin:
        await asyncio.gather(*(fetch(to, origin.url) for _ in range(3)))
        assert (await fetch(to, origin.url))[1] == b"ok"
        assert origin.connections == 4
        assert left_behind(to) == (1, 1, 0)


async def test_octets_that_nobody_asked_for_end_an_idle_connection(to: Sender) -> None:
    """They are no answer to a call that comes later."""
    read = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await exchange.reply()
        await exchange.wait(read)
        await exchange.reply(200, (), b"SURPLUS")

    async with Origin([handler, reply(200, (), b"ok")]) as origin:
        await fetch(to, origin.url)
        read.set()
        async with asyncio.timeout(5):
            while left_behind(to) != (0, 0, 0):
                await asyncio.sleep(0)
        assert (await fetch(to, origin.url))[1] == b"ok"
