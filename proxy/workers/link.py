"""One connection between a worker and the coordinator: questions and answers by number, pipelined.

A message is its length and a tuple in Python's own `marshal`. Both ends are forks of one program
a worker begins with a secret that only these know, so nobody else's octets are ever read.
"""

from __future__ import annotations

import asyncio
import hmac
import marshal
import struct
from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from typing import Any, Final, cast

from proxy.causes import lineage

ASKED, ANSWERED, FAILED, TOLD = range(4)
"""Kinds of messages: a question, its answer or why there is none, and what needs no answer."""

_LENGTH: Final = struct.Struct("!I")
_LONGEST: Final = 64 << 20
_FORM: Final = 2
"""Of marshal: without references between objects, which cost more than they spare."""

Verb = Callable[..., Any]
"""What answers one kind of question: at once, or as an awaitable."""


class Away(Exception):
    """The other end is not there, or has gone before it answered."""


class Refused(Exception):
    """The other end could not do what was asked; the message says why, for the log."""


class Link(asyncio.Protocol):
    """One end. `verbs`: what the other may ask; `lost`: told once when the connection has ended.

    `awaits`: octets that the other end has to begin with.
    """

    def __init__(
        self, verbs: Mapping[str, Verb], lost: Callable[[Link], None], awaits: bytes = b""
    ) -> None:
        self.verbs = verbs
        self._awaits = awaits
        self.heard = 0.0  # when anything came last, by the loop's time
        self.peer = b""  # which start of a worker, once it has said that
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._octets = bytearray()
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # What both ends do.

    def ask(self, verb: str, *given: Any) -> asyncio.Future[Any]:
        """The answer, when it comes; raises Away, Refused."""
        self._number += 1
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._transport is None:
            answer.set_exception(Away("no connection"))
            return answer
        self._waiting[self._number] = answer
        self._send(ASKED, self._number, verb, given)
        return answer

    def tell(self, verb: str, *given: Any) -> None:
        """Says something that needs no answer; nobody there, nobody hears it."""
        if self._transport is not None:
            self._send(TOLD, 0, verb, given)

    def prove(self, secret: bytes) -> None:
        """What the other end awaits, before anything else."""
        if self._transport is not None:
            self._transport.write(secret)

    def end(self) -> None:
        """Ends the connection behind what has been said."""
        if self._transport is not None:
            self._transport.close()

    def close(self) -> None:
        """Ends the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _send(self, *message: Any) -> None:
        octets = marshal.dumps(message, _FORM)
        if self._transport is not None:
            self._transport.write(_LENGTH.pack(len(octets)) + octets)

    # What the loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, _error: Exception | None) -> None:
        """Whoever waits for an answer gets none."""
        self._transport = None
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            if not answer.done():
                answer.set_exception(Away("the connection was lost"))
        for task in self._tasks:
            task.cancel()
        self._lost(self)

    def data_received(self, data: bytes) -> None:
        """Takes up every whole message."""
        octets = self._octets
        octets += data
        self.heard = asyncio.get_running_loop().time()
        if self._awaits and not self._is_proved(octets):
            return self.close() if len(octets) >= len(self._awaits) else None
        start, end = 0, len(octets)
        while end - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(octets, start)
            if length > _LONGEST:
                return self.close()
            if end - start - _LENGTH.size < length:
                break
            start += _LENGTH.size
            message = bytes(octets[start : start + length])
            start += length
            self._take(*marshal.loads(message))  # noqa: S302 - see above
        del octets[:start]
        return None

    def _is_proved(self, octets: bytearray) -> bool:
        length = len(self._awaits)
        if not hmac.compare_digest(bytes(octets[:length]), self._awaits):
            return False
        del octets[:length]
        self._awaits = b""
        return True

    def _take(self, kind: int, number: int, verb: Any, given: Any) -> None:
        if kind in (ANSWERED, FAILED):
            answer = self._waiting.pop(number, None)
            if answer is None or answer.done():
                return
            if kind == ANSWERED:
                answer.set_result(given)
            else:
                answer.set_exception(Refused(given))
            return
        try:
            result = self.verbs[verb](self, *given)
        except Exception as error:
            self._fail(kind, number, error)
            return
        if isawaitable(result):
            task = asyncio.ensure_future(self._follow(kind, number, result))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif kind == ASKED:
            self._send(ANSWERED, number, "", result)

    async def _follow(self, kind: int, number: int, result: Awaitable[Any]) -> None:
        try:
            found = await result
        except Exception as error:
            self._fail(kind, number, error)
            return
        if kind == ASKED:
            self._send(ANSWERED, number, "", found)

    def _fail(self, kind: int, number: int, error: Exception) -> None:
        """By its kinds: an error's text may hold anything."""
        if kind == ASKED:
            self._send(FAILED, number, "", lineage(error))
