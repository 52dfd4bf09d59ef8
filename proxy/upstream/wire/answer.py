"""One answer, from octets to header and body; knows no socket and no clock."""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final, NamedTuple

import httptools

from proxy.errors import RelayError, UpstreamError, UpstreamIncomplete, UpstreamUnreachable
from proxy.messages import Fields, values
from proxy.upstream.framing import judge
from proxy.upstream.wire.guards import (
    END_OF_HEADER,
    check_answer,
    check_beginning,
    fields_of,
)
from proxy.upstream.wire.sentences import (
    CUT,
    NOT_ANSWERED,
    NOT_HTTP,
    SWITCHED,
    TOO_MANY_INTERIM,
)

MAX_INTERIM: Final = 16
MAX_BETWEEN_CHUNKS: Final = 1 << 14
"""Octets of chunk extensions or trailers that carry no body."""

_FOR_THE_CONNECTION: Final = frozenset(
    {b"content-length", b"transfer-encoding", b"connection", b"keep-alive"}
)
_CHUNKED: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_NOTHING_BEHIND: Final = re.compile(rb"[^\r\n]\r\n\r\n")
_SECONDS: Final = re.compile(rb"timeout\s*=\s*\"?([0-9]{1,6})")


class Head(NamedTuple):
    """The header of a final answer; `complete_at_close` as in Response."""

    status: int
    version: bytes
    fields: Fields
    complete_at_close: bool


class _Until(Enum):
    """What the octets that come next belong to, and where that ends."""

    EMPTY_LINE = auto()
    COUNTED = auto()
    LAST_CHUNK = auto()
    CLOSE = auto()


