"""How long a caller may take: over a header, between the parts of a body, over reading its answer,
and between two calls. One timer for each connection, moved and not made anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol

from proxy.alarm import NEVER, Alarm

LAST_SECONDS: Final = 5.0
"""How long a connection that we have closed may take to let the last octets out."""


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds. `header`: from its first octet, or from the connection, to its end; `body` and
    `answer`: without one octet of progress; `idle`: until the next call begins."""

    header: float = 10.0
    body: float = 30.0
    answer: float = 60.0
    idle: float = 75.0


class Phase(Enum):
    """What is waited for; ANSWER: for us; LAST: for our last octets to get out."""

    HEADER = auto()
    BODY = auto()
    ANSWER = auto()
    IDLE = auto()
    LAST = auto()


class Outgoing(Protocol):
    """What is asked of the connection's writing side."""

    def is_closing(self) -> bool:
        """Whether it was closed by us."""
        ...

    def get_write_buffer_size(self) -> int:
        """Octets that the caller has not taken yet."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class Patience:
    """Ends when the caller makes no progress.

    `late` is told in which phase; `excused`: whether what is missing is our own doing (we have
    paused, or have not asked for the body yet).
    """

    __slots__ = ("_alarm", "_excused", "_late", "_left", "_loop", "_outgoing", "phase", "waits")

    def __init__(
        self,
        waits: Waits,
        outgoing: Outgoing,
        late: Callable[[Phase], None],
        excused: Callable[[], bool],
    ) -> None:
        self.waits = waits
        self.phase = Phase.HEADER
        self._loop = asyncio.get_running_loop()
        self._alarm = Alarm(self._loop, self._rang)
        self._outgoing = outgoing
        self._late = late
        self._excused = excused
        self._left = 0

    def header(self) -> None:
        """A header has begun, or may begin since the connection is there."""
        self._enter(Phase.HEADER, self.waits.header)

    def body(self) -> None:
        """A body is due, or a part of it has come."""
        self._enter(Phase.BODY, self.waits.body)

    def answer(self) -> None:
        """The request is whole: the caller waits for us."""
        self.phase = Phase.ANSWER
        self._alarm.set(NEVER)

    def idle(self) -> None:
        """The answer is complete; what the caller has begun meanwhile goes on."""
        if self.phase is Phase.ANSWER:
            self._enter(Phase.IDLE, self.waits.idle)

    def stalled(self) -> None:
        """The caller has stopped reading."""
        self._left = self._outgoing.get_write_buffer_size()
        self._alarm.set(self._loop.time() + self.waits.answer)

    def flowing(self) -> None:
        """The caller reads again."""
        if self.phase is Phase.BODY:
            self.body()
        elif self.phase is Phase.ANSWER:
            self._alarm.set(NEVER)

    def closing(self) -> None:
        """We have said our last: it has some seconds to get out."""
        self.phase = Phase.LAST
        self._left = self._outgoing.get_write_buffer_size()
        self._alarm.set(self._loop.time() + LAST_SECONDS)

    def stop(self) -> None:
        """The connection is gone. Nothing here leads back to it: what is in no ring dies at once,
        and a flood leaves no memory to a collector that seldom looks."""
        self._alarm.stop()
        self._alarm = Alarm(self._loop, lambda: None)
        self._late, self._excused = lambda _: None, lambda: True

    def _enter(self, phase: Phase, seconds: float) -> None:
        self.phase = phase
        self._alarm.set(self._loop.time() + seconds)

    def _rang(self) -> None:
        left = self._outgoing.get_write_buffer_size()
        if left:
            self._waited_for_reader(left)
        elif self._ending:
            self._outgoing.abort()
        elif self.phase is Phase.BODY and self._excused():
            self.body()
        elif self.phase is Phase.HEADER and self._excused():
            self.header()
        else:
            self._late(self.phase)

    def _waited_for_reader(self, left: int) -> None:
        """A slow reader may go on; one that has taken nothing since is cut."""
        if 0 < self._left <= left:
            self._outgoing.abort()
            return
        self._left = left
        self._alarm.set(self._loop.time() + (LAST_SECONDS if self._ending else self.waits.answer))

    @property
    def _ending(self) -> bool:
        return self.phase is Phase.LAST or self._outgoing.is_closing()
