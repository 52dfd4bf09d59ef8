"""The leaf: sends one prepared request over HTTP/1.1 and gives back the response as it comes.

No cookies, no proxy variables, no redirects, no decoding. The engine is httpcore's pool; what it
can't do: an answer that comes while the *caller* is still silent in the middle of the request body
is seen only with the caller's next octets, or at the end of the body.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Final, NamedTuple

import httpcore

from proxy.clock import Clock
from proxy.destinations import Target
from proxy.errors import (
    BadRequest,
    RelayError,
    Unavailable,
    UpstreamConnectTimeout,
    UpstreamError,
    UpstreamIncomplete,
    UpstreamTimeout,
    UpstreamTlsError,
    UpstreamUnreachable,
)
from proxy.messages import Fields, RequestBody, Response
from proxy.network import Dialler
from proxy.reach import Reach
from proxy.upstream.framing import judge, request_fields
from proxy.upstream.stream import Backend, NoAnswer, NothingSent, TlsFailure

MAX_CONNECTIONS: Final = 1000
KEEPALIVE_SECONDS: Final = 30.0
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds until a call is given up.

    `connect`: to the connection, and again to the end of the TLS handshake; `write`: until the
    upstream takes more; `first_byte`: from the end of the request to the whole header of the
    answer; `idle`: between octets after that; `total`: for all of it, None: there is no such bound.
    """

    connect: float = 10.0
    write: float = 60.0
    first_byte: float = 300.0
    idle: float = 300.0
    total: float | None = None


class OutboundRequest(NamedTuple):
    """A request as it shall be sent: fields filtered, credentials written, body read once.

    Host and the framing fields are the transport's: they are written from `target` and `body`.
    `own_allowed`: the destination is a registered backend, so it may be one of our own listeners.
    `partition`: requests of different ones share no connection. `opening`: its header up to the
    framing, where an equal one has been written before.
    """

    method: str
    target: Target
    fields: Fields
    body: RequestBody
    reach: Reach
    own_allowed: bool = False
    deadlines: Deadlines = Deadlines()
    partition: str = ""
    opening: bytes = b""

    def __repr__(self) -> str:
        return "OutboundRequest(…)"  # the key stands in it


Failures = tuple[tuple[type[Exception], type[RelayError], str], ...]

BEFORE_THE_ANSWER: Final[Failures] = (
    (TlsFailure, UpstreamTlsError, "TLS with the destination failed: its certificate or protocol "
     "is not acceptable. A private authority can be trusted with upstream_ca."),
    (httpcore.PoolTimeout, Unavailable, "Too many calls are under way; try again in a moment."),
    (httpcore.ConnectTimeout, UpstreamConnectTimeout, "The destination could not be connected to "
     "in time; try again, or check that it can be reached."),
    (httpcore.WriteTimeout, UpstreamTimeout, "The destination did not take the request in time."),
    (httpcore.ReadTimeout, UpstreamTimeout, "The destination did not answer in time."),
    (TimeoutError, UpstreamTimeout, "The destination did not answer in time."),
    (httpcore.NetworkError, UpstreamUnreachable, "The destination closed the connection without "
     "an answer; try again."),
    (httpcore.RemoteProtocolError, UpstreamError, "The destination's answer is not valid HTTP."),
    (httpcore.LocalProtocolError, BadRequest, "The request can't be sent as HTTP/1.1; check its "
     "method and header fields."),
)  # fmt: skip

IN_THE_ANSWER: Final[Failures] = (
    (httpcore.TimeoutException, UpstreamTimeout, "The destination fell silent in its answer."),
    (httpcore.NetworkError, UpstreamIncomplete, "The destination's answer was cut."),
    (httpcore.RemoteProtocolError, UpstreamIncomplete, "The destination's answer was cut."),
    (TimeoutError, UpstreamTimeout, "The call took longer than it may."),
)


