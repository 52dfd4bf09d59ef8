"""uvicorn's protocol with the raw request target, our own refusals, and a way to cut an answer."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast
from urllib.parse import unquote

import httptools

from proxy.clock import SystemClock
from proxy.cycle import RelayCycle
from proxy.door import OPEN_WIDE, Door
from proxy.errors import BadRequest, HeaderTooLarge, RequestTooSlow
from proxy.feeding import FedProtocol
from proxy.framing import MAX_FIELDS, MAX_HEADER, MAX_TARGET, check_framing, too_large
from proxy.patience import Outgoing, Patience, Phase, Waits
from proxy.refusal import crowded, refuse_crowd, whole_response

MAX_PIPELINED = 8
MAX_BEHIND = 16 * 1024 * 1024
"""Octets behind our last words that are read before the connection is reset."""

PIECE = 16 * 1024
"""Octets that are parsed before the queue of pipelined calls is looked at again."""

_WAITS = Waits()
_NOTHING = memoryview(b"")


class RelayProtocol(FedProtocol):
    """One connection of a caller. `begun`: requests whose header the parser has begun to read.

    The scope's `extensions` get `keyrelay`: the request's RelayCycle.
    """

    _patience: Patience
    _whose: str  # address or network: its calls take turns with those of others

    def __init__(
        self, *args: Any, waits: Waits = _WAITS, door: Door | None = None, **more: Any
    ) -> None:
        super().__init__(*args, **more)
        self._door = door or Door(OPEN_WIDE, SystemClock())
        self.counted: str | None = None  # what this connection counts as, once it is let in
        self.outgoing: Outgoing | None = None  # where it is more than the transport
        self._speaks_for_others = False
        self._waits = waits
        self._cycles: list[RelayCycle] = []
        self._octets = self._silent = self.begun = 0
        self._between = True
        self.is_deaf = False  # our last words are out
        self._unread: memoryview[int] = _NOTHING  # behind a full queue

    # What the parser finds.

    def on_message_begin(self) -> None:
        """A new request starts: nothing is counted yet."""
        self._silent = 0
        if self._resuming:
            return
        self._between = False
        self.begun += 1
        super().on_message_begin()
        self._patience.header()
        self._octets = 0
        self._in_header = True

    def on_url(self, url: bytes) -> None:
        """Part of the target."""
        self._silent = 0
        if self._resuming:
            return
        super().on_url(url)
        if len(self.url) > MAX_TARGET:
            self._refuse(HeaderTooLarge(f"Keep the request target below {MAX_TARGET} octets."))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field; the parser itself has no bound for their number or size.

        Trailers come here too: they are counted, and never taken for fields of the header, where
        one could be a credential that nobody before us has seen (RFC 9110 section 6.5.1).
        """
        self._silent = 0
        if self._resuming:
            return
        if self._in_header:
            name, value = name.lower(), value.strip(b" \t")
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))
        self._octets += len(name) + len(value) + 4
        if self._octets > MAX_HEADER or len(self.headers) > MAX_FIELDS:
            self._refuse(too_large())

    def on_headers_complete(self) -> None:
        """Starts the request. Its target is ours to judge: httptools' own URL parser refuses some,
        and rewrites others."""
        self._silent = 0
        if self._resuming:
            return
        fields = self._fields
        try:
            check_framing(self.parser.get_http_version(), self.url, fields)
            self._door.hosts.check(fields)
        except BadRequest as error:
            self._refuse(error)
        self._portions.expect_body(fields)
        self._in_header = False
        self._patience.body()
        path, _, query = self.url.partition(b"?")
        self.scope["method"] = self.parser.get_method().decode("ascii")
        self.scope["http_version"] = self.parser.get_http_version()
        self.scope["raw_path"] = path
        text = path.decode("latin-1")
        self.scope["path"] = unquote(text, errors="replace") if "%" in text else text
        self.scope["query_string"] = query
        old = self.scope["http_version"] == "1.0"
        cycle = self.new_cycle(self.url, not old and self.parser.should_keep_alive())
        cycle.old = old
        # RFC 9110 section 10.1.1
        cycle.waiting_for_100_continue = self.expect_100_continue and not old
        self.begin(cycle)

    def begin(self, cycle: RelayCycle) -> None:
        """Answers a request, or lets it wait for those before it."""
        waiting = not self._is_answered
        self.cycle = cycle
        self._cycles = [*self._unanswered(), cycle] if waiting else [cycle]
        app: Any = self.app if self._lets_in(cycle) else refuse_crowd
        if waiting:  # pipelined: answered in turn; a few are read on, to notice a hang-up
            self.pipeline.appendleft((cycle, app))
            if self._is_full:
                self.flow.pause_reading()
        else:
            self._start_asgi_task(cycle, app)

    def _lets_in(self, cycle: RelayCycle) -> bool:
        """Whether it is the peer's own call, or one more of the address that it calls for."""
        if not self._speaks_for_others or self.client is None:
            cycle.whose = self._whose
            return True
        peer, port = self.client
        named = self._door.named(peer, tuple(self.scope["headers"]))
        self.scope["client"] = (named.address, port if named.address == peer else 0)
        cycle.whose = named.counted or named.address
        if not self._door.begin(named.counted):
            return False
        cycle.left = partial(self._door.end, named.counted)
        return True

    def _start_asgi_task(self, cycle: RelayCycle, app: Any) -> None:  # type: ignore[override]
        cycle.start(app, self.tasks)

    def new_cycle(self, target: bytes, keep_alive: bool) -> RelayCycle:
        """The request that `scope` describes."""
        cycle = RelayCycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=[],
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.target = target
        cycle.finish = self._finish
        self.scope["extensions"] = {"keyrelay": cycle}  # type: ignore[dict-item]
        return cycle

    def on_body(self, body: bytes) -> None:
        """Part of a body."""
        self._silent = 0
        self._patience.body()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The end of a request; that of an upgrade is too early while its body is to come."""
        self._silent = 0
        if not self._body_comes_after_upgrade():
            super().on_message_complete()
            self._portions.expect_line()
            self._between = self.is_plain
            self.request_is_whole()

    # How far the caller is.

    @property
    def is_at_rest(self) -> bool:
        """Whether the next octet begins a request, and nobody waits for an answer."""
        return self._between and self._is_answered and not (self.is_deaf or self._unread)

    @property
    def is_plain(self) -> bool:
        """Whether the header that was read last ends neither the connection nor the use of HTTP."""
        ends = self._in_header or self.is_deaf or self.transport.is_closing()
        return not (ends or self.parser.should_upgrade()) and self.cycle.keep_alive

    @property
    def _is_answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def body_goes_on(self) -> None:
        """Part of a body has come, and more is due."""
        self._patience.body()

    def request_is_whole(self) -> None:
        """The caller waits for us, unless it was refused early."""
        self._patience.answer()
        if self.cycle.response_complete:
            self._patience.idle()
        elif self.flow.write_paused:
            self._patience.stalled()

    # What the connection says.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A caller has come; its first header is due."""
        super().connection_made(transport)
        self.outgoing = self.outgoing or transport
        self._patience = Patience(self._waits, self.outgoing, self._late, self._excused)
        self._patience.header()
        peer = self.client[0] if self.client else ""
        if self.counted is None:
            self.counted = self._door.enter(peer)
        if self.counted is None:
            self._turn_away()
        else:
            self._whose = self.counted or peer
            self._speaks_for_others = self._door.trusts(peer)

    def _turn_away(self) -> None:
        """At once, and without hearing what is asked."""
        self.is_deaf = True
        self.transport.write(whole_response(crowded()))
        self._finish(False)

    def data_received(self, data: bytes) -> None:
        """Octets from the caller."""
        if self.is_deaf:
            self._hear_out(data)
        elif self._unread:  # a read that was under way when reading was paused
            self._unread = memoryview(bytes(self._unread) + data)
        elif len(data) <= PIECE and not self._is_full:
            self._parse(data)
        else:
            self._unread = memoryview(data)
            self._read_on()

    def _hear_out(self, data: bytes) -> None:
        self._silent += len(data)
        if self._silent > MAX_BEHIND:
            self.transport.abort()

    @property
    def _is_full(self) -> bool:
        """Whether as many calls wait as may: what is behind them is not even parsed."""
        return len(self.pipeline) >= MAX_PIPELINED

    def _read_on(self) -> None:
        """Parses what has come, until too many calls wait for their turn."""
        while self._unread and not (self._is_full or self.is_deaf or self.transport.is_closing()):
            piece, self._unread = bytes(self._unread[:PIECE]), self._unread[PIECE:]
            self._parse(piece)

    def _parse(self, data: bytes) -> None:
        self._silent += len(data)
        try:
            self._feed(data)
            if self._silent > MAX_HEADER:  # one endless field, or chunk extension
                self._refuse(too_large())
        except (httptools.HttpParserError, ValueError):
            self.send_400_response("")

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller is gone: for the call that is being answered and for those in the queue."""
        for cycle in self._unanswered():
            cycle.lose()
        self._patience.stop()
        if self.counted is not None:
            self._door.leave(self.counted)
        super().connection_lost(exc)
        self._cycles, self.cycle = [], None  # type: ignore[assignment]
        self.pipeline.clear()

    def on_response_complete(self) -> None:
        """The next call in the queue, or a while of waiting for one."""
        self.server_state.total_requests += 1
        if self.is_deaf or self.transport.is_closing():
            return
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._read_on()
            if self.is_deaf or self.transport.is_closing():
                return
            self._start_asgi_task(cast(RelayCycle, cycle), app)
        else:
            self._patience.idle()
        if not self._is_full:
            self.flow.resume_reading()

    def pause_writing(self) -> None:
        """The caller does not read as fast as we answer."""
        super().pause_writing()
        self._patience.stalled()

    def resume_writing(self) -> None:
        """The caller has caught up."""
        super().resume_writing()
        self._patience.flowing()

    def _excused(self) -> bool:
        """Whether the rest of a request is missing because we have not let it in."""
        cycle = self.cycle
        return self.flow.read_paused or (cycle is not None and cycle.waiting_for_100_continue)

    def _late(self, phase: Phase) -> None:
        """The caller takes too long: what it has begun is refused, and the connection ends."""
        unanswered = phase is Phase.BODY and not self.cycle.response_complete
        if self._in_header or unanswered:
            self.refusal = RequestTooSlow("Send the whole request without long pauses.")
            self.send_400_response("")
        else:
            self._finish(False)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        """Our own refusal of what is not HTTP: always the last word, never inside an answer, and
        none to a request that has one."""
        error = self.refusal or BadRequest("Send a well-formed HTTP/1.1 request.")
        unanswered = self._unanswered()
        for cycle in unanswered:
            cycle.lose()
        asked = self._in_header or unanswered
        if asked and not any(cycle.response_started for cycle in unanswered):
            self.transport.write(whole_response(error))
        self._finish(True)

    def _finish(self, listening: bool) -> None:
        """Ends the connection. One that is still `listening` to a caller is not closed under its
        octets, since the reset that answers those can take our last words with it (RFC 9112 section
        9.6): they are read, and heard no more. TLS has no half of a connection to end."""
        ends = self.transport.can_write_eof()
        if listening and (ends or self.scheme == "https") and not self.transport.is_closing():
            self.is_deaf = True
            self.flow.resume_reading()
            if ends:
                self.transport.write_eof()
        else:
            self.transport.close()
        self._patience.closing()

    def _unanswered(self) -> list[RelayCycle]:
        return [cycle for cycle in self._cycles if not cycle.response_complete]
