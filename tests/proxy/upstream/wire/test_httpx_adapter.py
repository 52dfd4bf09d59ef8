"""The wire as a transport of httpx."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from proxy.clock import SystemClock
from proxy.network import Dialler
from proxy.reach import Reach
from proxy.upstream.wire.httpx_adapter import HttpxTransport
from proxy.upstream.wire.pool import Bounds
from proxy.upstream.wire.transport import WireTransport
from tests.support.origin import Exchange, Origin, chunked, head, reply
from tests.support.resolver import PUBLIC, FakeResolver, FakeWires


def made(wires: FakeWires | None = None, reach: Reach = Reach.REGISTERED) -> HttpxTransport:
    resolver = FakeResolver(default=[PUBLIC])
    dialler = Dialler(resolver, dial=wires) if wires else Dialler(resolver)
    return HttpxTransport(WireTransport(dialler, SystemClock(), bounds=Bounds(1, 1)), reach)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=made(), trust_env=False, timeout=5) as client:
        yield client


async def test_a_client_speaks_over_the_wire(client: httpx.AsyncClient) -> None:
    """Method, target, fields and body as httpx prepared them; one connection for all."""
    async with Origin(reply(201, [("X-A", "1"), ("X-A", "2")], b"ok")) as origin:
        for _ in range(2):
            answer = await client.post(f"{origin.url}/a%2Fb?c=d&&e", content=b"body")
            await client.get(f"{origin.url}?")
    assert (answer.status_code, answer.content) == (201, b"ok")
    assert answer.headers.get_list("x-a") == ["1", "2"]
    assert answer.http_version == "HTTP/1.1"
    first, second = origin.requests[:2]
    assert (first.method, first.target, first.body) == ("POST", "/a%2Fb?c=d&&e", b"body")
    assert first.all("host") == [f"127.0.0.1:{origin.port}"]
    assert first.all("content-length") == ["4"]
    assert (second.method, second.target, second.all("content-length")) == ("GET", "/?", [])
    assert origin.connections == 1


async def test_bodies_are_streamed_both_ways(client: httpx.AsyncClient) -> None:
    """Chunk by chunk; empty ones are none."""

    async def parts() -> AsyncIterator[bytes]:
        for part in (b"one", b"", b"two"):
            yield part

    async with (
        Origin(chunked([b"a", b"b"])) as origin,
        client.stream("PUT", origin.url, content=parts()) as answer,
    ):
        assert b"".join([part async for part in answer.aiter_raw()]) == b"ab"
    assert origin.last.body == b"onetwo"
    assert origin.last.all("transfer-encoding") == ["chunked"]


async def test_an_answer_that_is_given_up_frees_its_place(client: httpx.AsyncClient) -> None:
    """The only connection is closed, so another can be opened."""

    async def endless(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.chunk(b"a")
        await exchange.hung_up()

    async with Origin([endless, reply(200, (), b"next")]) as origin:
        async with client.stream("GET", origin.url):
            pass
        assert (await client.get(origin.url)).content == b"next"


async def test_names_are_those_of_the_url() -> None:
    """Host, address check and port."""
    async with Origin(reply(200, (), b"ok")) as origin:
        wires = FakeWires({(PUBLIC, 80): origin.port})
        async with httpx.AsyncClient(transport=made(wires, Reach.PUBLIC)) as client:
            await client.get("http://b\u00fccher.test/", headers={"Host": "other.test"})
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(f"http://[::1]:{origin.port}/")
    assert origin.last.all("host") == ["xn--bcher-kva.test"]


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"nonsense\r\n\r\n", httpx.RemoteProtocolError),
        (b"", httpx.ConnectError),
        (head(200, [("Content-Length", "9")]) + b"a", httpx.ReadError),
    ],
)
async def test_failures_are_those_of_httpx(
    client: httpx.AsyncClient, raw: bytes, kind: type[httpx.TransportError]
) -> None:
    """With the request that failed."""

    async def handler(exchange: Exchange) -> None:
        await exchange.send(raw)
        await exchange.close()

    async with Origin(handler) as origin:
        with pytest.raises(kind) as failure:
            await client.get(origin.url)
        assert failure.value.request.url == origin.url


async def test_a_closed_port_is_a_connect_error(client: httpx.AsyncClient) -> None:
    """And a request that can't be sent is the program's own fault."""
    async with Origin() as origin:
        with pytest.raises(httpx.LocalProtocolError):
            await client.request("G T", origin.url)
    with pytest.raises(httpx.ConnectError):
        await client.get(origin.url)


@pytest.mark.parametrize("begun", [False, True])
async def test_timeouts_are_those_of_the_request(client: httpx.AsyncClient, begun: bool) -> None:
    """Read: to the header, and between octets; pool: in the queue."""
    hang = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        if begun:
            await exchange.start()
        hang.set()
        await exchange.hung_up()

    async with Origin(handler) as origin:
        first = asyncio.create_task(client.get(origin.url))
        await hang.wait()
        timeout = httpx.Timeout(5, connect=0.05)
        with pytest.raises(httpx.PoolTimeout):
            await client.get(origin.url, timeout=timeout)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        with pytest.raises(httpx.ReadTimeout):
            await client.get(origin.url, timeout=httpx.Timeout(5, read=0.05))
