"""Sees every connection, every look-up of a name and every program that is started: whither, and
who of us did it.

An audit hook sees what Python's sockets do; uvloop does the same in C, so that its methods are
watched too. The innermost file of the project on the stack is who did it: `proxy/network.py`, or
one of a few that go where the configuration says and nowhere else. What it says stands in the
objects whose methods are on the stack. Standard library only: processes that tests start load it as
well, before their own code.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import parse_qs, urlsplit

ROOT = str(Path(__file__).parent.parent.parent)
OURS = (f"{ROOT}/proxy/", f"{ROOT}/vault/")
ENGINE = f"{ROOT}/proxy/engine.py"
SHARED = f"{ROOT}/proxy/limits/shared.py"
SESSIONS = f"{ROOT}/vault/sessions.py"
DATABASE = f"{ROOT}/proxy/database.py"
COMPANION = f"{ROOT}/proxy/workers/companion.py"
COLLECTOR = f"{ROOT}/proxy/traces/collector.py"
KEEPER = f"{ROOT}/vault/keeper.py"

CANCEL = ("/asyncpg/connect_utils.py", "_cancel")
"""What a driver does for `vault/sessions.py` in a task of its own, where nobody of us is on the
stack: it tells the server that it is connected to that nobody waits for a statement any more."""

Whither = Any
"""(host, port); the path of a socket; a list, which is the words of a command; None: unknown."""

Says = Callable[[FrameType], Iterator[Whither]]
"""Where the configuration says that somebody may go, from whoever is on the stack."""


# What the configuration says.


def held(frame: FrameType | None, file: str, local: str, *names: str) -> Any:
    """What the nearest function of a file has in that local, under these names, one in another."""
    while frame is not None:
        if frame.f_code.co_filename == file:
            found = frame.f_locals.get(local)
            for name in names:
                found = getattr(found, name, None)
            if found is not None:
                return found
        frame = frame.f_back
    return None


def redis(frame: FrameType) -> Iterator[Whither]:
    """`cache.url`; and whom the sentinels or the cluster there have named."""

    def of_engine(*names: str) -> Any:
        by_itself = held(frame, ENGINE, "self", *names)
        return by_itself or held(frame, SHARED, "self", "_engine", *names)  # in tasks of its own

    place = of_engine("place")
    if place is None:
        return
    yield from (*place.nodes, place.path)
    if place.kind == "sentinel":
        yield of_engine("_client", "connection_pool", "master_address")
    if place.kind == "cluster":
        named = of_engine("_client", "nodes_manager", "nodes_cache") or {}
        yield from ((one.host, one.port) for one in named.values())


def postgres(frame: FrameType) -> Iterator[Whither]:
    """`vault.url`; and where the driver is connected already."""
    yield _beside(frame)
    url = held(frame, SESSIONS, "self", "_dsn") or held(frame, DATABASE, "url")
    if url is None:
        return
    parts = urlsplit(url)
    more = {name: texts[-1] for name, texts in parse_qs(parts.query).items()}
    for one in (parts.netloc.rpartition("@")[2] or more.get("host", "localhost")).split(","):
        host, _, port = one.rpartition(":") if one[-1:].isdigit() and ":" in one else (one, "", "")
        number = int(port or more.get("port", "5432"))
        yield from ((host.strip("[]"), number), f"{host}/.s.PGSQL.{number}")


def coordinator(frame: FrameType) -> Iterator[Whither]:
    """The socket in the data directory."""
    yield str(held(frame, COMPANION, "self", "_meeting", "path"))


def collector(frame: FrameType) -> Iterator[Whither]:
    """The endpoint of `traces`."""
    endpoint = held(frame, COLLECTOR, "self", "_endpoint")
    if endpoint is not None:
        yield endpoint.host, endpoint.port


def keeper(frame: FrameType) -> Iterator[Whither]:
    """`server.master_key_command`, and no address."""
    yield list(held(frame, KEEPER, "command") or ())


MAY: dict[str, Says | None] = {
    f"{ROOT}/proxy/network.py": None,  # the dialler: it judges every address itself
    ENGINE: redis,
    f"{ROOT}/proxy/cache/redis_commons.py": redis,  # these ask the engine's client, which connects
    f"{ROOT}/proxy/limits/instances.py": redis,
    SHARED: redis,
    f"{ROOT}/proxy/upstream/leases.py": redis,
    SESSIONS: postgres,
    DATABASE: postgres,
    COMPANION: coordinator,
    COLLECTOR: collector,  # from a thread of its own
    KEEPER: keeper,
}
"""Who may go out, and whither."""


# What is seen.

EVENTS: dict[str, Callable[..., Whither]] = {
    "socket.connect": lambda _sock, address: _address(address),
    "socket.sendto": lambda _sock, address: _address(address),
    "socket.sendmsg": lambda _sock, address: _address(address),
    "socket.getaddrinfo": lambda host, port, *_: _address((host, port)),
    "socket.gethostbyname": lambda host: _address((host, 0)),
    "socket.gethostbyaddr": lambda host: _address((host, 0)),
    "socket.getnameinfo": lambda address: _address(address),  # noqa: PLW0108 - it comes below
    "subprocess.Popen": lambda _program, words, *_: _words(words),
    "os.posix_spawn": lambda _program, words, *_: _words(words),
    "os.exec": lambda _program, words, *_: _words(words),
    "os.system": lambda words: _words(words),  # noqa: PLW0108
}
LOOP_METHODS: dict[str, Callable[..., Whither]] = {
    "getaddrinfo": lambda host, port, **_: _address((host, port)),
    "getnameinfo": lambda address, *_, **__: _address(address),
    "sock_connect": lambda _sock, address: _address(address),
    "create_connection": lambda _protocol, host=None, port=None, **_: _address((host, port)),
    "create_unix_connection": lambda _protocol, path=None, **_: _address(path),
    "create_datagram_endpoint": lambda _protocol, *_, remote_addr=None, **__: _address(remote_addr),
    "subprocess_exec": lambda _protocol, *words, **_: _words(words),
    "subprocess_shell": lambda _protocol, words, **_: _words(words),
}
PYTHONS = (asyncio.BaseEventLoop, asyncio.SelectorEventLoop)
REPORTS = "RELAY_TESTS_REPORTS"
"""The variable with the folder where processes that tests start say what they saw."""


def _address(there: Any) -> Whither:
    if isinstance(there, (str, bytes, os.PathLike)):
        return os.fsdecode(there)
    if not isinstance(there, tuple):
        return None
    host, port = there[:2]
    return _text(host), int(port) if str(port).isdigit() else 0


def _words(words: Any) -> Whither:
    return [_text(words)] if isinstance(words, (str, bytes)) else list(map(_text, words))


def _text(words: Any) -> str:
    return os.fsdecode(words) if isinstance(words, bytes) else str(words)


class Watch:
    """What was seen in this process. `strict`: whatever nobody of the project did is foreign."""

    def __init__(self, reports: Path, strict: bool = False) -> None:
        self.allowed: Counter[str] = Counter()
        self.foreign: list[str] = []
        self.reports = reports
        self._strict = strict
        self._uvloop = False
        self._own = threading.local()

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        """For sys.addaudithook."""
        if event in EVENTS:
            self._saw(event, args)
        elif event == "import" and not self._uvloop and "uvloop" in sys.modules:
            self.watch_uvloop()

    def watch_uvloop(self) -> None:
        """Its loop connects and resolves in C."""
        loop = getattr(sys.modules.get("uvloop"), "Loop", None)
        if loop is not None and not self._uvloop:
            self._uvloop = True
            self.watch_loop(loop)

    def watch_loop(self, loop: Any) -> None:
        """Look-ups go on in other threads, where the stack tells nothing."""
        for name in LOOP_METHODS:
            if loop not in PYTHONS or name in vars(loop):  # the rest is done by Python's sockets
                setattr(loop, name, self._watched(name, getattr(loop, name)))

    def _watched(self, name: str, method: Any) -> Any:
        @functools.wraps(method)
        def watched(loop: Any, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("sock") is None:  # else it is connected already
                whither = LOOP_METHODS[name](*args, **kwargs)
                self.judge(f"loop.{name}", sys._getframe(1), whither)
            if name == "create_unix_connection" and _innermost(sys._getframe(1)) == COMPANION:
                return method(loop, self._overhearing(args[0]), *args[1:], **kwargs)
            return method(loop, *args, **kwargs)

        return watched

    def _saw(self, event: str, args: tuple[Any, ...]) -> None:
        looked_up = event in ("socket.getaddrinfo", "socket.getnameinfo")
        if looked_up and threading.current_thread().name.startswith("asyncio_"):
            return  # the loop's own thread: seen where the loop was asked
        if event in ("socket.sendto", "socket.sendmsg") and not args[-1]:
            return  # over a connection
        if not getattr(self._own, "looks", False):
            self.judge(event, sys._getframe(2), EVENTS[event](*args))

    def judge(self, event: str, frame: FrameType | None, whither: Whither) -> None:
        """Notes one act by who did it."""
        who = _innermost(frame)
        if who is None and not self._strict:
            return
        if who in MAY and self._is_said(MAY[who], frame, whither):
            self.allowed[who] += 1
            self._report(f"allowed {event} {who}")
        elif who is None or who.startswith(OURS):
            words = f"{event} by {who or 'nobody of the project'}"
            if who in MAY:
                words += f" to {whither}, where the configuration does not say"
            self.foreign.append(words)
            self._report(f"foreign {words}")

    def _is_said(self, says: Says | None, frame: FrameType | None, whither: Whither) -> bool:
        if says is None:
            return isinstance(whither, tuple)
        assert frame is not None
        with self._looking():
            return any(_is_there(whither, place) for place in says(frame))

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """Its own look-ups are nobody's."""
        self._own.looks = True
        try:
            yield
        finally:
            self._own.looks = False

    def _overhearing(self, made: Callable[[], Any]) -> Callable[[], Overheard]:
        """What a worker and the coordinator say is kept for whoever looks for secrets there."""
        return lambda: Overheard(made(), lambda octets: self._keep(f"socket-{os.getpid()}", octets))

    def _report(self, words: str) -> None:
        if self._strict:
            self._keep("dials", f"{words}\n".encode())

    def _keep(self, name: str, octets: bytes) -> None:
        out = os.open(self.reports / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(out, octets)
        os.close(out)


class Overheard(asyncio.Protocol):
    """A protocol of which is known what comes and goes; its transport too, for what it writes."""

    def __init__(self, inner: Any, note: Callable[[bytes], None]) -> None:
        self._inner = inner
        self._note = note
        self._transport: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._inner.connection_made(self)

    def write(self, octets: bytes) -> None:
        self._note(octets)
        self._transport.write(octets)

    def data_received(self, data: bytes) -> None:
        self._note(data)
        self._inner.data_received(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._inner.connection_lost(error)


def _is_there(whither: Whither, place: Whither) -> bool:
    """Whether it is that place; a name that is looked up has no port yet."""
    if not isinstance(whither, tuple) or not isinstance(place, tuple):
        return whither is not None and whither == place
    (host, port), (name, number) = whither, place
    return port in (0, number) and (host == name or host in _addresses(name))


@functools.cache
def _addresses(name: str) -> frozenset[str]:
    try:
        return frozenset(str(found[4][0]) for found in socket.getaddrinfo(name, None))
    except OSError:
        return frozenset()


def _innermost(frame: FrameType | None) -> str | None:
    """The file of the project that stands nearest; a test's own dialler counts as the test's."""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(ROOT) and "/.venv/" not in name and name != __file__:
            return name
        if _is_beside(frame):
            return SESSIONS
        frame = frame.f_back
    return None


def _is_beside(frame: FrameType) -> bool:
    file, function = CANCEL
    return frame.f_code.co_name == function and frame.f_code.co_filename.endswith(file)


def _beside(frame: FrameType | None) -> Whither:
    """The server that the driver is connected to."""
    while frame is not None and not _is_beside(frame):
        frame = frame.f_back
    return None if frame is None else frame.f_locals["addr"]


def begin(reports: Path, strict: bool = False) -> Watch:
    """Watches this process to its end."""
    watch = Watch(reports, strict)
    for loop in PYTHONS:
        watch.watch_loop(loop)
    watch.watch_uvloop()
    sys.addaudithook(watch.hook)
    return watch