class Pool(httpcore.AsyncConnectionPool):
    """The engine's pool, which also gives up what it has lost: a connection in use by no request.

    A call that is cancelled after it was given a new connection, and before it sent anything on it,
    leaves one. It would count for ever against the pool's bound.
    """

    def _assign_requests_to_connections(self) -> list[httpcore.AsyncConnectionInterface]:
        held = {id(request.connection) for request in self._requests}
        lost = [
            connection
            for connection in self._connections
            if not (connection.is_idle() or connection.is_closed() or id(connection) in held)
        ]
        for connection in lost:
            self._connections.remove(connection)
        return lost + super()._assign_requests_to_connections()


class Load(NamedTuple):
    """Connections to upstreams: all that are open, those that no call uses, and the calls that wait
    for one."""

    open: int
    idle: int
    waiting: int


class Transport:
    """Sends requests; one pool of connections for each reach, so that a connection to a private
    address is never there for a caller who may only go to public ones."""

    def __init__(self, dialler: Dialler, clock: Clock, *, upstream_ca: Path | None = None) -> None:
        self._dialler = dialler
        self._clock = clock
        self._trust = trust(upstream_ca)
        # At DEBUG it tells every answer's fields, and a provider may echo the key in one.
        logging.getLogger("httpcore").setLevel(logging.INFO)
        self._pools: dict[tuple[Reach, bool], Pool] = {}

    @asynccontextmanager
    async def send(self, outbound: OutboundRequest) -> AsyncIterator[Response]:
        """Enter: the header has arrived. Exit: the connection is back, or closed if the body was
        not read to its end. Raises a RelayError; so does reading the body."""
        started = self._clock.monotonic()
        due = _due(outbound.deadlines.total)
        with _told_by(BEFORE_THE_ANSWER):
            request, answer = await self._answer(outbound, due)
        seconds = self._clock.monotonic() - started
        try:
            request.extensions["timeout"]["read"] = outbound.deadlines.idle
            response = await _response(outbound.method, answer, seconds)
            yield response if due == inf else response._replace(body=_timely(response.body, due))
        finally:
            await _release(answer)

    def load(self) -> Load:
        """How many connections there are now; who waits is not known here."""
        held = [one for pool in self._pools.values() for one in pool.connections]
        return Load(len(held), sum(one.is_idle() for one in held), 0)

    async def aclose(self) -> None:
        """Close every connection, used or idle."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            await pool.aclose()

    # Sending.

    async def _answer(
        self, outbound: OutboundRequest, due: float
    ) -> tuple[httpcore.Request, httpcore.Response]:
        """The header of the answer; once more where an idle connection turned out to be dead."""
        try:
            return await self._attempt(outbound, due)
        except NothingSent:
            return await self._attempt(outbound, due)
        except NoAnswer as error:
            repeatable = outbound.method in SAFE_METHODS and outbound.body.length == 0
            if not (error.reused and repeatable):
                raise
            return await self._attempt(outbound, due)

    async def _attempt(
        self, outbound: OutboundRequest, due: float
    ) -> tuple[httpcore.Request, httpcore.Response]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout_at(None if due == inf else due) as deadline:

            def sent() -> None:
                deadline.reschedule(min(loop.time() + outbound.deadlines.first_byte, due))

            async with aclosing(_counted(outbound.body, sent)) as content:
                request = _prepare(outbound, content)
                pool = self._pool(outbound.reach, outbound.own_allowed)
                return request, await pool.handle_async_request(request)

    def _pool(self, reach: Reach, own_allowed: bool) -> Pool:
        pool = self._pools.get((reach, own_allowed))
        if pool is None:
            pool = self._pools[reach, own_allowed] = Pool(
                ssl_context=self._trust,
                max_connections=MAX_CONNECTIONS,
                keepalive_expiry=KEEPALIVE_SECONDS,
                network_backend=Backend(self._dialler, reach, own_allowed),
            )
        return pool


def trust(upstream_ca: Path | None) -> ssl.SSLContext:
    """Public authorities, the system's, and the one in this PEM file; TLS 1.2 or newer."""
    context = httpcore.default_ssl_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if upstream_ca is not None:
        context.load_verify_locations(upstream_ca)
    return context