class Answer:
    """Takes octets in any pieces; `head`, then `chunks`, then `complete` or `error` show the rest.

    `error` comes after what is in `chunks`. `surplus`: octets came behind the end. `size`: octets
    in `chunks`. After the header only UpstreamIncomplete is an error.
    """

    __slots__ = (
        "_between", "_connection_fields", "_held", "_interim", "_left", "_method", "_parser",
        "_reusable", "_until", "chunks", "complete", "error", "head", "size", "surplus",
    )  # fmt: skip

    def __init__(self, method: str) -> None:
        self._method = method
        self._until = _Until.EMPTY_LINE
        self._held = b""
        self._interim = 0
        self._parser: httptools.HttpResponseParser | None = None
        self._left = 0
        self._between = 0
        self._reusable = False
        self._connection_fields: Fields = ()
        self.head: Head | None = None
        self.chunks: list[bytes] = []
        self.size = 0
        self.complete = False
        self.surplus = False
        self.error: RelayError | None = None

    # What came, and what was taken.

    @property
    def begun(self) -> bool:
        """Whether any octet has come."""
        return bool(self.head or self._held or self._interim)

    @property
    def over(self) -> bool:
        """Whether nothing more will come: complete, or failed."""
        return self.complete or self.error is not None

    def take(self) -> bytes:
        """The body's octets that have come since the last time."""
        chunks, self.chunks, self.size = self.chunks, [], 0
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def seconds_to_live(self, most: float) -> float:
        """How long its connection may wait for another request: at most what the upstream says,
        less a second for what is under way; 0 where it must not be used again."""
        version = self.head.version if self.head else b""
        if not self.complete or self.surplus or not self._reusable or version != b"HTTP/1.1":
            return 0.0
        for name, said in self._connection_fields:
            if name == b"connection" and b"close" in said.lower():
                return 0.0
            if name == b"keep-alive" and (found := _SECONDS.search(said)):
                most = min(most, max(float(found[1]) - 1.0, 0.0))
        return most

    def fail(self, error: RelayError) -> None:
        """It ends here; a complete one stays complete."""
        if not self.over:
            self.error = error
        self._parser = None

    @property
    def whole(self) -> bytes | None:
        """The body, where its end is there and none of it has been taken; it stays to be taken."""
        return b"".join(self.chunks) if self.complete else None

    # Octets.

    def feed(self, data: bytes) -> None:
        """What the connection has received, at least one octet."""
        try:
            if self.over:
                self.surplus = True
            elif self._until is _Until.EMPTY_LINE:
                self._feed_header(data)
            else:
                self._feed_body(data)
        except RelayError as error:
            self.fail(error)

    def end(self, cause: Exception | None) -> None:
        """Nothing more comes. `cause`: the connection broke; None: the upstream ended it."""
        if self.over:
            return
        if self._until is _Until.CLOSE and cause is None:
            self.complete = True
        elif self.head is not None:
            self._cut(cause)
        elif self.begun:
            self.error = UpstreamError(NOT_HTTP)
            self.error.__cause__ = cause
        else:
            self.error = UpstreamUnreachable(NOT_ANSWERED)
            self.error.__cause__ = cause

    def _cut(self, cause: Exception | None) -> None:
        self.error = UpstreamIncomplete(CUT)
        self.error.__cause__ = cause
        self._parser = None

    # The header.

    def _feed_header(self, data: bytes) -> None:
        searched = max(len(self._held) - len(END_OF_HEADER) + 1, 0)
        if self._held:
            data = self._held + data
        while self.head is None:
            end = data.find(END_OF_HEADER, searched)
            if end < 0:
                check_beginning(data)
                self._held = data
                return
            end += len(END_OF_HEADER)
            self._read_header(data[:end])
            data, searched = data[end:], 0
        self._held = b""
        if data:
            self.feed(data)

    def _read_header(self, header: bytes) -> None:
        check_answer(header)
        status = int(header[9:12])
        if 100 <= status <= 199:
            self._skip_interim(status)
        else:
            self._begin_body(status, header[:8], fields_of(header))

    def _skip_interim(self, status: int) -> None:
        self._interim += 1
        if status == 101:
            raise UpstreamError(SWITCHED)
        if self._interim > MAX_INTERIM:
            raise UpstreamError(TOO_MANY_INTERIM)

    def _begin_body(self, status: int, version: bytes, fields: Fields) -> None:
        relevant = tuple([field for field in fields if field[0] in _FOR_THE_CONNECTION])
        lengths = values(relevant, b"content-length")
        if len(lengths) > 1:  # equal ones too: who merges them is one reader more
            raise UpstreamError(NOT_HTTP)
        framing = judge(self._method, status, version, relevant)
        self._connection_fields = relevant
        self.head = Head(status, version, fields, framing.complete_at_close)
        if framing.bodiless:
            self._finish(reusable=True)
        elif framing.complete_at_close:
            self._until = _Until.CLOSE
        elif lengths:
            self._until, self._left = _Until.COUNTED, int(lengths[0])
        else:
            self._begin_chunks()

    def _begin_chunks(self) -> None:
        """The parser reads chunks only: its header is one of ours."""
        self._until = _Until.LAST_CHUNK
        self._parser = httptools.HttpResponseParser(self)
        self._parser.feed_data(_CHUNKED)

    # The body.

    def _feed_body(self, data: bytes) -> None:
        if self._until is _Until.LAST_CHUNK:
            self._feed_chunked(data)
            return
        if self._until is _Until.COUNTED:
            self._left -= len(data)
            if self._left < 0:
                self.surplus = True
                data = data[: self._left]
        self._keep(data)
        if self._until is _Until.COUNTED and self._left <= 0:
            self._finish(reusable=True)

    def _feed_chunked(self, data: bytes) -> None:
        assert self._parser is not None  # noqa: S101  it lives as long as the chunked body
        before = self.size
        self._between += len(data)
        # The parser skips line ends behind the answer without a word; these octets would show it.
        self._held = data[-5:] if len(data) >= 5 else (self._held + data)[-5:]
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self.complete:
                self._cut(error)
            self.surplus = True
        if self.size > before:
            self._between = 0
        if self.complete:
            self._finish(reusable=_NOTHING_BEHIND.fullmatch(self._held) is not None)
        elif self._between > MAX_BETWEEN_CHUNKS:
            self._cut(None)

    def _keep(self, octets: bytes) -> None:
        self.chunks.append(octets)
        self.size += len(octets)

    def _finish(self, *, reusable: bool) -> None:
        self.complete = True
        self._reusable = reusable
        self._parser = None

    # What the parser says.

    def on_message_begin(self) -> None:
        """A status line follows: the first one is ours, another is not."""
        if self.complete:
            self.surplus = True

    def on_body(self, octets: bytes) -> None:
        """Octets of a chunk: ours, unless they stand behind the end."""
        if not self.complete:  # as `_keep`; a stream comes here for each of its chunks
            self.chunks.append(octets)
            self.size += len(octets)

    def on_message_complete(self) -> None:
        """The last chunk and its trailers have been read."""
        if self._until is _Until.LAST_CHUNK:
            self.complete = True
