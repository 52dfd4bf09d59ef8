"""One prepared request over real sockets: what is sent, and what becomes of the answer."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from ipaddress import ip_address

import pytest

from proxy.errors import (
    BadRequest,
    DestinationAddressProhibited,
    DestinationRefused,
    Unavailable,
)
from proxy.messages import values
from proxy.reach import Reach
from tests.support.origin import Exchange, Origin, chunk, event, head, reply
from tests.support.outbound import Body, Sender, fetch, sender, whole
from tests.support.resolver import PUBLIC, FakeResolver, FakeWires


@pytest.fixture
async def to() -> AsyncIterator[Sender]:
    async with sender() as made:
        yield made


# What is sent.


async def test_the_request_is_sent_octet_for_octet(to: Sender) -> None:
    """Host first, then the fields in order, then the framing; the target untouched."""
    fields = ((b"x-b", b"2"), (b"x-a", b"1"), (b"x-b", b"3"), (b"authorization", b"Bearer k"))
    path = "/v1/a%2Fb//c;d=1/x:y?b=2&a=%zz&a=1&&q=+%20'()*!~[]{}|^`\\"
    async with Origin() as origin:
        await fetch(to, origin.url + path, "POST", fields, whole(b'{"a":1}'))
    lines = (
        f"POST {path} HTTP/1.1",
        f"host: 127.0.0.1:{origin.port}",
        "x-b: 2",
        "x-a: 1",
        "x-b: 3",
        "authorization: Bearer k",
        "content-length: 7",
    )
    assert origin.last.raw.decode() == "\r\n".join(lines) + "\r\n\r\n"
    assert origin.last.body == b'{"a":1}'


@pytest.mark.parametrize("method", ["GET", "DELETE", "PROPFIND", "x-Custom", "HEAD", "OPTIONS"])
async def test_a_request_without_a_body_has_no_framing(to: Sender, method: str) -> None:
    """Methods keep their case, and nothing is added."""
    async with Origin() as origin:
        await fetch(to, origin.url + "/", method)
    assert origin.last.method == method
    assert [name for name, _ in origin.last.headers] == ["host"]


async def test_a_body_of_unknown_length_is_sent_chunk_by_chunk(to: Sender) -> None:
    """The origin has the first part before the second exists."""
    first_seen = asyncio.Event()
    seen: list[bytes] = []

    async def handler(exchange: Exchange) -> None:
        async for part in exchange.body_chunks():
            seen.append(part)
            first_seen.set()
        await exchange.reply()

    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        await first_seen.wait()
        yield b"two"

    async with Origin(handler, read_body=False) as origin:
        await fetch(to, origin.url + "/", "POST", body=Body(parts(), None))
    assert seen == [b"one", b"two"]
    assert origin.last.header("transfer-encoding") == "chunked"
    assert origin.last.header("content-length") is None


@pytest.mark.parametrize("parts", [[b"abc"], [b"abc", b"defgh"]])
async def test_a_body_of_another_length_than_declared_breaks_the_request(
    to: Sender, parts: list[bytes]
) -> None:
    """The upstream never sees a whole request of the wrong length (RFC 9112 section 6.2)."""
    broken = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        try:
            await exchange.read_body()
        except asyncio.IncompleteReadError:
            broken.set()

    async with Origin(handler, read_body=False) as origin:
        with pytest.raises(BadRequest):
            await fetch(to, origin.url + "/", "POST", body=Body(parts, 5))
        await asyncio.wait_for(broken.wait(), 5)


async def test_a_failing_body_keeps_its_own_error(to: Sender) -> None:
    """What went wrong with the caller's body is not the upstream's failure."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"x"
        try:
            raise OSError("inner")
        except OSError as error:
            raise Unavailable("too slow") from error

    async with Origin(read_body=False) as origin:
        with pytest.raises(Unavailable) as failure:
            await fetch(to, origin.url + "/", "POST", body=Body(parts(), None))
    assert isinstance(failure.value.__cause__, OSError)


async def test_fields_that_are_not_http_are_a_bad_request(to: Sender) -> None:
    """The last line of defence against a smuggled line end."""
    async with Origin() as origin:
        with pytest.raises(BadRequest):
            await fetch(to, origin.url + "/", fields=((b"x", b"1\r\nevil: 1"),))
    assert origin.requests == []