def _prepare(outbound: OutboundRequest, content: AsyncIterator[bytes]) -> httpcore.Request:
    target, deadlines = outbound.target, outbound.deadlines
    url = httpcore.URL(
        scheme=target.scheme.encode("ascii"),
        host=target.host.encode("ascii"),
        port=target.port,
        target=target.origin_form.encode("ascii"),
    )
    timeout = {
        "pool": deadlines.connect,
        "connect": deadlines.connect,
        "write": deadlines.write,
        "read": deadlines.first_byte,
    }
    length = outbound.body.length
    return httpcore.Request(
        method=outbound.method.encode("ascii"),
        url=url,
        headers=request_fields(outbound.method, target.authority, outbound.fields, length),
        content=content,
        extensions={"timeout": timeout},
    )


async def _counted(body: RequestBody, sent: Callable[[], None]) -> AsyncGenerator[bytes, None]:
    """The body, exactly as long as declared (RFC 9112 section 6.2); then says that it was sent."""
    left = body.length
    if left != 0:
        async for chunk in body:
            if left is not None:
                left -= len(chunk)
                if left < 0:
                    break
            yield chunk
    if left:
        raise BadRequest("The request body is not as long as its Content-Length says.")
    sent()


# Receiving.


async def _response(method: str, answer: httpcore.Response, seconds: float) -> Response:
    fields = tuple((name.lower(), value) for name, value in answer.headers)
    framing = judge(method, answer.status, answer.extensions["http_version"], fields)
    body = _octets(answer)
    if framing.bodiless:
        async for _ in body:  # reads nothing, but lets the connection be used again
            pass
    return Response(
        status=answer.status,
        fields=fields,
        body=body,
        complete_at_close=framing.complete_at_close,
        upstream_seconds=seconds,
    )


async def _octets(answer: httpcore.Response) -> AsyncGenerator[bytes, None]:
    with _told_by(IN_THE_ANSWER):
        async for chunk in answer.aiter_stream():
            yield chunk


def _due(total: float | None) -> float:
    """When all of a call has to be over, in seconds of the event loop."""
    return inf if total is None else asyncio.get_running_loop().time() + total


async def _timely(body: AsyncIterator[bytes], due: float) -> AsyncIterator[bytes]:
    """The octets, while there is time for them."""
    with _told_by(IN_THE_ANSWER):
        while True:
            async with asyncio.timeout_at(due):
                chunk = await anext(body, None)
            if chunk is None:
                return
            yield chunk


async def _release(answer: httpcore.Response) -> None:
    """Give the connection back, or close it, whoever hangs up meanwhile.

    A cancelled release would be a connection that the pool counts for ever: the engine's own
    shields hold off only what its library cancels.
    """
    await asyncio.shield(asyncio.ensure_future(_close(answer)))


async def _close(answer: httpcore.Response) -> None:
    if _has_surplus(answer):
        await answer.extensions["network_stream"].aclose()
    await answer.aclose()


def _has_surplus(answer: httpcore.Response) -> bool:
    """Whether octets stand behind the answer, read but not asked for.

    The parser would take them for the answer to the next request. It has no public place where it
    shows them; should the private one move, no connection is used twice.
    """
    found: object = answer.stream
    for name in ("_stream", "_connection", "_h11_state", "trailing_data"):
        found = getattr(found, name, None)
    return not (isinstance(found, tuple) and found[0] == b"")


@contextmanager
def _told_by(failures: Failures) -> Iterator[None]:
    """Turns the engine's failures into ours by a table; ours get back their cause."""
    try:
        yield
    except RelayError as error:
        raise error from error.__context__  # the engine has cleared __cause__
    except Exception as error:
        for kind, ours, detail in failures:
            if isinstance(error, kind):
                raise ours(detail) from error
        raise
