"""Keeps what is needed of an answer to tell its tokens; decoding and parsing are left for later.

In the event loop an answer costs an object and each chunk an append. A plain body is kept by its
ends; of a compressed one nothing can be read without its beginning, so it is kept whole, up to a
bound.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from proxy.memo import bounded_put
from proxy.messages import Fields
from proxy.record import Meter, Tokens
from proxy.usage.tokens import of_body, of_stream
from proxy.usage.window import Window

Read = Callable[[bytes, bytes], Tokens | None]
Known = dict[tuple[bool, int, int], Tokens | None]

MOST_CODED: Final = 2**20
"""Octets of a compressed answer that are kept; of a larger one the tokens are not told."""

MOST_INFLATED: Final = 64 * 2**20
"""Octets that one may become: beyond it, it is no answer of a model but a bomb."""

TOO_DENSE: Final = ((2**20, 300), (8 * 2**20, 100))
"""Beyond so many octets, so many times as large as what they were made of: a bomb is told by its
beginning. An answer that says one word again and again comes to half of the first."""

_STEP: Final = 64 * 1024
_GZIP_OR_ZLIB: Final = 47
_RAW: Final = -15
"""What zlib is told to expect; raw is what some servers mean by deflate."""

_CODED: Final = frozenset({b"gzip", b"x-gzip", b"deflate"})


REMEMBERED: Final = 1024
"""How many answers are known again: one that is kept is given often."""


class Metering:
    """Finds what reads along an answer; as such the Metering of records."""

    def __init__(self) -> None:
        self._known: Known = {}

    def __call__(self, status: int, fields: Fields) -> Meter | None:
        """For good answers that are JSON or a stream of events, in a coding that is known."""
        if not 200 <= status < 300:
            return None
        kind = coding = b""
        for name, text in fields:
            if name == b"content-type":
                kind = text
            elif name == b"content-encoding":
                coding = text
        read = _reader(kind)
        if read is None:
            return None
        if not coding:
            return PlainMeter(read, self._known)
        return CodedMeter(read) if coding.lower() in _CODED else None


@lru_cache(maxsize=128)
def _reader(kind: bytes) -> Read | None:
    plain = kind.partition(b";")[0].strip().lower()
    if plain == b"application/json":
        return of_body
    return of_stream if plain == b"text/event-stream" else None


class PlainMeter(Window):
    """Reads what is not compressed."""

    __slots__ = ("_known", "_read", "_tokens")

    def __init__(self, read: Read, known: Known) -> None:
        super().__init__()
        self._read: Read | None = read
        self._known = known
        self._tokens: Tokens | None = None

    def tokens(self) -> Tokens | None:
        """What was used; then nothing of the answer is held any more."""
        read = self._read
        if read is not None:
            self._tokens = self._remembered(read)
            self._read = None
            self._parts, self._head = [], b""
        return self._tokens

    def _remembered(self, read: Read) -> Tokens | None:
        """An answer out of the cache's memory is the same object each time, with its hash."""
        if len(self._parts) != 1 or not self.whole:
            return read(*self.ends())
        mark = (read is of_body, len(self._parts[0]), hash(self._parts[0]))
        if mark not in self._known:
            bounded_put(self._known, mark, read(*self.ends()), REMEMBERED)
        return self._known[mark]


class CodedMeter:
    """Reads what is compressed. `size`: octets that are held."""

    __slots__ = ("_parts", "_read", "_tokens", "size")

    def __init__(self, read: Read) -> None:
        self._read: Read | None = read
        self._parts: list[bytes] = []
        self._tokens: Tokens | None = None
        self.size = 0

    def feed(self, octets: bytes) -> None:
        """The next octets, as they are passed on."""
        if self._read is None:
            return
        self._parts.append(octets)
        self.size += len(octets)
        if self.size > MOST_CODED:
            self._read, self._parts, self.size = None, [], 0

    def tokens(self) -> Tokens | None:
        """What was used; then nothing of the answer is held any more."""
        read = self._read
        if read is not None:
            window = _inflated(b"".join(self._parts))
            self._tokens = None if window is None else read(*window.ends())
            self._read, self._parts = None, []
        return self._tokens


def _inflated(octets: bytes) -> Window | None:
    """The ends of what was compressed, as far as it goes; None for a bomb, or what is no such."""
    for expected in (_GZIP_OR_ZLIB, _RAW):
        try:
            return _inflate(octets, expected)
        except zlib.error:
            continue
    return None


def _inflate(octets: bytes, expected: int) -> Window | None:
    window = Window()
    inflating = zlib.decompressobj(expected)
    total, coded = 0, len(octets)
    while octets and not inflating.eof:
        made = inflating.decompress(octets, _STEP)
        octets = inflating.unconsumed_tail
        total += len(made)
        if total > MOST_INFLATED or _too_dense(total, coded - len(octets)):
            return None
        window.feed(made)
    return window


def _too_dense(total: int, coded: int) -> bool:
    return any(total > max(beyond, times * coded) for beyond, times in TOO_DENSE)
