"""Opens connections: dials through the checking dialler, and speaks TLS where that is asked for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import NamedTuple

from proxy.errors import UpstreamConnectTimeout
from proxy.network import Dialler, attach
from proxy.reach import Reach
from proxy.upstream.wire.connection import Connection
from proxy.upstream.wire.sentences import NOT_CONNECTED_IN_TIME
from proxy.upstream.wire.tls import Secured, Sessions


class Route(NamedTuple):
    """What calls must have in common to share a connection.

    A connection to a private address is never there for a caller who may only go to public ones,
    and where credentials differ, neither is one tenant's for another: that is the `partition`.
    """

    scheme: str
    host: str
    port: int
    reach: Reach
    own_allowed: bool
    partition: str


class Connector:
    """Connects along a route; TLS is verified by `context` under the route's host."""

    def __init__(self, dialler: Dialler, context: ssl.SSLContext) -> None:
        self._dialler = dialler
        self._sessions = Sessions(context)

    async def connect(
        self, route: Route, seconds: float, on_close: Callable[[Connection], None]
    ) -> Connection:
        """An open connection. `seconds`: to connect, and again for the TLS handshake.

        Raises what `Dialler.connect` raises, UpstreamConnectTimeout, UpstreamTlsError,
        UpstreamUnreachable; then `on_close` is not told.
        """
        try:
            async with asyncio.timeout(seconds):
                sock = await self._dialler.connect(
                    route.host, route.port, route.reach, route.own_allowed
                )
        except TimeoutError as error:
            raise UpstreamConnectTimeout(NOT_CONNECTED_IN_TIME) from error
        connection = Connection(sock, on_close)
        if route.scheme == "http":
            await attach(sock, lambda: connection)
            return connection
        secured = Secured(connection, self._sessions, route, route.host)
        transport, _ = await attach(sock, lambda: secured)
        try:
            async with asyncio.timeout(seconds):
                await secured.ready
        except BaseException as error:
            transport.abort()
            if isinstance(error, TimeoutError):
                raise UpstreamConnectTimeout(NOT_CONNECTED_IN_TIME) from error
            raise
        return connection
