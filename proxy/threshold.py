"""A connection until TLS is agreed: counted before its first octet, and given some seconds."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Final, Protocol

from uvicorn.protocols.utils import get_remote_addr

from proxy.door import Door
from proxy.patience import Outgoing

SHUTDOWN_SECONDS: Final = 600.0
"""Longer than whoever closes waits by themselves: for a slow reader of the last octets."""

HIGH_WATER: Final = 64 * 1024
"""Octets of an answer that wait for a slow reader, as without TLS."""


class Layers:
    """The writing side of a connection with TLS: what waits above it and what waits below."""

    def __init__(self, above: asyncio.Transport, below: asyncio.Transport) -> None:
        self._above = above
        self._below = below

    def is_closing(self) -> bool:
        """Whether it was closed by us."""
        return self._above.is_closing()

    def get_write_buffer_size(self) -> int:
        """Octets that the caller has not taken yet."""
        return self._above.get_write_buffer_size() + self._below.get_write_buffer_size()

    def abort(self) -> None:
        """Close at once."""
        self._below.abort()


class Secured(Protocol):
    """What a connection becomes."""

    counted: str | None
    outgoing: Outgoing | None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """TLS is agreed."""
        ...

    def data_received(self, data: bytes) -> None:
        """Octets that came meanwhile."""
        ...


class Agreements:
    """How TLS is agreed at one listener. `under_way`: connections that have not come so far."""

    def __init__(self, context: Callable[[], ssl.SSLContext], door: Door, seconds: float) -> None:
        self.context = context
        self.door = door
        self.seconds = seconds
        self.under_way: set[asyncio.Task[None]] = set()

    def give_up(self) -> None:
        """Nobody is waited for any more."""
        for task in self.under_way:
            task.cancel()


class Threshold(asyncio.Protocol):
    """One of them; `make` gives what comes after."""

    def __init__(self, agreements: Agreements, make: Callable[[], Secured]) -> None:
        self._agreements = agreements
        self._make = make
        self._early = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A caller has come, and is let in or not."""
        address = get_remote_addr(transport)
        counted = self._agreements.door.enter(address[0] if address else "")
        if counted is None:
            transport.close()
            return
        under_way = self._agreements.under_way
        task = asyncio.get_running_loop().create_task(self._agree(transport, counted))
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    def data_received(self, data: bytes) -> None:
        """What came before TLS reads, and what it has read before the connection speaks."""
        self._early += data

    def _give_early(self, below: asyncio.Transport) -> None:
        """To TLS, which has taken our place; it keeps them until it begins."""
        octets, self._early = self._early, b""
        reader: Any = below.get_protocol()
        while octets and reader is not self:
            room = memoryview(reader.get_buffer(len(octets)))
            part = octets[: len(room)]
            room[: len(part)] = part
            reader.buffer_updated(len(part))
            octets = octets[len(part) :]

    async def _agree(self, below: asyncio.Transport, counted: str) -> None:
        above, loop = None, asyncio.get_running_loop()
        loop.call_soon(self._give_early, below)  # once TLS waits
        try:
            above = await loop.start_tls(
                below,
                self,
                self._agreements.context(),
                server_side=True,
                ssl_handshake_timeout=self._agreements.seconds,
                ssl_shutdown_timeout=SHUTDOWN_SECONDS,
            )
        except OSError:
            pass  # of TLS too, and a deadline: nothing that could be said would be understood
        finally:
            if above is None or above.is_closing():
                below.abort()
                self._agreements.door.leave(counted)
        if above is not None and not above.is_closing():
            self._hand_over(above, below, counted)

    def _hand_over(self, above: asyncio.Transport, below: asyncio.Transport, counted: str) -> None:
        above.set_write_buffer_limits(high=HIGH_WATER)
        one = self._make()
        one.counted, one.outgoing = counted, Layers(above, below)
        above.set_protocol(one)  # type: ignore[arg-type]
        one.connection_made(above)
        if self._early:
            one.data_received(self._early)
