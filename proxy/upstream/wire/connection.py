"""One connection and the call that it carries: flow control both ways, deadlines, its end."""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Protocol, cast

from proxy.alarm import NEVER, Alarm
from proxy.errors import UpstreamTimeout, UpstreamTlsError, UpstreamUnreachable
from proxy.upstream.wire.answer import Answer, Head
from proxy.upstream.wire.sentences import (
    NOT_ANSWERED,
    NOT_ANSWERED_IN_TIME,
    NOT_TAKEN_IN_TIME,
    OVERDUE,
    SILENT,
    TLS_FAILED,
)

MAX_AHEAD: Final = 1 << 18
"""Octets of a body taken in ahead of its reader before the upstream is made to wait."""

MAX_JOINED: Final = 1 << 16
"""Octets up to which pieces of a request are joined into one write."""


class Wire(Protocol):
    """What octets are given to: an asyncio transport, or TLS over one."""

    def write(self, data: bytes) -> None:
        """Send, sooner or later."""
        ...

    def pause_reading(self) -> None:
        """Let the peer wait."""
        ...

    def resume_reading(self) -> None:
        """Take octets again."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class Connection(asyncio.Protocol):
    """Carries one call at a time, between `begin` and `finish`.

    Whoever sends a call waits on it in one task. `on_close` is told once, whatever closes it.
    `expires`: until when it may wait for another call, in seconds of the pool's clock.
    """

    def __init__(self, sock: socket.socket, on_close: Callable[[Connection], None]) -> None:
        self.closed = False
        self.calls = 0
        self.expires = NEVER
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._alarm = Alarm(self._loop, self._late)
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN)
        self._wire: Wire | None = None
        self._answer: Answer | None = None
        self._sleeper: asyncio.Future[None] | None = None
        self._sleeping_for = ""
        self._uploader: Uploading | None = None
        self._overall = NEVER
        self._outgoing: list[bytes] = []
        self._outgoing_size = 0
        self._flush_is_due = False
        self._write_paused = False
        self._read_paused = False

    # One call after the other.

    @property
    def usable(self) -> bool:
        """Whether a call may begin: the connection is open, and nothing came that nobody asked
        for, not even into the kernel's buffer."""
        return not self.closed and not self._poll.poll(0)

    def begin(self, answer: Answer, seconds: float | None = None) -> None:
        """A call that takes `seconds` at most; the answer is filled from now on."""
        self.calls += 1
        self._answer = answer
        self._overall = NEVER if seconds is None else self._loop.time() + seconds
        self._alarm.set(self._overall)
        if self.closed:
            answer.end(None)

    def finish(self) -> None:
        """The call is over and its answer was complete."""
        self._answer = None
        self._overall = NEVER
        self._alarm.set(NEVER)
        if self._read_paused:
            self._resume_reading()

    def close(self) -> None:
        """Close at once; nothing is waited for. A call that it carries is cut."""
        if self.closed:
            return
        self.closed = True
        self._alarm.stop()
        if self._wire is not None:
            self._wire.abort()
        if self._answer is not None:
            self._answer.end(ConnectionAbortedError())
        self._stir()
        self._on_close(self)

    # The request.

    @property
    def sending_is_pointless(self) -> bool:
        """Whether the answer is there, or there will be none."""
        answer = self._answer
        return answer is None or answer.head is not None or answer.over

    def write(self, data: bytes) -> None:
        """Octets of the request, at once."""
        if self._wire is not None and not self.closed:
            self._wire.write(data)

    def put(self, data: bytes) -> None:
        """Octets of the request; those that come without a pause leave in one write."""
        self._outgoing.append(data)
        self._outgoing_size += len(data)
        if self._outgoing_size > MAX_JOINED:
            self.flush()
        elif not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush_now)

    def flush(self) -> None:
        """Write what has been put."""
        if self._outgoing:
            outgoing, self._outgoing, self._outgoing_size = self._outgoing, [], 0
            self.write(b"".join(outgoing))

    def _flush_now(self) -> None:
        self._flush_is_due = False
        self.flush()

    async def let_octets_in(self) -> None:
        """What waits in the kernel is read before more is sent: a write to an upstream that has
        refused and gone would fail, and its answer would be lost with the connection."""
        for _ in range(2):
            if self.closed or not self._poll.poll(0):
                return
            await asyncio.sleep(0)

    @property
    def is_backed_up(self) -> bool:
        """Whether the upstream has yet to take what was written."""
        return self._write_paused

    async def until_writable(self, seconds: float) -> None:
        """Until more may be written, or that has become pointless."""
        while self._write_paused and not self.sending_is_pointless:
            await self._sleep(self._loop.time() + seconds, NOT_TAKEN_IN_TIME)

    # The answer.

    async def header(self, seconds: float) -> Head:
        """The header, all of which is due in `seconds`. Raises UpstreamError, UpstreamTimeout."""
        answer = self._current
        due = self._loop.time() + seconds
        while answer.head is None and answer.error is None:
            await self._sleep(due, NOT_ANSWERED_IN_TIME)
        if answer.head is None:
            raise answer.error or UpstreamUnreachable(NOT_ANSWERED)
        return answer.head

    def more(self, seconds: float) -> Awaitable[None]:
        """Until something happens, such as more of the body."""
        return self._sleep(self._loop.time() + seconds, SILENT)

    def taken(self, answer: Answer) -> None:
        """The reader has taken what was there."""
        if self._read_paused and answer is self._answer:
            self._resume_reading()

    @property
    def _current(self) -> Answer:
        assert self._answer is not None  # noqa: S101  only between begin and finish
        return self._answer

    def _resume_reading(self) -> None:
        self._read_paused = False
        if self._wire is not None and not self.closed:
            self._wire.resume_reading()

    # Waiting.

    async def _sleep(self, due: float, late: str) -> None:
        """Until something happens; `late`: what is said when nothing does until `due`."""
        self._sleeping_for = late
        self._alarm.set(due if due < self._overall else self._overall)
        self._sleeper = sleeper = self._loop.create_future()
        try:
            await sleeper
        finally:
            self._sleeper = None

    def _stir(self) -> None:
        """Something has happened."""
        if self._sleeper is not None:
            if not self._sleeper.done():
                self._sleeper.set_result(None)
        elif self._uploader is not None and self.sending_is_pointless:
            self._uploader.stop()

    def _late(self) -> None:
        overall = self._overall <= self._loop.time()
        if self._sleeper is None and not overall:  # nobody waits for the upstream any more
            self._alarm.set(self._overall)
            return
        if self._answer is not None:
            self._answer.fail(UpstreamTimeout(OVERDUE if overall else self._sleeping_for))
        self.close()

    def uploading(self) -> Uploading:
        """A block in which the caller's body is read, and which an answer ends."""
        self._uploader = Uploading(self)
        return self._uploader

    def uploaded(self) -> None:
        """The block has been left."""
        self._uploader = None

    # What the event loop, or TLS, says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self.attach(cast(asyncio.Transport, transport))

    def attach(self, wire: Wire) -> None:
        """Where requests go from now on."""
        self._wire = wire

    def data_received(self, data: bytes) -> None:
        """Octets from the upstream; what nobody asked for ends the connection."""
        answer = self._answer
        if answer is None:
            self.close()
            return
        answer.feed(data)
        if answer.error is not None:
            self.close()
        if answer.size > MAX_AHEAD and not self._read_paused and not self.closed:
            self._read_paused = True
            self._current_wire.pause_reading()
        self._stir()

    @property
    def _current_wire(self) -> Wire:
        assert self._wire is not None  # noqa: S101  octets come from it
        return self._wire

    def eof_received(self) -> bool:
        """The upstream says that nothing more comes: the connection closes."""
        self._ended(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, by whosever wish."""
        self._ended(exc)

    def _ended(self, cause: Exception | None) -> None:
        answer = self._answer
        if answer is not None:
            if _is_refusal(cause) and not answer.begun:
                refused = UpstreamTlsError(TLS_FAILED)
                refused.__cause__ = cause
                answer.fail(refused)
            answer.end(cause)
        self.close()

    def pause_writing(self) -> None:
        """The upstream reads too slowly."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """The upstream has caught up."""
        self._write_paused = False
        self._stir()


def _is_refusal(cause: Exception | None) -> bool:
    """An alert of TLS, such as that a certificate of ours is missing; not a mere end."""
    return isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError)


class Uploading:
    """A block that ends early once the connection says `stop`, as a deadline would end it: the task
    is cancelled, and here that cancellation ends."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._task = asyncio.current_task()
        self._cancelling = self._task.cancelling() if self._task else 0
        self.stopped = False

    def stop(self) -> None:
        """The rest of the request isn't wanted."""
        if not self.stopped and self._task is not None:
            self.stopped = True
            self._task.cancel()

    def __enter__(self) -> Uploading:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._connection.uploaded()
        if not self.stopped or self._task is None:
            return False
        only_ours = self._task.uncancel() <= self._cancelling
        return only_ours and isinstance(error, asyncio.CancelledError)
