"""A loopback origin over raw sockets: records requests octet for octet, and misbehaves on demand.

    async with Origin(reply(200, [("Content-Type", "text/plain")], b"hello")) as origin:
        ...                      # call origin.url
        assert origin.requests[0].header("x-api-key") == "..."

An answer is raw bytes, or `async def handler(exchange)`; a list of them answers in turn and its
last one repeats. `ThreadedOrigin` is the same for tests that are not async.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import trustme

from tests.support.canaries import LEDGER

Headers = Iterable[tuple[str, str]]
Handler = Callable[["Exchange"], Awaitable[None]]
Answer = bytes | Handler

EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


# Raw answers.


def head(status: int = 200, headers: Headers = ()) -> bytes:
    """A status line and header fields as given, with the empty line; no framing is added."""
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Unknown"
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def reply(status: int = 200, headers: Headers = (), body: bytes | str = b"") -> bytes:
    """A whole answer; Content-Length is added unless the headers say how the body is framed."""
    octets = body.encode() if isinstance(body, str) else body
    fields = list(headers)
    framed = {name.lower() for name, _ in fields} & {"content-length", "transfer-encoding"}
    if not framed and status not in (204, 304):
        fields.append(("Content-Length", str(len(octets))))
    return head(status, fields) + octets


def json_reply(value: Any, status: int = 200, headers: Headers = ()) -> bytes:
    """A whole JSON answer."""
    fields = [("Content-Type", "application/json"), *headers]
    return reply(status, fields, json.dumps(value).encode())


def chunk(data: bytes) -> bytes:
    """One chunk of the chunked transfer coding."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def chunked(parts: Iterable[bytes], status: int = 200, headers: Headers = ()) -> bytes:
    """A whole answer in chunked coding, one chunk per part."""
    fields = [*headers, ("Transfer-Encoding", "chunked")]
    return head(status, fields) + b"".join(chunk(part) for part in parts) + LAST_CHUNK


def event(data: str, name: str | None = None) -> bytes:
    """One server-sent event."""
    first = f"event: {name}\n" if name else ""
    return (first + "".join(f"data: {line}\n" for line in data.split("\n")) + "\n").encode()


SSE_HEADERS = (("Content-Type", "text/event-stream; charset=utf-8"),)


def sse(events: Iterable[str | bytes], headers: Headers = ()) -> bytes:
    """A whole event stream: text becomes `data:` lines, bytes go as they are; one chunk each."""
    parts = [event(item) if isinstance(item, str) else item for item in events]
    return chunked(parts, 200, [*SSE_HEADERS, *headers])


# What came in.


@dataclass(slots=True)
class Recorded:
    """A request as it came: header pairs in their case and order; `raw` is the header block."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    raw: bytes
    connection: int
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        """Every value of a header field, whatever its case."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The first value of a header field, or None."""
        return next(iter(self.all(name)), None)

    @property
    def path(self) -> str:
        """The target before its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """The target's query as it stands there; empty when there is none."""
        return self.target.partition("?")[2]

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def _parse_fields(lines: Iterable[str]) -> list[tuple[str, str]]:
    pairs = (line.partition(":") for line in lines if line)
    return [(name, value.strip(" \t")) for name, _, value in pairs]


