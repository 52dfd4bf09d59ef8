"""TLS between a connection and its socket, with sessions that are used again.

The TLS of asyncio and uvloop takes no session, so each of their connections pays for a whole
handshake. This is the same OpenSSL object over memory, with the session of the last connection.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, cast

from proxy.errors import UpstreamTlsError, UpstreamUnreachable
from proxy.upstream.wire.connection import Connection
from proxy.upstream.wire.sentences import NOT_ANSWERED, TLS_FAILED

MAX_SESSIONS: Final = 1000
_PIECE: Final = 1 << 18


class Sessions:
    """The newest session of each route, the least used forgotten first.

    A resumed session stands for the certificate that was verified when it began: so it is only
    ever for the same route, and for the context that verified it.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self._newest: OrderedDict[Hashable, ssl.SSLSession] = OrderedDict()

    def get(self, route: Hashable) -> ssl.SSLSession | None:
        """What to resume, if anything."""
        return self._newest.get(route)

    def keep(self, route: Hashable, session: ssl.SSLSession | None) -> None:
        """What the next connection may resume."""
        if session is None or not session.has_ticket:
            return
        self._newest[route] = session
        self._newest.move_to_end(route)
        if len(self._newest) > MAX_SESSIONS:
            self._newest.popitem(last=False)


class Secured(asyncio.Protocol):
    """The protocol of the socket, and the wire of the connection above it."""

    def __init__(
        self, connection: Connection, sessions: Sessions, route: Hashable, host: str
    ) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._connection = connection
        self._sessions = sessions
        self._route = route
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = sessions.context.wrap_bio(
            self._in, self._out, server_hostname=host, session=sessions.get(route)
        )
        self._socket: asyncio.Transport | None = None
        self._closed = False
        self._session_is_kept = False

    # What the event loop says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there: the handshake begins."""
        self._socket = cast(asyncio.Transport, transport)
        self._shake_hands()

    def data_received(self, data: bytes) -> None:
        """Octets from the socket."""
        self._in.write(data)
        if not self.ready.done():
            self._shake_hands()
        if self.ready.done() and not self._closed:
            self._decrypt()

    def eof_received(self) -> bool:
        """The socket has ended, with or without a word of TLS (RFC 8446 section 6.1)."""
        self._in.write_eof()
        if not self.ready.done():
            self._refuse(UpstreamUnreachable(NOT_ANSWERED), None)
        elif not self._closed:
            self._decrypt()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        if not self.ready.done():
            self._refuse(UpstreamUnreachable(NOT_ANSWERED), exc)
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        """The upstream reads too slowly."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """The upstream has caught up."""
        self._connection.resume_writing()

    # What the connection asks.

    def write(self, data: bytes) -> None:
        """Encrypt and send."""
        try:
            self._tls.write(data)
        except ssl.SSLError as error:  # told later, as sockets do: the caller is not done yet
            asyncio.get_running_loop().call_soon(self._connection.connection_lost, error)
            return
        self._send()

    def pause_reading(self) -> None:
        """Let the peer wait."""
        if self._socket is not None:
            self._socket.pause_reading()

    def resume_reading(self) -> None:
        """Take octets again."""
        if self._socket is not None:
            self._socket.resume_reading()

    def abort(self) -> None:
        """Close at once."""
        self._closed = True
        if self._socket is not None:
            self._socket.abort()

    # TLS.

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
        except ssl.SSLError as error:
            self._send()
            self._refuse(UpstreamTlsError(TLS_FAILED), error)
        else:
            self._send()
            self._connection.attach(self)
            self.ready.set_result(None)

    def _refuse(self, refusal: Exception, cause: Exception | None) -> None:
        refusal.__cause__ = cause
        self.ready.set_exception(refusal)
        self.ready.exception()  # whoever has given up waiting needn't be told
        self.abort()

    def _decrypt(self) -> None:
        """Give the connection what there is, and how it ends."""
        pieces: list[bytes] = []
        cause: Exception | None = None
        ended = False
        try:
            while piece := self._tls.read(_PIECE):
                pieces.append(piece)
            ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            ended, cause = True, error
        self._send()  # TLS itself may have had to answer
        if pieces:
            self._keep_session()
            self._connection.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if ended:
            self._end(cause)

    def _end(self, cause: Exception | None) -> None:
        if cause is None:
            self._connection.eof_received()
        else:
            self._connection.connection_lost(cause)

    def _send(self) -> None:
        if self._out.pending and self._socket is not None and not self._closed:
            self._socket.write(self._out.read())

    def _keep_session(self) -> None:
        """Tickets come behind the handshake, in TLS 1.3 (RFC 8446 section 4.6.1)."""
        if not self._session_is_kept:
            self._session_is_kept = True
            self._sessions.keep(self._route, self._tls.session)
