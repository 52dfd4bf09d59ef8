"""One request of a caller and its answer on the wire, in as few writes as may be."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, MutableMapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from proxy.errors import CallerGone
from proxy.header import Seen
from proxy.messages import lines, value

_AT_ONCE = struct.pack("ii", 1, 0)


class RelayCycle(RequestResponseCycle):
    """What the scope's `extensions` hold under `keyrelay`.

    `target`: the raw request target (RFC 9112 section 3.2). `old`: the caller speaks HTTP/1.0,
    which knows no chunks: without a length the connection's end ends an answer (section 6.3).
    `task`: in which it is answered. `whose`: the address that it takes turns with. `left`: to be
    told once that it is over. `finish`: ends the connection; told whether the caller may be sending
    still.
    """

    target: bytes = b""
    old: bool = False
    seen: Seen | None = None
    task: asyncio.Task[None] | None = None
    whose: str = ""
    left: Callable[[], None] | None = None
    finish: Callable[[bool], None]
    _held: bytes = b""
    _told: Callable[[], None] | None = None

    # The caller's end of the connection.

    @property
    def gone(self) -> bool:
        """Whether nobody reads the answer any more."""
        return self.disconnected

    def on_gone(self, told: Callable[[], None] | None) -> None:
        """Whom to tell, once, when the caller hangs up; None: nobody."""
        self._told = told

    def lose(self) -> None:
        """The caller is gone."""
        self.disconnected = True
        self.message_event.set()
        told, self._told = self._told, None
        self._part()
        if told is not None:
            told()

    def abort(self) -> None:
        """Breaks the transfer, so that a cut answer never looks whole."""
        self._flush()
        self.disconnected = True
        if self.old:  # a mere end would look whole: this connection is reset
            connected = self.transport.get_extra_info("socket")
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            self.transport.abort()
        else:
            self.finish(False)

    # The request's body.

    def at_hand(self) -> bytes | None:
        """All of the request's body, where it has come already; it stays to be read."""
        return None if self.more_body or self.disconnected else bytes(self.body)

    async def read(self) -> tuple[bytes, bool]:
        """The octets that have come since, and whether more will; raises CallerGone.

        A caller that waits for `100 Continue` gets it (RFC 9110 section 10.1.1).
        """
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.waiting_for_100_continue = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self.disconnected and self.more_body and not self.body:
            self.flow.resume_reading()
            self.message_event.clear()
            await self.message_event.wait()
        if self.disconnected:
            raise CallerGone
        octets, self.body = bytes(self.body), bytearray()
        return octets, self.more_body

    # The answer.

    def start(
        self, app: Any, tasks: set[asyncio.Task[None]], ran: Callable[[], None] | None = None
    ) -> None:
        """Answers with the loop's next turn, in a task that is one of `tasks` until it is done.
        `ran`: to be told that it has begun to."""
        self._told = None
        self.task = task = asyncio.get_running_loop().create_task(self.run_asgi(app, ran))
        task.add_done_callback(tasks.discard)
        tasks.add(task)

    async def run_asgi(self, app: Any, ran: Callable[[], None] | None = None) -> None:
        """Answers, unless the caller was lost before that could begin."""
        if ran is not None:
            ran()
        if not self.disconnected:
            await super().run_asgi(app)

    async def ready(self) -> None:
        """Until the caller takes more octets; raises CallerGone."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            raise CallerGone

    def begin(self, status: int, lines: bytes, length: int | None) -> None:
        """The header: lines of fields, each with its end, and the `length` that one announces.

        It waits for a body that comes in the same turn of the loop.
        """
        self._held = self._header(status, lines, length)
        asyncio.get_running_loop().call_soon(self._flush)

    def more(self, octets: bytes) -> None:
        """A part of the body."""
        self._continue(octets, True)

    def end(self) -> None:
        """The end of a whole body."""
        self._continue(b"", False)

    def whole(self, status: int, lines: bytes, length: int | None, body: bytes) -> None:
        """A whole answer in one write."""
        self._held = self._header(status, lines, length)
        self._continue(body, False)

    async def send(self, message: MutableMapping[str, Any]) -> None:  # type: ignore[override]
        """One ASGI message, as `begin`, `more` and `end`."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start":
            fields = tuple(message.get("headers", ()))
            if value(fields, b"connection") is not None:
                self.keep_alive = False
            length = value(fields, b"content-length")
            self.begin(message["status"], lines(fields), None if length is None else int(length))
        else:
            self._continue(message.get("body", b""), message.get("more_body", False))

    def _header(self, status: int, lines: bytes, length: int | None) -> bytes:
        self.response_started = True
        self.waiting_for_100_continue = False
        if length is not None:
            self.chunked_encoding = False
            self.expected_content_length = length
        return STATUS_LINE[status] + lines + self._framing(status)

    def _framing(self, status: int) -> bytes:
        """How the body's end is told, and the end of the header (RFC 9112 section 6)."""
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        if self.scope["method"] == "HEAD" or status in (204, 304):
            self.chunked_encoding = False
            self.expected_content_length = 0
        elif self.chunked_encoding is None:
            self.chunked_encoding = not self.old
            self.expected_content_length = -1
            if self.chunked_encoding:
                return b"transfer-encoding: chunked\r\n" + end
            self.keep_alive = False
            return b"connection: close\r\n\r\n"
        return end

    def _continue(self, body: bytes, more: bool) -> None:
        if self.response_complete:
            return
        octets = self._framed(body, more)
        held, self._held = self._held, b""
        if held or octets:
            self.transport.write(held + octets if held else octets)
        if not more:
            self._complete()

    def _framed(self, body: bytes, more: bool) -> bytes:
        if self.scope["method"] == "HEAD":
            return b""
        if self.chunked_encoding:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return chunk if more else chunk + b"0\r\n\r\n"
        if self.expected_content_length >= 0:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0 or (self.expected_content_length and not more):
                raise ValueError("a body that is not as long as its Content-Length")
        return body

    def _complete(self) -> None:
        self.response_complete = True
        self._part()
        self.message_event.set()
        if not self.keep_alive:
            self.finish(self.more_body)
        self.on_response()

    def _part(self) -> None:
        """Lets go of whom to tell, and of the ring through the scope: what is in no ring dies at
        once, and needs no collector that stops all calls."""
        self._told = None
        left, self.left = self.left, None
        if left is not None:
            left()
        self.scope["extensions"] = {}

    def _flush(self) -> None:
        held, self._held = self._held, b""
        if held and not self.transport.is_closing():
            self.transport.write(held)
