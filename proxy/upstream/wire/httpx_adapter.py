"""The wire for programs that speak httpx: the same connections and guards behind its transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Final

import httpx

from proxy.destinations import DEFAULT_PORTS, Target
from proxy.errors import (
    BadRequest,
    RelayError,
    Unavailable,
    UpstreamConnectTimeout,
    UpstreamIncomplete,
    UpstreamNameTimeout,
    UpstreamTimeout,
    UpstreamTlsError,
    UpstreamUnreachable,
)
from proxy.messages import Response
from proxy.reach import Reach
from proxy.upstream.transport import Deadlines, OutboundRequest
from proxy.upstream.wire.transport import WireTransport

Translations = tuple[tuple[type[RelayError], type[httpx.TransportError]], ...]

BEFORE_THE_ANSWER: Final[Translations] = (
    (UpstreamConnectTimeout, httpx.ConnectTimeout),
    (UpstreamNameTimeout, httpx.ConnectTimeout),
    (UpstreamTimeout, httpx.ReadTimeout),
    (UpstreamTlsError, httpx.ConnectError),
    (UpstreamUnreachable, httpx.ConnectError),
    (Unavailable, httpx.PoolTimeout),
    (BadRequest, httpx.LocalProtocolError),
    (RelayError, httpx.RemoteProtocolError),
)
"""The first row that fits decides."""

IN_THE_ANSWER: Final[Translations] = (
    (UpstreamTimeout, httpx.ReadTimeout),
    (UpstreamIncomplete, httpx.ReadError),
    (RelayError, httpx.RemoteProtocolError),
)


class HttpxTransport(httpx.AsyncBaseTransport):
    """Sends requests of httpx over a WireTransport, which it closes.

    Where they may go is `reach`; the addresses are checked as for every call. Host is always the
    URL's. Raises httpx's own errors; the RelayError is their cause.
    """

    def __init__(self, wire: WireTransport, reach: Reach = Reach.PUBLIC) -> None:
        self._wire = wire
        self._reach = reach

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer, its body unread."""
        sending = self._wire.send(_outbound(request, self._reach))
        try:
            response = await sending.__aenter__()
        except RelayError as error:
            raise _translated(error, BEFORE_THE_ANSWER, request) from error
        return httpx.Response(
            response.status,
            headers=list(response.fields),
            stream=_Content(sending, response, request),
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._wire.aclose()


class _Content(httpx.AsyncByteStream):
    """The body of an answer; closing it gives the connection back."""

    def __init__(
        self,
        sending: AbstractAsyncContextManager[Response],
        response: Response,
        request: httpx.Request,
    ) -> None:
        self._sending = sending
        self._response = response
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._response.body:
                yield part
        except RelayError as error:
            raise _translated(error, IN_THE_ANSWER, self._request) from error

    async def aclose(self) -> None:
        """Give back the connection, or close it when the body wasn't read to its end."""
        await self._sending.__aexit__(None, None, None)


class _Upload:
    """The body of a request as the wire reads it."""

    def __init__(self, request: httpx.Request) -> None:
        assert isinstance(request.stream, httpx.AsyncByteStream)  # noqa: S101  an async client
        self._stream = request.stream
        self.length = _length(request)

    def at_hand(self) -> bytes | None:
        """Nobody knows before it is read."""
        return None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            if part:
                yield part


def _length(request: httpx.Request) -> int | None:
    if "transfer-encoding" in request.headers:
        return None
    return int(request.headers.get("content-length", "0"))


def _outbound(request: httpx.Request, reach: Reach) -> OutboundRequest:
    url = request.url
    path, mark, query = url.raw_path.decode("ascii").partition("?")
    host = url.raw_host.decode("ascii").strip("[]")
    port = url.port or DEFAULT_PORTS[url.scheme]
    return OutboundRequest(
        method=request.method,
        target=Target(url.scheme, host, port, path, query if mark else None),
        fields=tuple((name.lower(), value) for name, value in request.headers.raw),
        body=_Upload(request),
        reach=reach,
        deadlines=_deadlines(request.extensions.get("timeout", {})),
    )


def _deadlines(timeout: Mapping[str, float | None]) -> Deadlines:
    """Seconds as httpx gives them; what it leaves open is ours."""
    read = timeout.get("read")
    found = {
        "connect": timeout.get("connect"),
        "write": timeout.get("write"),
        "first_byte": read,
        "idle": read,
    }
    return replace(Deadlines(), **{name: value for name, value in found.items() if value})


def _translated(
    error: RelayError, table: Translations, request: httpx.Request
) -> httpx.TransportError:
    kind = next(theirs for ours, theirs in table if isinstance(error, ours))
    return kind(error.detail, request=request)
