"""The wire transport for tests that send over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from proxy.clock import Clock, SystemClock
from proxy.network import Dial, Dialler, Resolver, dial
from proxy.upstream.wire.pool import Bounds
from proxy.upstream.wire.transport import WireTransport
from tests.support.outbound import Sender
from tests.support.resolver import FakeResolver


@asynccontextmanager
async def wire_sender(
    resolver: Resolver | None = None,
    *,
    wires: Dial = dial,
    upstream_ca: Path | None = None,
    clock: Clock | None = None,
    bounds: Bounds | None = None,
) -> AsyncIterator[Sender]:
    """A wire transport that is closed at the end."""
    dialler = Dialler(resolver or FakeResolver(), dial=wires)
    options: dict[str, Any] = {"bounds": bounds} if bounds else {}
    transport = WireTransport(dialler, clock or SystemClock(), upstream_ca=upstream_ca, **options)
    try:
        yield Sender(transport, dialler)  # type: ignore[arg-type]
    finally:
        await transport.aclose()


def left_behind(to: Sender) -> tuple[int, int, int]:
    """What a wire transport counts: connections open or being opened, routes, and who waits."""
    pool: Any = to.transport._pool  # type: ignore[attr-defined]
    assert pool._opened == sum(lane.opened for lane in pool._lanes.values())
    assert set(pool._connections.values()) <= set(pool._lanes.values())
    waiting = sum(len(lane.waiting) for lane in pool._waiting)
    return pool._opened, len(pool._lanes), waiting
