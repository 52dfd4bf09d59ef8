"""The leaf on our own wire: sends one prepared request and gives back the response as it comes.

No cookies, no proxy variables, no redirects, no decoding, and no object but those of `messages`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Final

from proxy.clock import Clock
from proxy.errors import (
    UpstreamError,
    UpstreamIncomplete,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from proxy.messages import Response
from proxy.network import Dialler
from proxy.upstream.transport import SAFE_METHODS, Load, OutboundRequest, trust
from proxy.upstream.wire.answer import Answer, Head
from proxy.upstream.wire.connection import Connection
from proxy.upstream.wire.connector import Connector, Route
from proxy.upstream.wire.guards import ending, opening
from proxy.upstream.wire.pool import Bounds, Pool
from proxy.upstream.wire.sentences import CUT, NOT_ONE_ANSWER, OVERDUE
from proxy.upstream.wire.upload import upload

BODILESS: Final = frozenset({204, 304})
"""Answers behind which many servers send a body nevertheless: it is dropped, and the connection
closed. Octets behind any other answer are the fault of that answer."""

_BOUNDS: Final = Bounds()


class WireTransport:
    """Sends requests over connections that are kept open, within bounds.

    `upstream_ca`: a PEM file with one more authority to trust.
    """

    def __init__(
        self,
        dialler: Dialler,
        clock: Clock,
        *,
        upstream_ca: Path | None = None,
        bounds: Bounds = _BOUNDS,
    ) -> None:
        context = trust(upstream_ca)
        context.set_alpn_protocols(["http/1.1"])
        self._clock = clock
        self._idle_seconds = bounds.idle_seconds
        self._pool = Pool(Connector(dialler, context), clock, bounds)

    def send(self, outbound: OutboundRequest) -> AbstractAsyncContextManager[Response]:
        """Enter: the header has arrived. Exit: the connection is back, or closed if the answer is
        not complete. Raises a RelayError; so does reading the body."""
        return _Sending(self._pool, self._clock, outbound, self._idle_seconds)

    def load(self) -> Load:
        """How many connections there are now."""
        return Load(*self._pool.load())

    async def aclose(self) -> None:
        """Close every connection, used or idle."""
        await self._pool.aclose()


class _Sending:
    """One call, from the pool and back to it."""

    __slots__ = (
        "_answer",
        "_clock",
        "_connection",
        "_idle_seconds",
        "_outbound",
        "_pool",
        "_sent",
        "_started",
    )

    def __init__(
        self, pool: Pool, clock: Clock, outbound: OutboundRequest, idle_seconds: float
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._outbound = outbound
        self._idle_seconds = idle_seconds
        self._connection: Connection | None = None
        self._answer = Answer(outbound.method)
        self._sent = False

    async def __aenter__(self) -> Response:
        self._started = started = self._clock.monotonic()
        outbound = self._outbound
        method = outbound.method
        begin = outbound.opening or opening(method, outbound.target, outbound.fields)
        header = begin + ending(method, outbound.body.length)
        head = await self._first_or_second(_route(outbound), header)
        return Response(
            status=head.status,
            fields=head.fields,
            body=self._body(),
            complete_at_close=head.complete_at_close,
            upstream_seconds=self._clock.monotonic() - started,
            content=self._answer.whole,
        )

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        seconds = self._answer.seconds_to_live(self._idle_seconds) if self._sent else 0.0
        if seconds <= 0 or connection.closed:
            self._answer.fail(UpstreamIncomplete(CUT))
            connection.close()
        else:
            connection.finish()
            self._pool.release(connection, seconds)

    async def _first_or_second(self, route: Route, header: bytes) -> Head:
        """Once more where a connection that was kept open turned out to be dead."""
        try:
            return await self._attempt(route, header)
        except UpstreamUnreachable:
            if not self._may_repeat():
                raise
        self._pool.distrust(route)
        self._answer = Answer(self._outbound.method)
        return await self._attempt(route, header)

    def _may_repeat(self) -> bool:
        """Whether a used connection died without a word, and sending twice does no harm (RFC 9110
        section 9.2.2)."""
        connection, outbound = self._connection, self._outbound
        died = connection is not None and connection.calls > 1 and not self._answer.begun
        return died and outbound.method in SAFE_METHODS and outbound.body.length == 0

    async def _attempt(self, route: Route, header: bytes) -> Head:
        outbound = self._outbound
        deadlines = outbound.deadlines
        self._connection = connection = await self._acquire(route)
        try:
            connection.begin(self._answer, self._left(deadlines.total))
            self._sent = await upload(connection, header, outbound.body, deadlines.write)
            head = await connection.header(deadlines.first_byte)
            if self._answer.surplus:
                self._refuse_surplus(head)
            return head
        except BaseException:
            connection.close()
            raise

    def _refuse_surplus(self, head: Head) -> None:
        """Octets behind its end, or a first chunk that is none, while none of it was passed on."""
        answer = self._answer
        bodiless = self._outbound.method == "HEAD" or head.status in BODILESS
        if not bodiless and (answer.complete or not answer.size):
            raise UpstreamError(NOT_ONE_ANSWER) from answer.error

    async def _acquire(self, route: Route) -> Connection:
        """A connection, in the time for one and in that for the whole call."""
        deadlines = self._outbound.deadlines
        if deadlines.total is None:
            return await self._pool.acquire(route, deadlines.connect)
        try:
            async with asyncio.timeout(self._left(deadlines.total)):
                return await self._pool.acquire(route, deadlines.connect)
        except TimeoutError as error:
            raise UpstreamTimeout(OVERDUE) from error

    def _left(self, total: float | None) -> float | None:
        """The seconds that are left of those for the whole call."""
        return None if total is None else total - (self._clock.monotonic() - self._started)

    def _body(self) -> AsyncIterator[bytes]:
        assert self._connection is not None  # noqa: S101  the header came over it
        return _Body(self._connection, self._answer, self._outbound.deadlines.idle)


class _Body:
    """The octets of an answer, as they come: what has come since the last time at once."""

    __slots__ = ("_answer", "_connection", "_seconds")

    def __init__(self, connection: Connection, answer: Answer, seconds: float) -> None:
        self._connection = connection
        self._answer = answer
        self._seconds = seconds

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        answer = self._answer
        while not answer.chunks and not answer.over:
            await self._connection.more(self._seconds)
        if answer.chunks:
            data = answer.take()
            self._connection.taken(answer)
            return data
        if answer.error is not None:
            raise answer.error
        raise StopAsyncIteration


def _route(outbound: OutboundRequest) -> Route:
    target = outbound.target
    return Route(
        target.scheme,
        target.host,
        target.port,
        outbound.reach,
        outbound.own_allowed,
        outbound.partition,
    )