async def test_proxy_variables_are_ignored(to: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment never decides where a key goes."""
    async with Origin() as proxy, Origin() as origin:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        await fetch(to, origin.url + "/")
    assert proxy.connections == 0
    assert len(origin.requests) == 1


async def test_cookies_are_not_kept(to: Sender) -> None:
    """Two callers share a connection, never a jar."""
    async with Origin(reply(200, [("Set-Cookie", "a=1; Path=/")])) as origin:
        for _ in range(2):
            response, _ = await fetch(to, origin.url + "/")
    assert values(response.fields, b"set-cookie") == [b"a=1; Path=/"]
    assert origin.last.header("cookie") is None
    assert origin.connections == 1


async def test_redirects_are_answers(to: Sender) -> None:
    """Nobody follows one here."""
    async with Origin(reply(302, [("Location", "/other")])) as origin:
        response, _ = await fetch(to, origin.url + "/")
    assert (response.status, len(origin.requests)) == (302, 1)


# What comes back.


async def test_fields_come_back_in_order_and_lower_case(to: Sender) -> None:
    """Names in lower case, values as they came, repeated ones apart."""
    async with Origin(reply(201, [("X-B", " v  w "), ("x-a", "\xe9"), ("X-B", "")])) as origin:
        response, body = await fetch(to, origin.url + "/")
    assert response.status == 201
    assert response.fields == (
        (b"x-b", b"v  w"),
        (b"x-a", b"\xe9"),
        (b"x-b", b""),
        (b"content-length", b"0"),
    )
    assert body == b""
    assert response.upstream_seconds is not None
    assert response.upstream_seconds >= 0


async def test_a_compressed_body_passes_as_it_came(to: Sender) -> None:
    """No decoding: 200 kB of zeros stay a few hundred octets."""
    packed = gzip.compress(bytes(200_000))
    async with Origin(reply(200, [("Content-Encoding", "gzip")], packed)) as origin:
        response, body = await fetch(to, origin.url + "/")
    assert body == packed
    assert values(response.fields, b"content-encoding") == [b"gzip"]


async def test_a_stream_arrives_event_by_event(to: Sender) -> None:
    """The first event is here before the origin has sent the second."""
    received = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await exchange.start(200, [("Content-Type", "text/event-stream")])
        await exchange.chunk(event("one"))
        await exchange.wait(received)
        await exchange.chunk(event("two"))
        await exchange.finish()

    async with Origin(handler) as origin, to.transport.send(to.request(origin.url)) as response:
        first = await anext(response.body)
        received.set()
        rest = b"".join([part async for part in response.body])
    assert (first, rest) == (b"data: one\n\n", b"data: two\n\n")
    assert not response.complete_at_close


async def test_interim_answers_are_skipped(to: Sender) -> None:
    """1xx is not the answer (RFC 9110 section 15.2)."""
    raw = head(100) + head(103, [("Link", "</x>")]) + reply(200, (), b"ok")
    async with Origin(raw) as origin:
        response, body = await fetch(to, origin.url + "/")
    assert (response.status, body) == (200, b"ok")
    assert values(response.fields, b"link") == []


async def test_trailers_are_dropped(to: Sender) -> None:
    """They are neither header fields nor body."""
    raw = head(200, [("Transfer-Encoding", "chunked")]) + chunk(b"x") + b"0\r\nX-T: 1\r\n\r\n"
    async with Origin(raw) as origin:
        response, body = await fetch(to, origin.url + "/")
    assert body == b"x"
    assert response.fields == ((b"transfer-encoding", b"chunked"),)


async def test_an_answer_without_framing_is_marked(to: Sender) -> None:
    """Its end can't be told from a cut (RFC 9112 section 6.3)."""

    async def handler(exchange: Exchange) -> None:
        await exchange.send(head(200) + b"all of it")
        await exchange.close()

    async with Origin(handler) as origin:
        response, body = await fetch(to, origin.url + "/")
    assert (body, response.complete_at_close) == (b"all of it", True)


async def test_a_large_body_waits_for_its_reader(to: Sender) -> None:
    """Flow control: the origin can't send far ahead of who reads."""
    size = 24 << 20
    sent_all = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await exchange.send(head(200, [("Content-Length", str(size))]))
        for _ in range(size >> 16):
            await exchange.send(bytes(1 << 16))
        sent_all.set()

    async with Origin(handler) as origin, to.transport.send(to.request(origin.url)) as response:
        received = len(await anext(response.body))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not sent_all.is_set()
        async for part in response.body:
            received += len(part)
    assert received == size


# Calls that are given up.


@pytest.fixture
def one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.upstream.transport.MAX_CONNECTIONS", 1)


@pytest.mark.usefixtures("one_connection")
async def test_a_call_given_up_at_any_moment_leaves_its_place(to: Sender) -> None:
    """A connection that nobody uses would count for ever against the pool's bound."""
    async with Origin(reply(200, [], b"ok")) as origin:
        for turns in range(40):
            given_up = asyncio.create_task(fetch(to, origin.url))
            for _ in range(turns):
                await asyncio.sleep(0)
            given_up.cancel()
            await asyncio.gather(given_up, return_exceptions=True)
            _, body = await asyncio.wait_for(fetch(to, origin.url), 5)
            assert body == b"ok"
            await to.transport.aclose()


@pytest.mark.usefixtures("one_connection")
async def test_a_call_given_up_when_its_turn_comes_leaves_it_to_the_next(to: Sender) -> None:
    """It was given a connection that it never opened."""
    arrived, go = asyncio.Event(), asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        arrived.set()
        await exchange.wait(go)
        await exchange.send(reply(200, [("Connection", "close")], b"ok"))
        await exchange.close()

    async with Origin(handler) as origin:
        calls = [asyncio.create_task(fetch(to, origin.url)) for _ in range(3)]
        await arrived.wait()
        (pool,) = to.transport._pools.values()
        second = pool._requests[1]
        go.set()
        while second.connection is None:
            await asyncio.sleep(0)
        calls[1].cancel()
        (_, first), (_, third) = await asyncio.wait_for(asyncio.gather(calls[0], calls[2]), 5)
        assert (first, third) == (b"ok", b"ok")
        assert calls[1].cancelled()


# Where it may go.


async def test_a_public_call_never_uses_a_private_connection(to: Sender) -> None:
    """The open connection of a registered origin is no way around the address check."""
    async with Origin() as origin:
        await fetch(to, origin.url + "/")
        with pytest.raises(DestinationAddressProhibited):
            await fetch(to, origin.url + "/", reach=Reach.PUBLIC)
    assert len(origin.requests) == 1


async def test_names_are_resolved_by_us_and_kept_in_host() -> None:
    """The checked address is dialled; the request still speaks of the name."""
    async with Origin() as origin:
        wires = FakeWires({(PUBLIC, 8080): origin.port})
        async with sender(FakeResolver({"api.test": [PUBLIC]}), wires=wires) as to:
            await fetch(to, "http://api.test:8080/x", reach=Reach.PUBLIC)
    assert origin.last.header("host") == "api.test:8080"
    assert wires.dialled == [(PUBLIC, 8080)]


async def test_two_names_of_one_address_share_no_connection() -> None:
    """Connections belong to names: a shared host must not mix its tenants."""
    async with Origin() as origin:
        names = {"a.test": ["127.0.0.1"], "b.test": ["127.0.0.1"]}
        async with sender(FakeResolver(names)) as to:
            for name in ("a.test", "b.test", "a.test"):
                await fetch(to, f"http://{name}:{origin.port}/")
    assert origin.connections == 2


async def test_own_listeners_are_refused_unless_the_request_may(to: Sender) -> None:
    """`own_allowed` is for a registered backend path (contract section 4)."""
    async with Origin() as origin:
        to.dialler.own = frozenset({(ip_address("127.0.0.1"), origin.port)})
        refused = to.request(origin.url)
        async with to.transport.send(refused._replace(own_allowed=True)) as response:
            assert response.status == 200
        with pytest.raises(DestinationRefused):
            async with to.transport.send(refused):
                pass
    assert len(origin.requests) == 1


@pytest.mark.parametrize("ticks", range(6))
async def test_a_hang_up_at_the_end_of_an_answer_loses_no_connection(
    to: Sender, ticks: int
) -> None:
    """Whenever it comes, the pool counts no connection that nobody uses."""
    loop = asyncio.get_running_loop()

    def cancel_after(turns: int) -> None:
        if turns:
            loop.call_soon(cancel_after, turns - 1)
        else:
            task.cancel()

    async def call(url: str) -> None:
        async with to.transport.send(to.request(url)) as response:
            async for _ in response.body:
                cancel_after(ticks)

    async with Origin(reply(200, [], b"hi")) as origin:
        task = asyncio.create_task(call(origin.url + "/"))
        await asyncio.gather(task, return_exceptions=True)
        for _ in range(6):
            await asyncio.sleep(0)
        for pool in to.transport._pools.values():
            assert all(one.is_idle() or one.is_closed() for one in pool.connections)
            assert pool._requests == []
