"""Prepared requests and a transport for tests that send over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from proxy.clock import SystemClock
from proxy.destinations import Target
from proxy.messages import Fields, Response
from proxy.network import Dial, Dialler, Resolver, dial
from proxy.reach import Reach
from proxy.upstream.transport import Deadlines, OutboundRequest, Transport
from tests.support.resolver import FakeResolver


class Body:
    """A request body in pieces; `length` as declared, or `None` for chunked. Can be read once."""

    def __init__(
        self, parts: Iterable[bytes] | AsyncIterator[bytes] = (), length: int | None = 0
    ) -> None:
        self._parts = parts
        self._length = length
        self.reads = 0

    @property
    def length(self) -> int | None:
        return self._length

    def at_hand(self) -> bytes | None:
        return None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.reads += 1
        if isinstance(self._parts, AsyncIterator):
            async for part in self._parts:
                yield part
        else:
            for part in self._parts:
                yield part


def whole(octets: bytes) -> Body:
    """A body of known length."""
    return Body([octets] if octets else [], len(octets))


def target(url: str) -> Target:
    """A target from a plain URL."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    query = parts.query if "?" in url else None
    return Target(parts.scheme, parts.hostname or "", port, parts.path or "/", query)


@dataclass(frozen=True, slots=True)
class Sender:
    """A transport, its dialler, and one way to say what shall be sent."""

    transport: Transport
    dialler: Dialler

    def request(
        self,
        url: str,
        method: str = "GET",
        fields: Fields = (),
        body: Body | None = None,
        reach: Reach = Reach.REGISTERED,
        deadlines: Deadlines | None = None,
    ) -> OutboundRequest:
        return OutboundRequest(
            method,
            target(url),
            fields,
            body or Body(),
            reach,
            deadlines=deadlines or Deadlines(),
        )


@asynccontextmanager
async def sender(
    resolver: Resolver | None = None, *, wires: Dial = dial, upstream_ca: Path | None = None
) -> AsyncIterator[Sender]:
    """A transport that is closed at the end."""
    dialler = Dialler(resolver or FakeResolver(), dial=wires)
    transport = Transport(dialler, SystemClock(), upstream_ca=upstream_ca)
    try:
        yield Sender(transport, dialler)
    finally:
        await transport.aclose()


async def fetch(to: Sender, *args: Any, **options: Any) -> tuple[Response, bytes]:
    """Send what `Sender.request` makes of the arguments; the response and its whole body."""
    async with to.transport.send(to.request(*args, **options)) as response:
        return response, b"".join([part async for part in response.body])
