"""A body of 1 GB either way, with a receiver that starts late: how much memory it takes."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench import matter
from bench.load import Load
from bench.origin import LATE_SECONDS
from bench.paced import octets
from bench.peers.keyrelay import Install
from bench.processes import forget_peak, peak, resident
from bench.running import BrokenError, Running, running

PIECE = 1 << 20
PATIENCE_SECONDS = 180


@dataclass(frozen=True, slots=True)
class Huge:
    """By how many octets the process grew at most, and how long each way took in seconds."""

    down_grown: int
    down_seconds: float
    up_grown: int
    up_seconds: float


def measure(ready: Install) -> Huge:
    """Down from nginx, then up to the origin, on one fresh server."""
    token = ready.token_field
    down = Load(ready.path("plain", "/huge"), fields=(token,))
    small = Load(ready.path("plain", "/1k"), fields=(token,))
    up = ready.path("origin", "/sink?late")
    with running(ready.program) as server:
        _drain(server, small, 0)
        down_grown, down_seconds = _grown(server, lambda: _drain(server, down, LATE_SECONDS))
        up_grown, up_seconds = _grown(server, lambda: _fill(server, up, token))
    return Huge(down_grown, down_seconds, up_grown, up_seconds)


def _grown(server: Running, work: Callable[[], None]) -> tuple[int, float]:
    before, began = resident(server.pid), time.perf_counter()
    forget_peak(server.pid)
    work()
    return peak(server.pid) - before, time.perf_counter() - began


def _drain(server: Running, load: Load, late: float) -> None:
    """Reads the whole answer; begins so many seconds after the request."""
    with _connect(server) as sock:
        sock.sendall(octets(load, server.port))
        time.sleep(late)
        received = sock.recv(PIECE)
        head, _, body = received.partition(b"\r\n\r\n")
        left = int(head.lower().partition(b"content-length:")[2].split()[0]) - len(body)
        buffer = bytearray(PIECE)
        while left > 0:
            size = sock.recv_into(buffer)
            if not size:
                raise BrokenError(f"an answer was cut {left} octets before its end")
            left -= size


def _fill(server: Running, path: str, token: tuple[str, str]) -> None:
    """Sends 1 GB; the receiver must have counted all of it."""
    sized = Load(path, "POST", (token, ("Content-Length", str(matter.HUGE))))
    head = octets(sized, server.port).replace(b"Content-Length: 0\r\n", b"")
    with _connect(server) as sock:
        sock.sendall(head)
        piece = bytes(PIECE)
        for _ in range(matter.HUGE // PIECE):
            sock.sendall(piece)
        answer = sock.recv(PIECE)
        while not answer.endswith(b"\r\n\r\n%d" % matter.HUGE):
            more = sock.recv(PIECE)
            if not more:
                raise BrokenError(f"the upload was not counted whole: {answer[-200:]!r}")
            answer += more


def _connect(server: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECONDS)
