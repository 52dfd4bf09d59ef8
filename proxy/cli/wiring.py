"""The server's own rooms for one command: the same rules and the same way out, without a server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.authorization import Authorizer
from proxy.cli.session import Session
from proxy.destinations import parse_destination
from proxy.network import Dialler, SystemResolver
from proxy.upstream.forwarder import Forwarder
from proxy.upstream.leaves import TRANSPORTS
from proxy.upstream.redirects import Redirects
from proxy.upstream.settings import deadlines

PSEUDONYM = b"keyrelay-cli"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def authorizer(session: Session) -> Authorizer:
    """What decides where a key may go."""
    server = session.config.server
    own = {(host, server.port) for host in (server.host, *_LOOPBACK)}
    if server.public_url is not None:
        public = parse_destination(server.public_url)
        own.add((public.host, public.port))
    return Authorizer(session.services, frozenset(own))


@asynccontextmanager
async def forwarder(session: Session) -> AsyncIterator[Forwarder]:
    """What writes the key and sends; closed at the end."""
    limits, server = session.config.limits, session.config.server
    dialler = Dialler(SystemResolver())
    transport = TRANSPORTS[server.upstream_transport](
        dialler, session.desk.clock, upstream_ca=server.upstream_ca
    )
    try:
        yield Forwarder(
            transport=transport,
            keys=session.vault,
            services=session.services,
            redirects=Redirects(server.public_url),
            pseudonym=PSEUDONYM,
            deadlines=deadlines(limits),
        )
    finally:
        await transport.aclose()
