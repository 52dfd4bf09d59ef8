"""A caller's request as ASGI gives it: the body at the reader's pace, and when nobody waits."""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
from collections.abc import AsyncIterator, Callable
from hashlib import blake2b
from types import TracebackType
from typing import NamedTuple, Protocol

from proxy.errors import CallerGone
from proxy.messages import Fields, value, values
from proxy.trace import PARENT_FIELD, is_parent

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_PROCESS = secrets.token_hex(10)
_NUMBERS = itertools.count(secrets.randbits(32))
_TELLING = frozenset({b"content-length", b"transfer-encoding", b"x-request-id", PARENT_FIELD})


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


class Seen(NamedTuple):
    """What one pass over a header finds. `hash` tells it from every other one, but for its
    Content-Length and `parent`: a traceparent that a trace can be continued from, which differs
    with every call and is no longer in `fields`. `length` as in RequestBody; `id`: the request's.
    """

    hash: bytes
    length: int | None
    id: str
    fields: Fields
    parent: bytes


def look_over(method: str, target: bytes, fields: Fields) -> Seen:
    """One pass over the header; no field or target holds a NUL."""
    parts = [method.encode(), target]
    length: int | None = 0
    given = None
    traced = False
    for field in fields:
        name = field[0]
        if name in _TELLING:
            if name == b"content-length":
                length = int(field[1])  # the parser has judged it
                continue
            if name == b"transfer-encoding":
                length = None
            elif name == PARENT_FIELD:
                traced = True
                continue
            elif given is None:
                given = field[1]
        parts += field
    parent, rest = _parent_of(fields) if traced else (b"", fields)
    if traced and not parent:
        for text in values(fields, PARENT_FIELD):
            parts += (PARENT_FIELD, text)
    digest = blake2b(b"\0".join(parts), digest_size=32).digest()
    return Seen(digest, length, _well_formed(given), rest, parent)


def _parent_of(fields: Fields) -> tuple[bytes, Fields]:
    """The traceparent, and the fields without it; one that is passed on like any other field stays
    where it is."""
    found = values(fields, PARENT_FIELD)
    hop_by_hop = any(PARENT_FIELD in text.lower() for text in values(fields, b"connection"))
    if len(found) != 1 or not is_parent(found[0]) or hop_by_hop:
        return b"", fields
    return found[0], tuple([field for field in fields if field[0] != PARENT_FIELD])


def request_id(fields: Fields) -> str:
    """The caller's id where it is well-formed (and no token: never echoed), else a new one."""
    return _well_formed(value(fields, b"x-request-id"))


def _well_formed(given: bytes | None) -> str:
    if given is not None and _REQUEST_ID.fullmatch(given) and b"kr_" not in given:
        return given.decode()
    return f"{_PROCESS}{next(_NUMBERS):012x}"
