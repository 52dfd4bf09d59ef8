"""A caller's request as ASGI gives it: the body at the reader's pace, and when nobody waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Protocol

from proxy.errors import CallerGone


class Connection(Protocol):
    """What is asked of the caller's end of the connection. `task`: answers the call."""

    @property
    def task(self) -> asyncio.Task[None] | None:
        """In which the call is answered; None: in nobody's."""
        ...

    def on_gone(self, told: Callable[[], None] | None) -> None:
        """Whom to tell, once, when the caller hangs up; None: nobody."""
        ...

    def at_hand(self) -> bytes | None:
        """All of the body, where it has come already."""
        ...

    async def read(self) -> tuple[bytes, bool]:
        """The octets that have come since, and whether more will; raises CallerGone."""
        ...


class InboundBody:
    """The request's body. The only reader of the connection, since two would steal from each other.

    `taken`: octets that were given out.
    """

    def __init__(self, connection: Connection, length: int | None) -> None:
        self._connection = connection
        self.length = length
        self.taken = 0
        self._seen = 0
        self._read = self.length == 0

    def at_hand(self) -> bytes | None:
        """All of it, where it has come already and nothing of it was read."""
        if self.length == 0:
            return b""
        octets = None if self.taken else self._connection.at_hand()
        self._seen = len(octets or b"")
        return octets

    @property
    def received(self) -> int:
        """Octets that have been looked at."""
        return max(self.taken, self._seen)

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The octets as they arrive; raises CallerGone. The first read asks for a body that waits
        for `100 Continue` (RFC 9110 section 10.1.1)."""
        return self

    async def __anext__(self) -> bytes:
        """The next octets."""
        while not self._read:
            octets, more = await self._connection.read()
            self._read = not more
            if octets:
                self.taken += len(octets)
                return octets
        raise StopAsyncIteration


class HangUp:
    """Cancels a call whose caller has gone; on the way out that cancellation reads CallerGone."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._call = connection.task
        self._gone = False

    def __enter__(self) -> HangUp:
        self._connection.on_gone(self._cancel)
        return self

    def stop(self) -> None:
        """Nothing is left that a hang-up could spare."""
        self._connection.on_gone(None)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        if self._gone and self._call is not None:
            self._call.uncancel()
            if isinstance(error, asyncio.CancelledError):
                raise CallerGone from None

    def _cancel(self) -> None:
        self._gone = True
        if self._call is not None:
            self._call.cancel()
