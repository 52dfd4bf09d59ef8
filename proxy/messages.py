"""The shapes of HTTP messages inside the process (RFC 9110): fields, request body, response."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import NamedTuple, Protocol

Field = tuple[bytes, bytes]
Fields = tuple[Field, ...]
"""Header fields in order; names in lower case, values without surrounding white space."""


class RequestBody(Protocol):
    """The body of a request: read once, at the reader's pace."""

    @property
    def length(self) -> int | None:
        """Octets by Content-Length; 0 where there is no body; None where it is chunked."""
        ...

    def at_hand(self) -> bytes | None:
        """All of it, where it has come already; it can still be read as ever."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The octets as they arrive; empty chunks never."""
        ...


class NoBody:
    """The body of a request that has none."""

    length = 0

    def at_hand(self) -> bytes:
        """Nothing, at once."""
        return b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Nothing."""
        return
        yield b""  # what makes this a generator


class Response(NamedTuple):
    """A response on its way to the caller.

    `body` yields octets exactly as they came (content codings untouched, transfer coding removed)
    and raises a RelayError when the answer is cut. `complete_at_close` is True when only the end of
    the connection ends the body (RFC 9112 section 6.3): nothing tells it from a cut one.
    `spoiled`, asked after a clean end of the body: True when the answer holds the injected key and
    must not be kept. `content`: all that `body` would yield, where it is at hand. `own`: fields of
    ours behind the others. `verdict`: what the cache did, as in CallRecord. `waited`: seconds in a
    queue of ours.
    """

    status: int
    fields: Fields
    body: AsyncIterator[bytes]
    complete_at_close: bool = False
    upstream_seconds: float | None = None
    spoiled: Callable[[], bool] | None = None
    content: bytes | None = None
    own: Fields = ()
    verdict: str = ""
    waited: float = 0.0


def lines(fields: Fields) -> bytes:
    """The fields as lines of a header, each with its end; raises ValueError for a value that would
    bring lines of its own."""
    head = b"".join([name + b": " + text + b"\r\n" for name, text in fields])
    if not head.count(b"\n") == head.count(b"\r") == head.count(b"\r\n") == len(fields):
        raise ValueError("a field with a control character")
    if b"\0" in head:
        raise ValueError("a field with a control character")
    return head


def values(fields: Fields, name: bytes) -> list[bytes]:
    """Every value of a field, in order; `name` in lower case."""
    return [value for key, value in fields if key == name]


def value(fields: Fields, name: bytes) -> bytes | None:
    """The first value of a field, or None."""
    for key, content in fields:
        if key == name:
            return content
    return None
