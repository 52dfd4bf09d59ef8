"""Request bodies as the key sees them: without multipart boundaries, or JSON's outer white space.

Both folds are injective but for what they fold, and do not depend on how the octets were cut.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Protocol

Sink = Callable[[bytes], None]

_BOUNDARY = re.compile(
    rb';[ \t]*boundary=(?:"([^"\\\r\n]{1,70})"|([^\s";,]{1,70}))[ \t]*(?=;|$)', re.IGNORECASE
)
_JSON = re.compile(
    rb"application/(?:[^;\s]+\+)?json[ \t]*(?:;[ \t]*charset=\"?utf-8\"?[ \t]*)?$", re.I
)
_SPACE = b" \t\r\n"
_WORD = re.compile(rb"[^ \t\r\n]+")
_STRUCTURE = frozenset(b'{}[]:,"')
_QUOTE_OR_ESCAPE = re.compile(rb'["\\]')


class Fold(Protocol):
    """Octets in, canonical octets out through a sink."""

    def absorb(self, chunk: bytes) -> None:
        """Takes the next octets."""
        ...

    def finish(self) -> None:
        """Ends the body."""
        ...


class Octets:
    """The body as it is."""

    def __init__(self, sink: Sink) -> None:
        self.absorb = sink

    def finish(self) -> None:
        """Nothing is held back."""


def split_boundary(content_type: bytes) -> tuple[bytes, bytes] | None:
    """A multipart Content-Type without its boundary, and the boundary; None where there is none."""
    if not content_type.lower().startswith(b"multipart/"):
        return None
    found = _BOUNDARY.findall(content_type)
    if len(found) != 1 or content_type.lower().count(b"boundary=") != 1:
        return None
    return _BOUNDARY.sub(b"; boundary", content_type), found[0][0] or found[0][1]


def is_json(content_type: bytes) -> bool:
    """Whether a body of this type is JSON text in UTF-8 (RFC 8259 section 8.1)."""
    return _JSON.match(content_type.strip()) is not None


class WithoutBoundary:
    """A multipart body without its delimiters, followed by the places where they stood.

    A delimiter starts a line (RFC 2046 section 5.1.1). The places make the fold unambiguous: no
    content can pretend to be a delimiter.
    """

    def __init__(self, boundary: bytes, sink: Sink) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._sink = sink
        self._held = b"\r\n"  # the first delimiter needs no line before it
        self._emitted = 0
        self._places: list[int] = []

    def absorb(self, chunk: bytes) -> None:
        """Takes the next octets; what may still become a delimiter is held back."""
        pieces = (self._held + chunk).split(self._delimiter)
        self._held = pieces.pop()
        for piece in pieces:
            self._emit(piece)
            self._places.append(self._emitted)
        safe = len(self._held) - len(self._delimiter) + 1
        if safe > 0:
            self._emit(self._held[:safe])
            self._held = self._held[safe:]

    def finish(self) -> None:
        """Ends the body with the places of the delimiters and their number."""
        self._emit(self._held)
        self._sink(struct.pack(f">{len(self._places) + 1}Q", *self._places, len(self._places)))

    def _emit(self, octets: bytes) -> None:
        self._emitted += len(octets)
        self._sink(octets)


class WithoutSpace:
    """A JSON text without the white space that means nothing.

    Between two tokens that would otherwise run together (`1 2`) one space stays: that is no JSON,
    and must not become the key of `12`.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._in_string = False
        self._escaped = False
        self._gap = False
        self._last = ord("[")

    def absorb(self, chunk: bytes) -> None:
        """Takes the next octets."""
        at = 0
        while at < len(chunk):
            at = self._string(chunk, at) if self._in_string else self._outside(chunk, at)

    def finish(self) -> None:
        """White space at the end is dropped."""

    def _outside(self, chunk: bytes, start: int) -> int:
        quote = chunk.find(b'"', start)
        end = len(chunk) if quote < 0 else quote + 1
        self._in_string = quote >= 0
        part = chunk[start:end]
        words = _WORD.findall(part)
        for number, word in enumerate(words):
            gap = number > 0 or self._gap or part[0] in _SPACE
            if gap and self._last not in _STRUCTURE and word[0] not in _STRUCTURE:
                self._sink(b" ")
            self._sink(word)
            self._last = word[-1]
            self._gap = False
        self._gap = part[-1] in _SPACE or (self._gap and not words)
        return end

    def _string(self, chunk: bytes, start: int) -> int:
        if self._escaped:
            self._escaped = False
            self._sink(chunk[start : start + 1])
            return start + 1
        found = _QUOTE_OR_ESCAPE.search(chunk, start)
        end = len(chunk) if found is None else found.end()
        self._sink(chunk[start:end])
        if found is not None:
            self._escaped = found[0] == b"\\"
            self._in_string = self._escaped
            self._last = ord('"')
        return end
