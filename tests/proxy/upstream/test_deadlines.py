"""How long an upstream may take, and from when it counts."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.addresses import Address
from proxy.errors import UpstreamConnectTimeout, UpstreamTimeout
from proxy.upstream.transport import Deadlines
from tests.support.origin import Exchange, Origin, chunked
from tests.support.outbound import Body, Sender, fetch, sender


@pytest.fixture
async def to() -> AsyncIterator[Sender]:
    async with sender() as made:
        yield made


async def test_a_silent_address_is_a_connection_timeout() -> None:
    """504 connection_timeout."""

    async def silent(address: Address, port: int) -> Any:
        await asyncio.Event().wait()

    async with sender(wires=silent) as to:
        with pytest.raises(UpstreamConnectTimeout) as failure:
            await fetch(to, "http://127.0.0.1:9/", deadlines=Deadlines(connect=0.02))
    assert failure.value.proxy_status == "connection_timeout"


async def _silent(exchange: Exchange) -> None:
    await exchange.hung_up()


async def _dripping(exchange: Exchange) -> None:
    await exchange.drip(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000, 0.005)


@pytest.mark.parametrize("handler", [_silent, _dripping])
async def test_the_whole_header_is_due_at_the_first_byte_deadline(to: Sender, handler: Any) -> None:
    """Octets that drip don't stretch it."""
    async with Origin(handler) as origin:
        with pytest.raises(UpstreamTimeout) as failure:
            await fetch(to, origin.url + "/", deadlines=Deadlines(first_byte=0.05))
    assert failure.value.code == "upstream_timeout"


async def test_the_first_byte_deadline_begins_when_the_request_was_sent(to: Sender) -> None:
    """A caller may take longer to send than the upstream to answer."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.sleep(0.3)
        yield b"b"

    async with Origin() as origin:
        response, _ = await fetch(
            to,
            origin.url + "/",
            "POST",
            body=Body(parts(), None),
            deadlines=Deadlines(first_byte=0.2),
        )
    assert response.status == 200


async def test_a_body_that_falls_silent_is_a_timeout(to: Sender) -> None:
    """Between octets the idle deadline counts, not that of the first byte."""

    async def handler(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.chunk(b"one")
        await exchange.hung_up()

    deadlines = Deadlines(first_byte=10, idle=0.05)
    async with (
        Origin(handler) as origin,
        to.transport.send(to.request(origin.url, deadlines=deadlines)) as response,
    ):
        assert await anext(response.body) == b"one"
        with pytest.raises(UpstreamTimeout):
            await anext(response.body)


async def test_a_slow_reader_is_not_a_silent_upstream(to: Sender) -> None:
    """The idle deadline counts while we wait, not while the caller does."""
    async with Origin(chunked([b"one", b"two"])) as origin:
        request = to.request(origin.url, deadlines=Deadlines(idle=0.05))
        async with to.transport.send(request) as response:
            first = await anext(response.body)
            await asyncio.sleep(0.1)
            assert first + b"".join([part async for part in response.body]) == b"onetwo"


async def test_an_upstream_that_does_not_read_is_a_timeout(to: Sender) -> None:
    """The write deadline ends an upload that nobody takes."""

    async def handler(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    body = Body((bytes(1 << 20) for _ in range(64)), 64 << 20)
    async with Origin(handler, read_body=False, limit=1 << 16) as origin:
        with pytest.raises(UpstreamTimeout):
            await fetch(to, origin.url + "/", "POST", body=body, deadlines=Deadlines(write=0.05))


@pytest.mark.parametrize("stage", ["request", "header", "body"])
async def test_a_call_may_be_bounded_as_a_whole(to: Sender, stage: str) -> None:
    """Octets that drip don't stretch it, nor does a silent caller."""

    async def handler(exchange: Exchange) -> None:
        if stage == "body":
            await exchange.start()
            await exchange.drip(b"1\r\na\r\n" * 1000, 0.005)
        await exchange.hung_up()

    async def parts() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.Event().wait()

    body = Body(parts(), 9) if stage == "request" else None
    async with Origin(handler, read_body=False) as origin:
        with pytest.raises(UpstreamTimeout):
            await fetch(to, origin.url, "POST", body=body, deadlines=Deadlines(total=0.1))


async def test_an_answer_within_the_whole_bound_is_whole(to: Sender) -> None:
    """Nothing is lost of one that comes in pieces."""
    async with Origin(chunked([b"a", b"b", b"c"])) as origin:
        _, got = await fetch(to, origin.url, deadlines=Deadlines(total=30))
    assert got == b"abc"
