"""What a server says while it runs: one line a call, and whatever a room has to tell.

Lines are written by a thread of their own, from a bounded queue: a pipe that nobody reads delays no
call. A call's line in JSON is made where the call ends, which costs less than to keep what is known
of it for the thread; all others are made there. No query, header value or body is ever in one, and
of an unexpected error only the kinds and the places, since its text may hold anything.
"""

from __future__ import annotations

import logging
import os
import re
import select
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson

from proxy.causes import frames, lineage
from proxy.record import CallRecord
from proxy.turns import turn_of

QUEUE: Final = 8192
"""Lines that may wait to be written; what comes above it is dropped, and counted."""

BATCH: Final = 256
GATHER_SECONDS: Final = 0.05
"""How long lines gather before they are written together: waking a thread costs more than one."""

LAST_SECONDS: Final = 1.0
"""How long the end of the server waits for the last lines to be taken."""

OWN: Final = "keyrelay"
LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
MEMBERS: Final[tuple[str, ...]] = ("id", "at")
"""What a room may add to its words, by `extra`: the call's id, and where an error came from."""

_UNSEEN: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
"""Characters that steer a terminal or turn the order of reading, and what is no character."""

Event = dict[str, Any]
Render = Callable[[Event], str]


@dataclass(frozen=True, slots=True)
class LogSettings:
    """`form`: json, console, or auto: console on a terminal. `level`: a word of LEVELS.

    Where several processes write to one place: `process` tells one from the others, and `turns` is
    the descriptor of a file whose lock says whose turn it is.
    """

    form: str = "auto"
    level: str = "info"
    colours: bool = True
    process: str = ""
    turns: int | None = None

    def made_for(self, descriptor: int) -> Form:
        """How lines are made that go there."""
        form, terminal = self.form, os.isatty(descriptor)
        if form == "auto":
            form = "console" if terminal else "json"
        return JSON if form == "json" else as_console(self.colours and terminal)


class Told(NamedTuple):
    """What a room had to tell; `more`: members beside the words."""

    at: float
    level: str
    room: str
    words: str
    more: Mapping[str, str | int]


Line = CallRecord | Told | bytes


class Form(NamedTuple):
    """How lines are made. `rendering` is asked for in the writer's thread: what it loads delays no
    start. `of_call`: makes a call's line at once, where that is cheap."""

    rendering: Callable[[], Render]
    of_call: Callable[[CallRecord], bytes] | None = None


