"""What goes back to one caller: at most one start, and never a whole look for a cut body."""

from __future__ import annotations

import logging
from contextlib import suppress
from email.utils import formatdate
from typing import NamedTuple

from proxy.causes import lineage
from proxy.clock import Clock
from proxy.cycle import RelayCycle
from proxy.errors import CallerGone, RelayError
from proxy.fields import safety_fields
from proxy.memo import bounded_put
from proxy.messages import Field, Fields, Response, lines
from proxy.problems import problem
from proxy.record import STANDING

_log = logging.getLogger("keyrelay")

HEADERS = 1024
"""How many headers of stored answers are remembered as octets."""


class Dates:
    """When a message was made (RFC 9110 section 6.6.1); written once a second."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._second = -1
        self._line = b""

    def line(self) -> bytes:
        """The field of this second, as a line."""
        second = int(self._clock.now())
        if second != self._second:
            self._second = second
            self._line = b"date: %s\r\n" % formatdate(second, usegmt=True).encode()
        return self._line


class Header(NamedTuple):
    """The upstream's part of a header, as octets. `dated`, `named`: it has a Date, an X-Request-ID;
    `length`: its Content-Length."""

    lines: bytes
    dated: bool
    named: bool
    length: int | None


class Writer:
    """Writes headers: what comes from upstream, and what is ours in every one."""

    def __init__(self, clock: Clock, pseudonym: bytes) -> None:
        self.clock = clock
        self.dates = Dates(clock)
        self.via = b"via: 1.1 " + pseudonym + b"\r\n"
        self._known: dict[tuple[int, Fields, bool], Header] = {}

    def header(self, response: Response, limited: bool) -> Header:
        """The upstream's part; that of a stored answer is written once. Where we tell of limits of
        ours, the upstream's fields of the same names would say something else."""
        if response.verdict != "hit":
            return _header(response, limited)
        place = response.status, response.fields, limited
        known = self._known.get(place)
        if known is None:
            known = _header(response, limited)
            bounded_put(self._known, place, known, HEADERS)
        return known


def _header(response: Response, limited: bool) -> Header:
    ours = STANDING if limited else ()
    # the length of a 204 or 304 would announce a body that never comes
    bodiless = response.status in (204, 304)
    kept: list[Field] = []
    dated = named = False
    length = None
    for field in response.fields:
        name = field[0]
        if name == b"x-content-type-options" or (bodiless and name == b"content-length"):
            continue
        if name in ours:
            continue
        if name == b"content-length":
            length = int(field[1])
        elif name == b"date":
            dated = True
        elif name == b"x-request-id":
            named = True
        kept.append(field)
    kept += safety_fields(response.fields)
    return Header(lines(tuple(kept)), dated, named, length)


class Reply:
    """One answer. `status` 0: none has begun. `sent`: octets of its body; `code`, `why`: of our
    error; `answered`: seconds until the header of a response."""

    __slots__ = (
        "_page",
        "_writer",
        "answered",
        "began",
        "code",
        "cut",
        "id",
        "sent",
        "status",
        "why",
        "wire",
    )

    def __init__(self, wire: RelayCycle, writer: Writer, page_fields: Fields, call_id: str) -> None:
        self.wire = wire
        self.id = call_id
        self.began = writer.clock.monotonic()
        self.status = 0
        self.answered: float | None = None
        self.sent = 0
        self.code = ""
        self.why = ""
        self.cut = False
        self._writer = writer
        self._page = page_fields

    @property
    def stalled(self) -> bool:
        """Whether the caller is not reading, or gone."""
        return self.wire.flow.write_paused or self.wire.disconnected

    async def room(self) -> None:
        """Until the caller has read enough of what was sent; raises CallerGone."""
        if self.stalled:
            await self.wire.ready()

    def give(self, response: Response, content: bytes, standing: bytes) -> None:
        """A whole response in one go."""
        header, head = self._head(response, standing)
        self.sent = len(content)
        self.wire.whole(self.status, head, header.length, content)

    def start(self, response: Response, standing: bytes) -> None:
        """The header of a response."""
        header, head = self._head(response, standing)
        self.wire.begin(self.status, head, header.length)

    def chunk(self, octets: bytes) -> None:
        """A part of the body; while the caller is `stalled`, `room` comes first."""
        self.sent += len(octets)
        self.wire.more(octets)

    def end(self) -> None:
        """The end of a whole body."""
        self.wire.end()

    def whole(self, status: int, fields: Fields, body: bytes, standing: bytes = b"") -> None:
        """An answer of ours, as octets."""
        self.status, self.sent = status, len(body)
        own = ((b"x-relay-request-id", self.id.encode()), *self._page)
        head = lines((*fields, *own)) + standing + self._writer.dates.line()
        length = None if status == 204 else len(body)
        self.wire.whole(status, head, length, body)

    async def fail(self, error: RelayError, standing: bytes, *, waits: bool = True) -> None:
        """The error as a response; after the start the transfer is broken instead, and where that
        `waits` for nobody to read what was sent before."""
        self.code, self.why = error.code, error.why
        if error.status >= 500:
            cause = f": {lineage(error.__cause__)}" if error.__cause__ else ""
            _log.warning("%s%s", error.code, cause, extra={"id": self.id})
        if self.status or (self.stalled and not waits):
            self.cut = bool(self.status)
            self.wire.abort()
            return
        path = self.wire.target.partition(b"?")[0]
        instance = "/proxy" if path.startswith(b"/proxy") else None
        answer = problem(error, self.id, instance)
        if error.status in (405, 501):
            self.wire.keep_alive = False
        named = (b"x-request-id", self.id.encode())
        with suppress(CallerGone):
            await self.room()
            self.whole(answer.status, (*answer.fields, named), answer.body, standing)

    def _head(self, response: Response, standing: bytes) -> tuple[Header, bytes]:
        writer = self._writer
        header = writer.header(response, bool(standing))
        own = (*response.own, *self._page)
        name = self.id.encode()
        parts = [
            header.lines,
            writer.via,
            lines(own),
            standing,
            self._timing(response),
            b"" if header.dated else writer.dates.line(),
            b"" if header.named else b"x-request-id: " + name + b"\r\n",
            b"x-relay-request-id: " + name + b"\r\n",
        ]
        self.status = response.status
        return header, b"".join(parts)

    def _timing(self, response: Response) -> bytes:
        """Server-Timing (W3C): our share, the wait in our queue, and the upstream's time until its
        header, in milliseconds."""
        self.answered = self._writer.clock.monotonic() - self.began
        total = self.answered * 1000
        waited = response.waited * 1000
        if response.upstream_seconds is None:
            return b"server-timing: relay;dur=%.1f\r\n" % total
        upstream = response.upstream_seconds * 1000
        relay = max(total - upstream - waited, 0.0)
        queue = b", queue;dur=%.1f" % waited if waited else b""
        return b"server-timing: relay;dur=%.1f%s, upstream;dur=%.1f\r\n" % (relay, queue, upstream)
