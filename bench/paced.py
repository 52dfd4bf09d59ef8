"""Sends requests at a steady rate, whether answers come or not, and times each one.

wrk sends the next request when an answer has come, so it can't load a server by half. Python's
own costs are in every time: compare two runs at one rate, don't read one alone.
"""

from __future__ import annotations

import gc
import random
import re
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.load import Load
from bench.running import BrokenError

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
PATIENCE_SECONDS = 10.0


def octets(load: Load, port: int) -> bytes:
    """The request as it goes over the wire."""
    body = load.body.read_bytes() if load.body else b""
    fields = [("Host", f"127.0.0.1:{port}"), ("Content-Length", str(len(body))), *load.fields]
    lines = [f"{load.method} {load.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join([*lines, "", ""]).encode() + body


def complete(received: bytes) -> bool:
    """Whether an answer with Content-Length is there as a whole; raises BrokenError for others."""
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return False
    found = LENGTH.search(head + b"\r\n")
    if not head.startswith(b"HTTP/1.1 200 ") or not found:
        raise BrokenError(f"expected 200 with a length: {head[:200]!r}")
    return len(body) >= int(found[1])


def arrivals(rate: float, seconds: float, seed: int = 1) -> Iterator[float]:
    """Seconds from the start at which requests are due, as by independent callers (Poisson)."""
    chance = random.Random(seed)
    due = chance.expovariate(rate)
    while due < seconds:
        yield due
        due += chance.expovariate(rate)


@dataclass(slots=True)
class Line:
    """One connection, and what came on it since `sent`."""

    sock: socket.socket
    sent: float = 0.0
    received: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class Paced:
    """A run against one port; connections are reused, last used first."""

    port: int
    request: bytes
    times: list[float] = field(default_factory=list)
    idle: list[Line] = field(default_factory=list)
    busy: dict[socket.socket, Line] = field(default_factory=dict)

    def run(self, rate: float, seconds: float) -> list[float]:
        """The microseconds that each request took, from its first octet to its answer's last."""
        gc.collect()
        gc.disable()
        try:
            self._send_all(arrivals(rate, seconds))
        finally:
            gc.enable()
            for line in [*self.idle, *self.busy.values()]:
                line.sock.close()
        return self.times

    def flood(self, requests: int, connections: int) -> None:
        """So many requests, each as soon as a connection is free: for counting, not for timing."""
        for _ in range(requests):
            while len(self.busy) >= connections:
                self._receive(PATIENCE_SECONDS)
            self._send()
        while self.busy:
            self._receive(PATIENCE_SECONDS)
        for line in self.idle:
            line.sock.close()

    def _send_all(self, schedule: Iterator[float]) -> None:
        began = time.perf_counter()
        for due in schedule:
            while (left := began + due - time.perf_counter()) > 0:
                self._receive(left)
            self._send()
            self._receive(0)
        deadline = time.perf_counter() + PATIENCE_SECONDS
        while self.busy and time.perf_counter() < deadline:
            self._receive(1)
        if self.busy:
            raise BrokenError(f"{len(self.busy)} requests got no answer")

    def _send(self) -> None:
        line = self.idle.pop() if self.idle else Line(self._connect())
        line.received.clear()
        line.sent = time.perf_counter()
        line.sock.send(self.request)
        self.busy[line.sock] = line

    def _connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def _receive(self, seconds: float) -> None:
        """Takes what has come; `select` waits in microseconds, where `epoll` takes milliseconds."""
        if not self.busy:
            time.sleep(seconds)
            return
        for sock in select.select(list(self.busy), [], [], seconds)[0]:
            line = self.busy[sock]
            data = sock.recv(65536)
            if not data:
                raise BrokenError("a connection was closed before its answer")
            line.received += data
            if complete(bytes(line.received)):
                self.times.append((time.perf_counter() - line.sent) * 1e6)
                del self.busy[sock]
                self.idle.append(line)
