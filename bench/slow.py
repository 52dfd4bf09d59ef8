"""A thousand slow streams at once: what each takes in memory, and whether all come whole."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from bench.case import Bodies, post
from bench.origin import SLOW_EVENTS, SLOW_SECONDS
from bench.paced import octets
from bench.peers.keyrelay import Install
from bench.processes import forget_peak, peak, resident
from bench.running import running

STREAMS = 1000
AT_ONCE = 100
"""Connections that are opened together."""

LAST = b"\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Slow:
    """Octets that a stream took at the peak; `dropped` streams lost an event or their end."""

    streams: int
    octets_each: float
    dropped: int


def whole(received: bytes) -> bool:
    """Whether every event and the end came."""
    return received.count(b"data: {") == SLOW_EVENTS and received.endswith(LAST)


def measure(ready: Install, bodies: Bodies) -> Slow:
    """Opens the streams, waits until all have ended."""
    load, warm = (
        post(ready.path("origin", path), bodies["stream"], ready.token_field)
        for path in ("/slow", "/burst")
    )
    with running(ready.program) as server:
        request = octets(load, server.port)
        asyncio.run(_stream(server.port, octets(warm, server.port)))
        before = resident(server.pid)
        forget_peak(server.pid)
        kept = asyncio.run(_all(server.port, request))
        grown = peak(server.pid) - before
    return Slow(STREAMS, grown / STREAMS, sum(not one for one in kept))


async def _all(port: int, request: bytes) -> list[bool]:
    tasks = []
    for _ in range(STREAMS // AT_ONCE):
        tasks += [asyncio.create_task(_stream(port, request)) for _ in range(AT_ONCE)]
        await asyncio.sleep(0.2)
    return await asyncio.gather(*tasks)


async def _stream(port: int, request: bytes) -> bool:
    received = b""
    try:
        async with asyncio.timeout(SLOW_EVENTS * SLOW_SECONDS * 3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            while data := await reader.read(65536):
                received += data
                if received.endswith(LAST):
                    break
            writer.close()
    except OSError:  # TimeoutError is one
        return False
    return whole(received)
