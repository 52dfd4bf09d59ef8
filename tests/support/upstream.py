"""An Upstream that a test drives step by step: nothing is answered before the test says so.

    upstream = FakeUpstream()
    caller = asyncio.create_task(...)          # somebody sends
    exchange = await upstream.next()           # it has arrived
    exchange.answer(200); exchange.chunk(b"a"); exchange.end()

`FakeUpstream(Reply(...))` answers by itself, in turn; the last one repeats.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from proxy.call import Call
from proxy.grant import Grant
from proxy.messages import Fields, RequestBody, Response


@dataclass(frozen=True)
class Reply:
    """A whole answer; `cut` breaks it after its last chunk, `instead` fails before the header."""

    status: int = 200
    fields: Fields = ((b"content-type", b"text/plain"),)
    chunks: tuple[bytes, ...] = (b"hello",)
    complete_at_close: bool = False
    spoiled: Callable[[], bool] | None = None
    cut: Exception | None = None
    instead: Exception | None = None


@dataclass(eq=False)
class Exchange:
    """One call that has arrived, with its body read."""

    call: Call
    grant: Grant
    body: bytes
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: bool = False
    given: int = 0
    _header: asyncio.Future[Response] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    _chunks: asyncio.Queue[bytes | Exception | None] = field(default_factory=asyncio.Queue)

    def answer(self, status: int = 200, fields: Fields = (), **more: Any) -> None:
        """Sends the header."""
        self._header.set_result(Response(status, fields, self._read(), **more))

    def fail(self, error: Exception) -> None:
        """Fails before the header, or cuts the body."""
        if self._header.done():
            self._chunks.put_nowait(error)
        else:
            self._header.set_exception(error)

    def chunk(self, octets: bytes) -> None:
        """Sends octets."""
        self._chunks.put_nowait(octets)

    def end(self) -> None:
        """Ends the body."""
        self._chunks.put_nowait(None)

    def play(self, reply: Reply) -> None:
        """Sends a whole answer."""
        if reply.instead is not None:
            self.fail(reply.instead)
            return
        self.answer(
            reply.status,
            reply.fields,
            complete_at_close=reply.complete_at_close,
            spoiled=reply.spoiled,
        )
        for octets in reply.chunks:
            self.chunk(octets)
        self._chunks.put_nowait(reply.cut)

    async def header(self) -> Response:
        return await self._header

    async def _read(self) -> AsyncIterator[bytes]:
        while (item := await self._chunks.get()) is not None:
            if isinstance(item, Exception):
                raise item
            self.given += len(item)
            yield item


class FakeUpstream:
    """Records what is sent; answers by itself when it was given replies."""

    def __init__(self, *replies: Reply) -> None:
        self.sent: list[Exchange] = []
        self._replies: Sequence[Reply] = replies
        self._arrived: asyncio.Queue[Exchange] = asyncio.Queue()

    @asynccontextmanager
    async def send(self, call: Call, grant: Grant, body: RequestBody) -> AsyncIterator[Response]:
        octets = b"".join([chunk async for chunk in body])
        exchange = Exchange(call, grant, octets)
        self.sent.append(exchange)
        if self._replies:
            exchange.play(self._replies[min(len(self.sent), len(self._replies)) - 1])
        self._arrived.put_nowait(exchange)
        try:
            yield await exchange.header()
        except asyncio.CancelledError:
            exchange.cancelled = True
            raise
        finally:
            exchange.closed.set()

    async def next(self) -> Exchange:
        """The next call that arrives."""
        return await asyncio.wait_for(self._arrived.get(), 10)
