"""The upstream that streams: events in a burst or one by one, and a sink for what is uploaded.

    python -m bench.origin PORT

| path | answers |
|---|---|
| /v1/chat/completions, /paced | 100 events, each in a write of its own, 4 ms apart |
| /burst | 100 events without a pause |
| /slow | 20 events, half a second apart |
| /sink | how many octets the body had, once it is whole; /sink?late reads after a second |
| /count | how many events were sent so far |
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import httptools
import uvloop

from bench.matter import CHUNKS, event

PACE_SECONDS = 0.004
SLOW_SECONDS = 0.5
SLOW_EVENTS = 20
LATE_SECONDS = 1.0
LAST = b"0\r\n\r\n"
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


WORD = _chunk(event())
END = _chunk(event("", "stop") + b"data: [DONE]\n\n") + LAST


class Counted:
    """Events sent by all connections."""

    events = 0


class Connection(asyncio.Protocol):
    """One caller's connection; requests come one after the other."""

    def __init__(self, counted: Counted) -> None:
        self._counted = counted
        self._parser = httptools.HttpRequestParser(self)
        self._loop = asyncio.get_running_loop()
        self._url = b""
        self._received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_message_begin(self) -> None:
        self._url = b""
        self._received = 0

    def on_url(self, part: bytes) -> None:
        self._url += part

    def on_headers_complete(self) -> None:
        if self._url.endswith(b"?late"):
            self._transport.pause_reading()
            self._loop.call_later(LATE_SECONDS, self._transport.resume_reading)

    def on_body(self, data: bytes) -> None:
        self._received += len(data)

    def on_message_complete(self) -> None:
        path = self._url.partition(b"?")[0].rsplit(b"/", 1)[-1]
        if path == b"sink":
            self._whole(b"%d" % self._received)
        elif path == b"count":
            self._whole(b"%d" % self._counted.events)
        elif path == b"burst":
            self._counted.events += CHUNKS
            self._transport.writelines([HEAD, *[WORD] * (CHUNKS - 1), END])
        else:
            every, events = (
                (SLOW_SECONDS, SLOW_EVENTS) if path == b"slow" else (PACE_SECONDS, CHUNKS)
            )
            self._transport.write(HEAD)
            self._next(every, events)

    def _whole(self, body: bytes) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s"
            % (len(body), body)
        )

    def _next(self, every: float, left: int) -> None:
        if self._transport.is_closing():
            return
        self._counted.events += 1
        self._transport.write(WORD if left > 1 else END)
        if left > 1:
            self._loop.call_later(every, self._next, every, left - 1)


async def main(port: int) -> None:
    counted = Counted()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(counted), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
