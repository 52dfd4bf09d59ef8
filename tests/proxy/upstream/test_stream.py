"""Connections: used again, or not; on both event loops."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from proxy.errors import UpstreamError, UpstreamUnreachable
from proxy.messages import values
from proxy.upstream.stream import Stream
from tests.support.origin import Exchange, Origin, chunked, head, reply
from tests.support.outbound import Sender, fetch, sender, whole


@pytest.fixture
async def to() -> AsyncIterator[Sender]:
    async with sender() as made:
        yield made


@pytest.mark.parametrize(
    "raw", [reply(200, (), b"ok"), chunked([b"o", b"k"]), reply(204), reply(304)]
)
async def test_a_connection_is_used_again_after_a_whole_answer(to: Sender, raw: bytes) -> None:
    """Keep-alive; each answer belongs to its own request."""
    async with Origin(raw) as origin:
        for _ in range(3):
            await fetch(to, origin.url + "/")
    assert origin.connections == 1
    assert to.dialler.dialled == 1


async def test_a_large_request_arrives_whole(to: Sender) -> None:
    """Flow control on the way out pauses and goes on."""
    octets = bytes(range(256)) * (1 << 16)
    async with Origin(limit=1 << 16) as origin:
        await fetch(to, origin.url, "POST", body=whole(octets))
    assert origin.last.body == octets


async def test_an_answer_to_head_has_no_body_and_keeps_the_connection(to: Sender) -> None:
    """Even when nobody reads the body that isn't there."""
    async with Origin(head(200, [("Content-Length", "5")])) as origin:
        for _ in range(2):
            async with to.transport.send(to.request(origin.url, "HEAD")) as response:
                pass
    assert values(response.fields, b"content-length") == [b"5"]
    assert origin.connections == 1


@pytest.mark.parametrize("apart", [False, True])
async def test_surplus_octets_are_never_the_next_answer(to: Sender, apart: bool) -> None:
    """Response splitting at the upstream: what nobody asked for dies with its connection."""
    taken, surplus_sent = asyncio.Event(), asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        if exchange.request.path == "/first":
            first, surplus = reply(200, (), b"first"), reply(200, (), b"SURPLUS")
            if apart:
                await exchange.send(first)
                await exchange.wait(taken)
                await exchange.send(surplus)
            else:
                await exchange.send(first + surplus)
            surplus_sent.set()
        else:
            await exchange.reply(200, (), b"second")

    async with Origin(handler) as origin:
        try:
            _, first = await fetch(to, origin.url + "/first")
        except UpstreamError:  # the wire refuses what it sees in time
            first = b"" if apart else b"first"
        taken.set()
        await surplus_sent.wait()
        _, second = await fetch(to, origin.url + "/second")
    assert (first, second) == (b"first", b"second")
    assert origin.connections == 2


async def test_a_body_behind_a_bodiless_answer_is_surplus(to: Sender) -> None:
    """204 with content, as some servers send it."""
    async with Origin([head(204) + reply(200, (), b"SURPLUS"), reply(200, (), b"ok")]) as origin:
        await fetch(to, origin.url + "/")
        _, body = await fetch(to, origin.url + "/")
    assert body == b"ok"


async def test_no_connection_is_used_twice_where_surplus_cannot_be_seen(
    to: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check fails closed when the engine changes inside."""
    monkeypatch.setattr("proxy.upstream.transport.getattr", lambda *_: None, raising=False)
    async with Origin() as origin:
        for _ in range(2):
            await fetch(to, origin.url + "/")
    assert origin.connections == 2


async def test_a_body_not_read_to_its_end_closes_the_connection(to: Sender) -> None:
    """The rest would be in the way of the next answer."""
    hung_up = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.chunk(b"one")
        await exchange.hung_up()
        hung_up.set()

    async with Origin(handler) as origin:
        async with to.transport.send(to.request(origin.url)) as response:
            await anext(response.body)
        await asyncio.wait_for(hung_up.wait(), 5)


@pytest.mark.parametrize("stage", ["header", "body"])
async def test_cancellation_closes_the_upstream_connection(to: Sender, stage: str) -> None:
    """A caller who hangs up costs no more."""
    reached, hung_up = asyncio.Event(), asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        if stage == "body":
            await exchange.start()
            await exchange.chunk(b"one")
        reached.set()
        await exchange.hung_up()
        hung_up.set()

    async with Origin(handler) as origin:
        calling = asyncio.create_task(fetch(to, origin.url + "/"))
        await reached.wait()
        await asyncio.sleep(0)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await asyncio.wait_for(hung_up.wait(), 5)


async def test_an_idle_connection_that_ended_is_noticed(to: Sender) -> None:
    """A POST goes over a new connection; nothing is sent twice."""

    async def handler(exchange: Exchange) -> None:
        await exchange.reply()
        await exchange.close()

    async with Origin([handler, reply()]) as origin:
        await fetch(to, origin.url + "/")
        body = whole(b"once")
        await fetch(to, origin.url + "/", "POST", body=body)
    assert [request.body for request in origin.requests] == [b"", b"once"]
    assert body.reads == 1


@pytest.mark.parametrize("surplus", [b"", reply(200, (), b"SURPLUS")])
async def test_what_comes_just_before_the_first_octet_is_noticed(
    to: Sender, monkeypatch: pytest.MonkeyPatch, surplus: bytes
) -> None:
    """Between the pool's check and the request: nothing was sent, so even a POST may go anew."""
    monkeypatch.setattr(Stream, "get_extra_info", lambda *_: None)
    read, over = asyncio.Event(), asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await exchange.reply(200, (), b"first")
        await exchange.wait(read)
        await exchange.send(surplus)
        await exchange.close()
        over.set()

    async with Origin() as aside, Origin([handler, reply(200, (), b"second")]) as origin:
        await fetch(to, origin.url + "/")
        read.set()
        await over.wait()
        await fetch(to, aside.url + "/")  # a round through the event loop
        body = whole(b"once")
        _, second = await fetch(to, origin.url + "/", "POST", body=body)
    assert (second, body.reads) == (b"second", 1)
    assert [request.body for request in origin.requests] == [b"", b"once"]


@pytest.mark.parametrize(
    ("method", "body", "again"),
    [("GET", b"", True), ("HEAD", b"", True), ("POST", b"", False), ("GET", b"x", False)],
)
async def test_a_reused_connection_that_dies_is_tried_once_more(
    to: Sender, method: str, body: bytes, again: bool
) -> None:
    """Only where sending twice does no harm (RFC 9110 section 9.2.2)."""

    async def dies(exchange: Exchange) -> None:
        await exchange.close()

    async with Origin([reply(), dies, reply()]) as origin:
        await fetch(to, origin.url + "/")
        sending = fetch(to, origin.url + "/", method, body=whole(body))
        if again:
            response, _ = await sending
            assert response.status == 200
        else:
            with pytest.raises(UpstreamUnreachable):
                await sending
    assert len(origin.requests) == (3 if again else 2)


async def test_a_second_death_is_final(to: Sender) -> None:
    """One repetition, not a loop."""

    async def dies(exchange: Exchange) -> None:
        await exchange.close()

    async with Origin([reply(), dies]) as origin:
        await fetch(to, origin.url + "/")
        with pytest.raises(UpstreamUnreachable):
            await fetch(to, origin.url + "/")
    assert len(origin.requests) == 3
