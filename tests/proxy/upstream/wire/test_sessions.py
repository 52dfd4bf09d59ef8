"""TLS sessions: used again along one route, for no other."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from proxy.errors import UpstreamTlsError, UpstreamUnreachable
from proxy.upstream.wire.tls import MAX_SESSIONS, Sessions
from tests.support.origin import Exchange, Origin, reply, server_context
from tests.support.outbound import Body, Sender, fetch
from tests.support.resolver import PUBLIC, FakeResolver, FakeWires
from tests.support.wire import left_behind, wire_sender


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def context(authority: trustme.CA) -> ssl.SSLContext:
    return server_context(authority, "api.test", "other.test")


@pytest.fixture
def wires() -> FakeWires:
    return FakeWires()


@pytest.fixture
async def to(tmp_path: Path, authority: trustme.CA, wires: FakeWires) -> AsyncIterator[Sender]:
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    resolver = FakeResolver(default=[PUBLIC])
    async with wire_sender(resolver, wires=wires, upstream_ca=file) as made:
        yield made


class Resumptions:
    """Answers, hangs up, and knows whether each handshake was a resumed one."""

    def __init__(self) -> None:
        self.seen: list[bool] = []

    async def __call__(self, exchange: Exchange) -> None:
        self.seen.append(exchange._writer.get_extra_info("ssl_object").session_reused)
        await exchange.reply(200, [("Connection", "close")], b"ok")
        await exchange.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_next_connection_resumes(
    to: Sender, wires: FakeWires, context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    """One whole handshake for many connections (RFC 8446 section 2.2, RFC 5077)."""
    context.maximum_version = version
    handler = Resumptions()
    async with Origin(handler, ssl_context=context) as origin:
        wires.ports[443] = origin.port
        for _ in range(4):
            assert (await fetch(to, "https://api.test/"))[1] == b"ok"
    assert handler.seen == [False, True, True, True]


async def test_no_other_route_resumes(
    to: Sender, wires: FakeWires, context: ssl.SSLContext
) -> None:
    """A name whose certificate was never seen, and another tenant, begin anew."""
    handler = Resumptions()
    async with Origin(handler, ssl_context=context) as origin:
        wires.ports[443] = origin.port
        first = to.request("https://api.test/")
        other_tenant = first._replace(partition="other")
        for request in (first, other_tenant, to.request("https://other.test/"), first):
            async with to.transport.send(request) as response:
                assert [part async for part in response.body] == [b"ok"]
    assert handler.seen == [False, False, False, True]


async def test_a_session_that_the_server_has_forgotten_is_no_failure(
    to: Sender, wires: FakeWires, authority: trustme.CA, context: ssl.SSLContext
) -> None:
    """It was restarted: a whole handshake again."""
    handler = Resumptions()
    for one in (context, server_context(authority, "api.test")):
        async with Origin(handler, ssl_context=one) as origin:
            wires.ports[443] = origin.port
            assert (await fetch(to, "https://api.test/"))[1] == b"ok"
    assert handler.seen == [False, False]


async def test_a_resumed_session_is_no_way_around_the_certificate(
    to: Sender, wires: FakeWires, context: ssl.SSLContext
) -> None:
    """Somebody else at that address can't resume, and has no certificate to show."""
    async with Origin(Resumptions(), ssl_context=context) as origin:
        wires.ports[443] = origin.port
        await fetch(to, "https://api.test/")
    impostor = server_context(trustme.CA(), "api.test")
    async with Origin(Resumptions(), ssl_context=impostor) as origin:
        wires.ports[443] = origin.port
        with pytest.raises(UpstreamTlsError):
            await fetch(to, "https://api.test/")


def test_sessions_are_bounded() -> None:
    """The least used is forgotten; one that can't be resumed isn't kept."""

    class Session:
        has_ticket = True

    sessions = Sessions(ssl.create_default_context())
    for number in range(MAX_SESSIONS + 1):
        sessions.keep(number, Session())  # type: ignore[arg-type]
    sessions.keep("none", None)
    assert sessions.get(0) is None
    assert sessions.get(1) is not None
    assert sessions.get("none") is None


async def test_a_refusal_behind_the_handshake_is_one_of_tls(
    to: Sender, wires: FakeWires, context: ssl.SSLContext
) -> None:
    """A server that wants a certificate of ours says so late (RFC 8446 section 4.4.2.4)."""
    arrived = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        arrived.set()
        await exchange.hung_up()

    async with Origin(handler, ssl_context=context) as origin:
        wires.ports[443] = origin.port
        calling = asyncio.create_task(fetch(to, "https://api.test/"))
        await arrived.wait()
        (connection,) = to.transport._pool._connections  # type: ignore[attr-defined]
        connection.connection_lost(ssl.SSLError(1, "alert certificate required"))
        with pytest.raises(UpstreamTlsError):
            await calling
    assert left_behind(to) == (0, 0, 0)


@pytest.mark.parametrize("hard", [False, True])
async def test_a_server_that_only_hangs_up_is_unreachable(
    to: Sender, wires: FakeWires, hard: bool
) -> None:
    """By a FIN or a RST in the middle of the handshake."""

    async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        sock = writer.get_extra_info("socket")
        if hard:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    server = await asyncio.start_server(hangs_up, "127.0.0.1", 0)
    wires.ports[443] = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(UpstreamUnreachable):
            await fetch(to, "https://api.test/")
    assert left_behind(to) == (0, 0, 0)


async def test_flow_control_reaches_through_tls(
    to: Sender, wires: FakeWires, context: ssl.SSLContext
) -> None:
    """More than all buffers hold, both ways, with both ends slow."""
    octets = bytes(1 << 20)

    async def handler(exchange: Exchange) -> None:
        async for _ in exchange.body_chunks():
            pass
        await exchange.start()
        for _ in range(24):
            await exchange.chunk(octets)
        await exchange.finish()

    async with Origin(handler, ssl_context=context, read_body=False, limit=1 << 16) as origin:
        wires.ports[443] = origin.port
        request = to.request("https://api.test/", "POST", body=Body([octets] * 24, 24 << 20))
        async with to.transport.send(request) as response:
            received = len(await anext(response.body))
            for _ in range(100):
                await asyncio.sleep(0)
            async for part in response.body:
                received += len(part)
    assert len(origin.last.body) == received == 24 << 20


async def test_a_write_that_tls_refuses_ends_the_call(
    to: Sender, wires: FakeWires, context: ssl.SSLContext
) -> None:
    """As the failure of a socket would: a little later."""

    class Refusing:
        def write(self, data: bytes) -> int:
            raise ssl.SSLError(1, "shut down")

    async with Origin(reply(200, (), b"ok"), ssl_context=context) as origin:
        wires.ports[443] = origin.port
        await fetch(to, "https://api.test/")
        (connection,) = to.transport._pool._connections  # type: ignore[attr-defined]
        connection._wire._tls = Refusing()
        with pytest.raises(UpstreamTlsError):
            await fetch(to, "https://api.test/", "POST", body=Body([b"x"], 1))
    assert left_behind(to) == (0, 0, 0)
