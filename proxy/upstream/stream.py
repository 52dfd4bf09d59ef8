"""The network seam of httpcore: connections from our dialler, over a protocol of our own.

What arrives is taken in at once, decrypted, up to a limit. So a connection knows before it is used
again whether the upstream has hung up or sent more than it was asked for, and whether an answer has
come while the request is still being sent.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from collections.abc import Iterable
from typing import Any, Final, cast

import httpcore

from proxy.network import Dialler, attach
from proxy.reach import Reach

MAX_BUFFERED: Final = 1 << 18
"""Octets taken in ahead of the reader before the upstream is made to wait."""


class NothingSent(httpcore.NetworkError):
    """The connection was unusable before any octet of this request was written."""


class NoAnswer(httpcore.ReadError):
    """The connection ended before any octet of the answer; `reused`: it had answered before."""

    def __init__(self, reused: bool) -> None:
        super().__init__("the connection ended before the answer")
        self.reused = reused


class TlsFailure(httpcore.ConnectError):
    """The handshake failed: certificate, name, or protocol."""


class Wire(asyncio.Protocol):
    """Both directions of one connection, with flow control."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended = False
        self.error: Exception | None = None
        self.transport: asyncio.Transport | None = None
        self._writable = True
        self._reading_paused = False
        self._waiter: asyncio.Future[None] | None = None

    # What the event loop says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Octets from the upstream."""
        self.received += data
        if len(self.received) > MAX_BUFFERED and self.transport and not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """The upstream says that nothing more comes: the connection closes."""
        self.ended = True
        self._wake()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, by whosever wish."""
        self.ended = True
        self.error = exc
        self._wake()

    def pause_writing(self) -> None:
        """The upstream reads too slowly."""
        self._writable = False

    def resume_writing(self) -> None:
        """The upstream has caught up."""
        self._writable = True
        self._wake()

    # What the stream asks.

    def take(self, size: int) -> bytes:
        """Up to `size` octets of what has been received."""
        data = bytes(self.received[:size])
        del self.received[:size]
        if self._reading_paused and self.transport and len(self.received) < MAX_BUFFERED // 2:
            self._reading_paused = False
            self.transport.resume_reading()
        return data

    @property
    def answered_early(self) -> bool:
        """Whether a final answer has begun (a 1xx is none, RFC 9110 section 15.2)."""
        return len(self.received) > 9 and self.received[9:10] != b"1"

    async def until_received(self) -> None:
        """Until there are octets, or there will be none."""
        while not self.received and not self.ended:
            await self._sleep()

    async def until_writable(self) -> None:
        """Until more may be written, or writing has become pointless."""
        while not self._writable and not self.ended and not self.answered_early:
            await self._sleep()

    async def _sleep(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Stream(httpcore.AsyncNetworkStream):
    """One connection as httpcore sees it, and what it must know of its requests."""

    def __init__(self, wire: Wire, transport: asyncio.Transport) -> None:
        self._wire = wire
        self._transport = transport
        self._requests = 0
        self._answer_octets = 0
        self._between_requests = True
        self._closed = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """Octets as they came; empty at the end. Raises ReadTimeout, ReadError, NoAnswer."""
        try:
            async with asyncio.timeout(timeout):
                await self._wire.until_received()
        except TimeoutError as error:
            raise httpcore.ReadTimeout from error
        self._between_requests = True
        if self._wire.received:
            data = self._wire.take(max_bytes)
            self._answer_octets += len(data)
            return data
        if not self._answer_octets:
            raise NoAnswer(reused=self._requests > 1) from self._wire.error
        if self._wire.error:
            raise httpcore.ReadError from self._wire.error
        return b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Send octets. Raises WriteTimeout, NothingSent, and WriteError where an answer waits.

        httpcore takes a WriteError as the sign to read the answer, so one that comes before the
        whole request was sent is not lost.
        """
        if self._between_requests:
            self._begin()
        elif self._wire.ended or self._wire.answered_early:
            raise httpcore.WriteError("the upstream has stopped reading")
        if not buffer:
            return
        self._transport.write(buffer)
        try:
            async with asyncio.timeout(timeout):
                await self._wire.until_writable()
        except TimeoutError as error:
            raise httpcore.WriteTimeout from error

    def _begin(self) -> None:
        """A new request: nothing may have come that nobody asked for."""
        if self._closed or self._wire.ended or self._wire.received:
            raise NothingSent
        self._between_requests = False
        self._requests += 1
        self._answer_octets = 0

    async def aclose(self) -> None:
        """Close at once; nothing is waited for."""
        self._closed = True
        self._transport.abort()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        """The same connection under TLS. Raises TlsFailure, ConnectTimeout, ConnectError."""
        loop = asyncio.get_running_loop()
        if self._wire.received:  # no TLS server speaks first, and these octets would be missing
            await self.aclose()
            raise TlsFailure("the destination does not speak TLS")
        try:
            async with asyncio.timeout(timeout):
                secured = await loop.start_tls(
                    self._transport, self._wire, ssl_context, server_hostname=server_hostname
                )
        except OSError as error:
            await self.aclose()
            raise _handshake_error(error) from error
        except BaseException:
            await self.aclose()
            raise
        assert secured is not None  # noqa: S101  only a closing transport gives None
        self._wire.transport = secured
        return Stream(self._wire, secured)

    def get_extra_info(self, info: str) -> Any:
        """`is_readable`, asked of idle connections: True forbids to use the connection again."""
        if info == "is_readable":
            return self._closed or self._wire.ended or bool(self._wire.received) or self._pending()
        return self._transport.get_extra_info(info)

    def _pending(self) -> bool:
        """Whether the kernel holds octets that the event loop has not seen yet."""
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))


def _handshake_error(error: OSError) -> Exception:
    if isinstance(error, ssl.SSLError):
        return TlsFailure(str(error))
    if isinstance(error, TimeoutError):
        return httpcore.ConnectTimeout(str(error))
    return httpcore.ConnectError(str(error))


class Backend(httpcore.AsyncNetworkBackend):
    """Connects for one pool: through the dialler, with one reach."""

    def __init__(self, dialler: Dialler, reach: Reach, own_allowed: bool) -> None:
        self._dialler = dialler
        self._reach = reach
        self._own_allowed = own_allowed

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        """A connection to a judged address. Raises ConnectTimeout and what `Dialler` raises."""
        try:
            async with asyncio.timeout(timeout):
                sock = await self._dialler.connect(host, port, self._reach, self._own_allowed)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout from error
        transport, wire = await attach(sock, Wire)
        return Stream(wire, transport)
