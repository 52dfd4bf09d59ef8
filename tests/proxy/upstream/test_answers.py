"""Answers that are cut, wrong or early: never whole, never silent."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from proxy.errors import UpstreamError, UpstreamIncomplete, UpstreamUnreachable
from tests.support.origin import Exchange, Origin, chunk, head, reply
from tests.support.outbound import Body, Sender, fetch, sender


@pytest.fixture
async def to() -> AsyncIterator[Sender]:
    async with sender() as made:
        yield made


@pytest.mark.parametrize(
    "raw",
    [
        head(200, [("Content-Length", "10")]) + b"12345",
        head(200, [("Transfer-Encoding", "chunked")]) + chunk(b"12345"),
        head(200, [("Transfer-Encoding", "chunked")]) + b"a\r\n12345",
        head(200, [("Transfer-Encoding", "chunked")]) + chunk(b"12345") + b"nonsense\r\n",
    ],
)
@pytest.mark.parametrize("hard", [False, True])
async def test_a_cut_answer_is_an_error(to: Sender, raw: bytes, hard: bool) -> None:
    """What came is given, then the reader learns that it isn't whole."""
    received = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await exchange.send(raw)
        await exchange.wait(received)
        if hard:
            exchange.abort()
        else:
            await exchange.close()

    async with Origin(handler) as origin, to.transport.send(to.request(origin.url)) as response:
        assert await anext(response.body) == b"12345"
        received.set()
        with pytest.raises(UpstreamIncomplete):
            await anext(response.body)


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 999 Strange\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 099 Strange\r\nContent-Length: 0\r\n\r\n",
        head(101, [("Upgrade", "x"), ("Connection", "upgrade")]),
        head(200, [("Content-Length", "1"), ("Content-Length", "2")]) + b"xy",
        head(200, [("Content-Length", "1, 2")]) + b"xy",
        head(200, [("Content-Length", "x")]),
        head(200, [("Content-Length", "5"), ("Transfer-Encoding", "chunked")]) + b"0\r\n\r\n",
        head(200, [("Transfer-Encoding", "gzip, chunked")]) + b"0\r\n\r\n",
        head(200, [("Transfer-Encoding", "identity")]),
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        head(200, [("X", "y" * 200_000)]),
        head(200, [("Bad Name", "1")]),
    ],
)
async def test_an_answer_that_is_not_plain_http_is_refused(to: Sender, raw: bytes) -> None:
    """502, and the connection is not used again."""
    async with Origin(raw) as origin:
        for _ in range(2):
            with pytest.raises(UpstreamError) as failure:
                await fetch(to, origin.url + "/")
            assert failure.value.code == "upstream_error"
        assert origin.connections == 2


async def test_a_connection_that_ends_without_an_answer_is_unreachable(to: Sender) -> None:
    """A fresh connection is not tried again."""

    async def handler(exchange: Exchange) -> None:
        exchange.abort()

    async with Origin(handler) as origin:
        with pytest.raises(UpstreamUnreachable):
            await fetch(to, origin.url + "/")
    assert len(origin.requests) == 1


async def test_a_closed_port_is_unreachable(to: Sender) -> None:
    """The cause stays for the log; the sentence names no address."""
    async with Origin() as origin:
        pass
    with pytest.raises(UpstreamUnreachable) as failure:
        await fetch(to, origin.url + "/")
    assert "127.0.0.1" not in failure.value.detail
    assert isinstance(failure.value.__cause__, ConnectionRefusedError)


async def test_an_early_answer_is_not_lost(to: Sender) -> None:
    """The upstream refuses before it has read the body, and the answer reaches the caller."""
    answered = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await exchange.send(reply(413, (), b"too large"))
        answered.set()
        await exchange.hung_up()

    async def parts() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 16)
            await answered.wait()

    async with Origin(handler, read_body=False) as origin:
        response, body = await fetch(to, origin.url + "/", "POST", body=Body(parts(), None))
    assert (response.status, body) == (413, b"too large")


async def test_an_interim_answer_does_not_end_the_request(to: Sender) -> None:
    """100 in the middle of the body is no early answer."""
    interim = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await exchange.send(head(100))
        interim.set()
        await exchange.read_body()
        await exchange.reply(200, (), b"whole")

    async def parts() -> AsyncIterator[bytes]:
        yield b"a"
        await interim.wait()
        yield b"b"

    async with Origin(handler, read_body=False) as origin:
        _, body = await fetch(to, origin.url + "/", "POST", body=Body(parts(), None))
    assert body == b"whole"
    assert origin.last.body == b"ab"
