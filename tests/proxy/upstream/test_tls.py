"""TLS with the destination, under its own name; on both event loops."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from proxy.errors import (
    UpstreamConnectTimeout,
    UpstreamError,
    UpstreamIncomplete,
    UpstreamTlsError,
    UpstreamUnreachable,
)
from proxy.upstream.transport import Deadlines, trust
from tests.support.origin import Exchange, Origin, chunked, head, reply, server_context
from tests.support.outbound import Sender, fetch, sender, whole
from tests.support.resolver import PUBLIC, FakeResolver, FakeWires


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def context(authority: trustme.CA) -> ssl.SSLContext:
    return server_context(authority, "api.test", "127.0.0.1")


@pytest.fixture
def wires() -> FakeWires:
    return FakeWires()


@pytest.fixture
async def to(tmp_path: Path, authority: trustme.CA, wires: FakeWires) -> AsyncIterator[Sender]:
    """`api.test` and `other.test` are public; the private authority is trusted."""
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    async with sender(FakeResolver(default=[PUBLIC]), wires=wires, upstream_ca=file) as made:
        yield made


async def test_the_certificate_is_verified_under_the_name(
    to: Sender, wires: FakeWires, context: ssl.SSLContext
) -> None:
    """SNI and Host carry the name although an address was dialled; the port is left out."""
    async with Origin(reply(200, (), b"hi"), ssl_context=context) as origin:
        wires.ports[443] = origin.port
        for _ in range(2):
            _, body = await fetch(to, "https://api.test/x")
    assert body == b"hi"
    assert origin.server_names == ["api.test"]
    assert origin.last.header("host") == "api.test"
    assert wires.dialled == [(PUBLIC, 443)]


async def test_an_address_is_verified_as_an_address(
    to: Sender, wires: FakeWires, context: ssl.SSLContext
) -> None:
    """No SNI for literals (RFC 6066 section 3)."""
    async with Origin(ssl_context=context) as origin:
        wires.ports[origin.port] = origin.port
        await fetch(to, origin.url + "/")
    assert origin.server_names == [None]


async def test_a_wrong_name_is_refused(
    to: Sender, wires: FakeWires, context: ssl.SSLContext
) -> None:
    """No octet of the request is sent."""
    async with Origin(ssl_context=context) as origin:
        wires.ports[443] = origin.port
        with pytest.raises(UpstreamTlsError) as failure:
            await fetch(to, "https://other.test/")
    assert origin.requests == []
    assert PUBLIC not in failure.value.detail
    assert "other.test" in str(failure.value.__cause__)


async def test_an_unknown_authority_is_refused(wires: FakeWires, context: ssl.SSLContext) -> None:
    """Without upstream_ca a private authority is nobody."""
    async with Origin(ssl_context=context) as origin:
        wires.ports[443] = origin.port
        async with sender(FakeResolver(default=[PUBLIC]), wires=wires) as plain:
            with pytest.raises(UpstreamTlsError):
                await fetch(plain, "https://api.test/")
    assert origin.requests == []


def test_old_protocols_are_not_spoken() -> None:
    """TLS 1.2 or newer, verified, with the public authorities known."""
    context = trust(None)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert len(context.get_ca_certs()) > 50


async def test_a_server_that_does_not_speak_tls_is_refused(to: Sender, wires: FakeWires) -> None:
    """A plain server on the port."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(400))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    wires.ports[443] = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(UpstreamTlsError):
            await fetch(to, "https://api.test/")


async def test_a_handshake_that_is_cut_is_unreachable(to: Sender, wires: FakeWires) -> None:
    """The server hangs up on the first octet."""

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    wires.ports[443] = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(UpstreamUnreachable):
            await fetch(to, "https://api.test/")


@pytest.mark.parametrize("given_up", [False, True])
async def test_a_silent_handshake_leaves_no_connection(
    to: Sender, wires: FakeWires, given_up: bool
) -> None:
    """By the deadline, or because the caller has hung up."""
    greeted, closed = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(65536):
                greeted.set()
        except ConnectionError:
            pass
        closed.set()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    wires.ports[443] = server.sockets[0].getsockname()[1]
    async with server:
        deadlines = Deadlines(connect=30 if given_up else 0.1)
        calling = asyncio.create_task(fetch(to, "https://api.test/", deadlines=deadlines))
        if given_up:
            await greeted.wait()
            calling.cancel()
        with pytest.raises(asyncio.CancelledError if given_up else UpstreamConnectTimeout):
            await calling
        await asyncio.wait_for(closed.wait(), 5)


@pytest.mark.parametrize("apart", [False, True])
async def test_surplus_octets_are_seen_through_tls(
    to: Sender, wires: FakeWires, context: ssl.SSLContext, apart: bool
) -> None:
    """Also where they stand decrypted in a buffer and the socket shows nothing."""
    taken, sent = asyncio.Event(), asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await exchange.reply(200, (), b"first")
        if apart:
            await exchange.wait(taken)
        await exchange.reply(200, (), b"SURPLUS")
        sent.set()

    async with Origin([handler, reply(200, (), b"second")], ssl_context=context) as origin:
        wires.ports[443] = origin.port
        try:
            _, first = await fetch(to, "https://api.test/1")
        except UpstreamError:  # the wire refuses what it sees in time
            first = b"" if apart else b"first"
        taken.set()
        await sent.wait()
        _, second = await fetch(to, "https://api.test/2")
    assert (first, second) == (b"first", b"second")


@pytest.mark.parametrize("framed", [True, False])
async def test_an_answer_cut_under_tls_is_not_whole(
    to: Sender, wires: FakeWires, context: ssl.SSLContext, framed: bool
) -> None:
    """A connection that breaks without a word of TLS (RFC 8446 section 6.1)."""
    received = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await exchange.send(head(200, [("Content-Length", "9")] if framed else []) + b"1234")
        await exchange.wait(received)
        exchange.abort()

    async with Origin(handler, ssl_context=context) as origin:
        wires.ports[443] = origin.port
        async with to.transport.send(to.request("https://api.test/")) as response:
            assert await anext(response.body) == b"1234"
            received.set()
            with pytest.raises(UpstreamIncomplete):
                await anext(response.body)
    assert response.complete_at_close is not framed


async def test_large_bodies_pass_through_tls_both_ways(
    to: Sender, wires: FakeWires, context: ssl.SSLContext
) -> None:
    """Flow control in both directions, octet for octet."""
    octets = bytes(range(256)) * (1 << 14)
    parts = [octets[start : start + (1 << 18)] for start in range(0, len(octets), 1 << 18)]
    async with Origin(chunked(parts), ssl_context=context) as origin:
        wires.ports[443] = origin.port
        _, body = await fetch(to, "https://api.test/", "POST", body=whole(octets))
    assert body == octets
    assert origin.last.body == octets