class Exchange:
    """One request being answered: whatever bytes the handler sends."""

    def __init__(
        self,
        request: Recorded,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.request = request
        self._reader = reader
        self._writer = writer
        self._body_read = False
        self.closed = False

    # Reading (only where the origin was made with read_body=False).

    async def body_chunks(self) -> AsyncIterator[bytes]:
        """The request's body as it arrives: each read, or each chunk of the chunked coding."""
        if self._body_read:
            return
        self._body_read = True
        if "chunked" in (self.request.header("transfer-encoding") or "").lower():
            parts = self._chunks()
        else:
            parts = self._counted(int(self.request.header("content-length") or 0))
        async for part in parts:
            self.request.body += part
            yield part

    async def read_body(self) -> bytes:
        """The whole body."""
        async for _ in self.body_chunks():
            pass
        return self.request.body

    async def _counted(self, length: int) -> AsyncIterator[bytes]:
        while length:
            part = await self._reader.read(min(length, 65536))
            if not part:
                raise asyncio.IncompleteReadError(b"", length)
            length -= len(part)
            yield part

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int((await self._reader.readuntil(b"\n")).split(b";")[0], 16):
            yield await self._reader.readexactly(size)
            await self._reader.readexactly(2)
        lines = []
        while line := (await self._reader.readuntil(b"\n")).decode("latin-1").strip("\r\n"):
            lines.append(line)
        self.request.trailers = _parse_fields(lines)

    # Writing.

    async def send(self, raw: bytes) -> None:
        """Exactly these octets, now."""
        self._writer.write(raw)
        await self._writer.drain()

    async def drip(self, raw: bytes, seconds: float = 0.0) -> None:
        """Octet by octet, with a pause (and so a segment) between."""
        for index in range(len(raw)):
            await self.send(raw[index : index + 1])
            await asyncio.sleep(seconds)

    async def reply(self, status: int = 200, headers: Headers = (), body: bytes = b"") -> None:
        """A whole answer; to HEAD its header only."""
        raw = reply(status, headers, body)
        await self.send(raw[: len(raw) - len(body)] if self.request.method == "HEAD" else raw)

    async def start(self, status: int = 200, headers: Headers = ()) -> None:
        """The header of an answer in chunked coding: `chunk` and `finish` follow."""
        await self.send(head(status, [*headers, ("Transfer-Encoding", "chunked")]))

    async def chunk(self, data: bytes) -> None:
        """One chunk."""
        await self.send(chunk(data))

    async def finish(self) -> None:
        """The end of the chunked coding."""
        await self.send(LAST_CHUNK)

    # Hanging up.

    async def close(self) -> None:
        """A FIN after what was sent."""
        self.closed = True
        self._writer.close()

    def abort(self) -> None:
        """A RST, at once."""
        self.closed = True
        linger = struct.pack("ii", 1, 0)
        sock: socket.socket = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort()

    async def hung_up(self) -> None:
        """Wait until the client has closed its side (by FIN or RST)."""
        try:
            while await self._reader.read(65536):
                pass
        except ConnectionError:
            pass
        self.closed = True

    async def wait(self, barrier: asyncio.Event, seconds: float = 10.0) -> None:
        """Wait for the test's barrier; a test that never sets it fails instead of hanging."""
        await asyncio.wait_for(barrier.wait(), seconds)


# The server.


class Origin:
    """Serves on 127.0.0.1, on a port of its own; `requests` records all that came in.

    `read_body` False: the handler is called at the end of the header and reads the body itself.
    `limit`: octets taken in ahead of the handler. `server_names`: the SNI of every TLS handshake. A
    failure in a handler is raised at exit.
    """

    def __init__(
        self,
        answer: Answer | Sequence[Answer] = EMPTY,
        *,
        ssl_context: ssl.SSLContext | None = None,
        read_body: bool = True,
        host: str = "127.0.0.1",
        limit: int = 1 << 24,
    ) -> None:
        self._limit = limit
        self._answers: list[Answer] = (
            [answer] if isinstance(answer, bytes) or callable(answer) else list(answer)
        )
        self._ssl = ssl_context
        self.read_body = read_body
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[Exception] = []
        self.host = host
        self.port = 0
        self.requests: list[Recorded] = []
        self.connections = 0
        self.server_names: list[str | None] = []
        if ssl_context is not None:
            ssl_context.sni_callback = lambda _s, name, _c: self.server_names.append(name)

    @property
    def url(self) -> str:
        """Scheme and authority, without a slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self._ssl else 'http'}://{host}:{self.port}"

    @property
    def last(self) -> Recorded:
        """The newest request."""
        return self.requests[-1]

    def answer_with(self, *answers: Answer) -> None:
        """From now on answer so."""
        self._answers = list(answers)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, self.host, 0, ssl=self._ssl, limit=self._limit
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        if self._failures and error is None:
            raise self._failures[0]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._serve(self.connections, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client, or the test, is done
        except Exception as failure:
            self._failures.append(failure)
        finally:
            self._tasks.discard(task)
            writer.transport.abort() if task.cancelling() else writer.close()

    async def _serve(
        self, connection: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            request = await self._read_request(connection, reader)
            exchange = Exchange(request, reader, writer)
            if self.read_body:
                if (request.header("expect") or "").lower() == "100-continue":
                    await exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")
                await exchange.read_body()
            self.requests.append(request)
            self._look_at(request)
            await self._answer(exchange)
            if exchange.closed or (request.header("connection") or "").lower() == "close":
                return

    def _look_at(self, request: Recorded) -> None:
        """Whether keyrelay has sent a secret where none belongs."""
        if secrets := self.may_not_come:
            LEDGER.look("what was sent on", request.raw + request.body, among=secrets)

    @property
    def may_not_come(self) -> Collection[str]:
        """Nobody but keyrelay has any use for a platform token; a key is for an upstream."""
        return LEDGER.tokens

    async def _answer(self, exchange: Exchange) -> None:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, bytes):
            await exchange.send(answer)
        else:
            await answer(exchange)

    async def _read_request(self, connection: int, reader: asyncio.StreamReader) -> Recorded:
        raw = await reader.readuntil(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").split("\r\n")
        method, _, rest = first.partition(" ")
        return Recorded(method, rest.rpartition(" ")[0], _parse_fields(lines), raw, connection)


class ThreadedOrigin:
    """An Origin in a thread with a loop of its own, for tests that are not async."""

    def __init__(self, answer: Answer | Sequence[Answer] = EMPTY, **options: Any) -> None:
        self.origin = Origin(answer, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        """Scheme and authority."""
        return self.origin.url

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self.origin.port

    @property
    def requests(self) -> list[Recorded]:
        """All that came in."""
        return self.origin.requests

    @property
    def last(self) -> Recorded:
        """The newest request."""
        return self.origin.last

    def answer_with(self, *answers: Answer) -> None:
        """From now on answer so."""
        self._loop.call_soon_threadsafe(lambda: self.origin.answer_with(*answers))

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.origin.__aenter__(), self._loop).result(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            leaving = self.origin.__aexit__(kind, error, trace)
            asyncio.run_coroutine_threadsafe(leaving, self._loop).result(10)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    """A server's TLS context with a certificate for these names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context