class Log:
    """The queue and its writer. `takes_calls`: whether the level is one at which calls are told."""

    def __init__(
        self,
        descriptor: int,
        form: Form,
        bound: int = QUEUE,
        takes_calls: bool = True,
        turns: int | None = None,
    ) -> None:
        self._descriptor = descriptor
        self._turns = turns
        self._form = form
        self._bound = bound
        self.takes_calls = takes_calls
        self._latest = 0.0  # when the newest call was over
        self._lines: deque[Line] = deque()
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._asleep = False
        self._dropped = 0  # changed where lines come in
        self._failed = 0  # changed by the writer
        self._told = 0
        self._thread = threading.Thread(target=self._run, name="keyrelay-log", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Lines that were dropped, or that nobody took."""
        return self._dropped + self._failed

    def become(self, level: str) -> None:
        """Another level from now on, a word of LEVELS."""
        number = LEVELS[level]
        logging.getLogger(OWN).setLevel(number)
        logging.getLogger().setLevel(max(logging.WARNING, number))
        self.takes_calls = number <= logging.INFO

    def call(self, record: CallRecord) -> None:
        """An Observer of calls."""
        if self.takes_calls:
            self._latest = record.began + record.seconds
            made = self._form.of_call
            self.add(record._replace(meter=None) if made is None else made(record))

    def add(self, line: Line) -> None:
        """Takes one line, from any thread; never waits."""
        if len(self._lines) >= self._bound:
            self._dropped += 1
            return
        self._lines.append(line)
        if self._asleep:
            self._wake.set()

    def close(self) -> None:
        """Writes what waits, if that is taken within a second."""
        self._ended.set()
        self._wake.set()
        self._thread.join(LAST_SECONDS)

    # In the writer's thread.

    def _run(self) -> None:
        render: Render | None = None
        while self._await_lines():
            render = render or self._form.rendering()
            while self._lines:
                self._write_some(render)

    def _await_lines(self) -> bool:
        """Until lines have come; False: none has, and none will."""
        while not self._lines:
            if self._ended.is_set():
                return False
            self._asleep = True
            if not self._lines:  # what came before the flag was set has woken nobody
                self._wake.wait()
            self._asleep = False
            self._wake.clear()
        self._ended.wait(GATHER_SECONDS)
        return True

    def _write_some(self, render: Render) -> None:
        lines = [self._lines.popleft() for _ in range(min(BATCH, len(self._lines)))]
        made = [line if isinstance(line, bytes) else _rendered(render, line) for line in lines]
        if not self._write(b"".join(made)):
            self._failed += len(lines)
        elif self.lost > self._told:
            count, self._told = self.lost - self._told, self.lost
            words = "log lines were lost: nobody took them as fast as they came"
            last = lines[-1]
            at = last.at if isinstance(last, Told) else self._latest
            self._write(_rendered(render, Told(at, "warning", OWN, words, {"count": count})))

    def _write(self, octets: bytes) -> bool:
        """Whether all was taken; waits as long as that takes."""
        with turn_of(self._turns):
            return self._write_all(octets)

    def _write_all(self, octets: bytes) -> bool:
        while octets:
            try:
                octets = octets[os.write(self._descriptor, octets) :]
            except BlockingIOError:  # whoever shares it has made it so
                select.select([], [self._descriptor], [], LAST_SECONDS)
            except OSError:  # nobody reads it any more, or the disk is full
                return False
        return True


def write_line(descriptor: int, settings: LogSettings, told: Told) -> None:
    """One line, at once and without a thread; not where nobody takes it within a second."""
    line = _rendered(settings.made_for(descriptor).rendering(), told)
    with suppress(OSError), turn_of(settings.turns, LAST_SECONDS):  # nobody may read it
        if select.select([], [descriptor], [], LAST_SECONDS)[1]:
            os.write(descriptor, line)


# From a line to an event.


def _rendered(render: Render, line: CallRecord | Told) -> bytes:
    event = _of_call(line) if isinstance(line, CallRecord) else _of_words(line)
    return render(event).encode(errors="backslashreplace") + b"\n"


@lru_cache(maxsize=8)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _stamp(at: float) -> str:
    """RFC 3339 section 5.6, in UTC, to the millisecond; to the last bit that a float holds."""
    milliseconds = int(at * 1000 + 0.001)
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


def _of_call(call: CallRecord) -> Event:
    upstream = call.upstream_seconds
    event = {
        "timestamp": _stamp(call.began + call.seconds),
        "level": "info",
        "event": "call",
        "id": call.id,
        "tenant": call.tenant,
        "token": call.token,
        "service": call.service,
        "host": call.host,
        "method": call.method,
        "status": call.status,
        "code": call.code,
        "verdict": call.verdict,
        "cut": call.cut,
        "total_ms": _milliseconds(call.seconds),
        "upstream_ms": None if upstream is None else _milliseconds(upstream),
        "waited_ms": _milliseconds(call.waited),
        "received": call.received,
        "sent": call.sent,
        "address": call.address,
    }
    if call.why:
        event["why"] = call.why
    return event


def _milliseconds(seconds: float) -> float:
    """To two digits; `round` costs more than all else here to be right in the last bit."""
    return int(seconds * 100_000 + 0.5) / 100


def _of_words(told: Told) -> Event:
    return {
        "timestamp": _stamp(told.at),
        "level": told.level,
        "event": told.words,
        "logger": told.room,
        **told.more,
    }


# From an event to text.


def escaped(text: str) -> str:
    """The text with every character that could steer a terminal written out, as in JSON."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


JSON: Final = Form(lambda: _text, lambda call: _json(_of_call(call)) + b"\n")
"""One JSON object a line."""


def as_console(colours: bool) -> Form:
    """For people: aligned, coloured, without what is empty."""
    return Form(lambda: _console(colours))


def _text(event: Event) -> str:
    return _json(event).decode()


def _json(event: Event) -> bytes:
    try:
        octets = orjson.dumps(event)
    except TypeError:  # half a surrogate pair is no character
        octets = orjson.dumps({key: _UNSEEN.sub("?", str(text)) for key, text in event.items()})
    if octets.isascii() and b"\x7f" not in octets:  # orjson has escaped what ASCII has of them
        return octets
    return escaped(octets.decode()).encode()


def _console(colours: bool) -> Render:
    from structlog.dev import ConsoleRenderer, plain_traceback  # noqa: PLC0415

    render = ConsoleRenderer(
        colors=colours, sort_keys=False, pad_event_to=34, exception_formatter=plain_traceback
    )

    def rendered(event: Event) -> str:
        if event["event"] == "call":
            where = event.pop("host") or "-"
            event["event"] = f"{event.pop('status') or 'gone'} {event.pop('method')} {where}"
        plain = {
            key: escaped(content) if isinstance(content, str) else content
            for key, content in event.items()
            if content not in ("", None, False)
        }
        return str(render(None, "", plain))

    return rendered


# The standard library's loggers.


class Handler(logging.Handler):
    """Hands over what the loggers of the standard library are told.

    What other people's loggers say is cut after its first line: behind that asyncio shows an
    error's text.
    """

    def __init__(self, log: Log, process: str = "") -> None:
        super().__init__()
        self._log = log
        self._mark = {"process": process} if process else {}

    def emit(self, record: logging.LogRecord) -> None:
        """One line; an error in it by kinds and places."""
        try:
            self._log.add(_told(record, self._mark))
        except Exception:  # words that don't fit their values; nothing else can be done
            self._log.add(Told(record.created, "error", record.name, "a line without words", {}))


def _told(record: logging.LogRecord, mark: Mapping[str, str]) -> Told:
    words = record.getMessage()
    if record.name.partition(".")[0] != OWN:
        words = words.strip().partition("\n")[0]
    more = {name: str(record.__dict__[name]) for name in MEMBERS if name in record.__dict__}
    more |= mark
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        more |= {"error": lineage(error), "at": frames(error)}
    return Told(record.created, record.levelname.lower(), record.name, words, more)


@contextmanager
def logging_to(descriptor: int, settings: LogSettings) -> Iterator[Log]:
    """As long as the context lasts, all that is logged goes there. Libraries tell warnings only:
    below that some of them show URLs."""
    level = LEVELS[settings.level]
    log = Log(
        descriptor,
        settings.made_for(descriptor),
        takes_calls=level <= logging.INFO,
        turns=settings.turns,
    )
    handler, root, own = Handler(log, settings.process), logging.getLogger(), logging.getLogger(OWN)
    before = root.level, own.level
    root.addHandler(handler)
    own.setLevel(level)
    root.setLevel(max(logging.WARNING, level))
    try:
        yield log
    finally:
        root.removeHandler(handler)
        root.setLevel(before[0])
        own.setLevel(before[1])
        log.close()
