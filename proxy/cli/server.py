"""One listener served until it is told to stop: then calls in flight may end, up to a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from proxy.cli.listening import BACKLOG
from proxy.clock import SystemClock
from proxy.door import OPEN_WIDE, Door
from proxy.familiar import Familiar
from proxy.orderly import OrderlyProtocol
from proxy.patience import Waits
from proxy.threshold import Agreements, Threshold

WAITS = Waits()
GRACE_SECONDS = 10.0
"""How long calls in flight may take to end when the server is told to stop."""

LAST_SECONDS = 1.0
"""How long they may take to end once they are cut, and again without their connections."""

_LOOK_SECONDS = 0.05

_log = logging.getLogger("keyrelay")


class Server(uvicorn.Server):
    """uvicorn without its own signal handling, so that several can run in one process.

    `cut`: how many calls were in flight when the deadline came.
    """

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        waits: Waits = WAITS,
        grace: float = GRACE_SECONDS,
        entrance: Door | Agreements | None = None,
    ) -> None:
        agreements = entrance if isinstance(entrance, Agreements) else None
        door = entrance.door if isinstance(entrance, Agreements) else entrance
        self._door = door = door or Door(OPEN_WIDE, SystemClock())
        speaking = partial(OrderlyProtocol, waits=waits, familiar=Familiar(), door=door)
        self._agreements = agreements
        config = uvicorn.Config(
            app,
            http=speaking if agreements is None else partial(_secured, agreements, speaking),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
        )
        super().__init__(config)
        self._listener = listener
        self.grace = grace
        self.cut = 0

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The loop's own handlers are set by whoever runs the server."""
        yield

    @property
    def in_flight(self) -> int:
        """Calls whose answer is not wholly given to the connection's other end."""
        return sum(map(_is_busy, self.server_state.connections))

    def stop(self) -> None:
        """Accepts nobody any more, at once, and begins to end; told again, it waits for nobody."""
        self.force_exit = self.should_exit
        self.should_exit = True
        if self.started:
            self._turn_away()

    def _turn_away(self) -> None:
        for listening in self.servers:
            listening.close()
        if self._agreements is not None:
            self._agreements.give_up()
        for connection in list(self.server_state.connections):
            connection.shutdown()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes idle connections, waits for the others up to the deadline, and cuts the rest.

        The answers that are still to begin say `Connection: close`.
        """
        self._turn_away()
        for one in sockets or ():
            one.close()
        await self._drain()
        self.cut = self.in_flight
        if self.cut:
            _log.warning("calls in flight were cut: %d", self.cut)
        await self.end_calls()

    async def _drain(self) -> None:
        state = self.server_state
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.grace):
                # nobody tells when a connection has ended
                while (state.connections or state.tasks) and not self.force_exit:  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_SECONDS)

    async def run_here(self) -> None:
        """Serves until `stop`."""
        await self.serve(sockets=[self._listener])

    async def end_calls(self) -> None:
        """Ends the calls that are still in flight; each one tells its caller. None begins. One that
        does not end loses its connection, and is waited for no more."""
        self._door.turns.give_up()
        for call in self.server_state.tasks:
            call.cancel()
        if await self._last():
            for connection in list(self.server_state.connections):
                if isinstance(connection, OrderlyProtocol):
                    connection.transport.abort()
            if count := await self._last():
                _log.error("calls that do not end: %d", count)

    async def _last(self) -> int:
        """How many there are still, a moment later."""
        calls = list(self.server_state.tasks)
        return len((await asyncio.wait(calls, timeout=LAST_SECONDS))[1]) if calls else 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serves as long as the context lasts."""
        task = asyncio.create_task(self.run_here())
        try:
            yield
        finally:
            self.should_exit = True
            await task


def _is_busy(connection: object) -> bool:
    """Whether a call is being answered there, or its answer waits to be taken."""
    if not isinstance(connection, OrderlyProtocol):
        return False
    cycle = connection.cycle
    waiting = cycle is not None and not cycle.response_complete
    outgoing = connection.outgoing
    return waiting or (outgoing is not None and outgoing.get_write_buffer_size() > 0)


def _secured(
    agreements: Agreements, speaking: Callable[..., OrderlyProtocol], **given: Any
) -> Threshold:
    """A connection that is to agree on TLS before it speaks."""
    return Threshold(agreements, partial(speaking, **given))
