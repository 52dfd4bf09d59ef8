"""One request of a caller and its answer on the wire, in as few writes as may be."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_AT_ONCE = struct.pack("ii", 1, 0)


class RelayCycle(RequestResponseCycle):
    """What the scope's `extensions` hold under `keyrelay`.

    `target`: the raw request target (RFC 9112 section 3.2). `old`: the caller speaks HTTP/1.0,
    which knows no chunks: without a length the connection's end ends an answer (section 6.3).
    """

    target: bytes = b""
    old: bool = False
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
            self.transport.close()

    # The answer.

    async def send(self, message: MutableMapping[str, Any]) -> None:  # type: ignore[override]
        """One ASGI message. A header waits for a body that comes in the same turn of the loop."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start":
            self._start(message["status"], message.get("headers", ()))
        else:
            self._continue(message.get("body", b""), message.get("more_body", False))

    def _start(self, status: int, fields: Iterable[tuple[bytes, bytes]]) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        lines = [STATUS_LINE[status]]
        for name, value in fields:
            lines += (name, b": ", value, b"\r\n")
            if name == b"content-length":
                self.chunked_encoding = False
                self.expected_content_length = int(value)
            elif name == b"connection":
                self.keep_alive = False
        lines += self._framing(status)
        head = b"".join(lines)
        if not head.count(b"\n") == head.count(b"\r") == head.count(b"\r\n") or b"\0" in head:
            raise ValueError("a field with a control character")
        self._held = head
        asyncio.get_running_loop().call_soon(self._flush)

    def _framing(self, status: int) -> list[bytes]:
        """How the body's end is told, and the end of the header (RFC 9112 section 6)."""
        lines = []
        if self.scope["method"] == "HEAD" or status in (204, 304):
            self.chunked_encoding = False
            self.expected_content_length = 0
        elif self.chunked_encoding is None:
            self.chunked_encoding = not self.old
            self.keep_alive = self.keep_alive and not self.old
            self.expected_content_length = -1
            if self.chunked_encoding:
                lines.append(b"transfer-encoding: chunked\r\n")
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        return [*lines, b"\r\n"]

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
            self.transport.close()
        self.on_response()

    def _part(self) -> None:
        """Lets go of whom to tell, and of the ring through the scope: what is in no ring dies at
        once, and needs no collector that stops all calls."""
        self._told = None
        self.scope["extensions"] = {}

    def _flush(self) -> None:
        held, self._held = self._held, b""
        if held and not self.transport.is_closing():
            self.transport.write(held)
