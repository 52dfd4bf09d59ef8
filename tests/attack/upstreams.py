"""Hostile upstreams: every way to answer more, less or else than was asked, on kept connections.

Two tenants call at once through one relay. Every answer is checked octet for octet: it is either
the call's own (whole, or visibly cut), or a refusal of ours that holds nothing of the upstream.
"""

from __future__ import annotations

import asyncio
import random
import select
import socket
import struct
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.attack.outcome import Outcome
from tests.support.caller import Answered, Caller
from tests.support.origin import LAST_CHUNK, chunk, head, reply
from tests.support.relay import Running, running_relay

TENANTS = ("ann", "bob")
KEYS = {tenant: f"sk-CANARY-{tenant}-0123456789abcdef" for tenant in TENANTS}
SETTINGS = "limits: {first_byte_timeout: 5s, idle_timeout: 5s}\n"
LONGEST = 60_000
KEEP = "&cache=4102444800"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
HUNG_UP = (ConnectionError, asyncio.IncompleteReadError)


def mark(name: str) -> bytes:
    """What stands in every octet group of one call's answer, and in no other's."""
    return f"[{name}]".encode()


def body_of(name: str) -> bytes:
    """The one right body of a call."""
    drawn = random.Random(name)
    return mark(name) * drawn.choice((0, 1, 3, 50, 2_000))


class Wire:
    """One connection of the upstream: raw octets out, and every way to end it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self) -> tuple[str, str, str]:
        """Method, the call's name, and how it wants to be answered."""
        raw = await self.reader.readuntil(b"\r\n\r\n")
        line, *fields = raw.decode("latin-1").split("\r\n")
        length = next((f for f in fields if f.lower().startswith("content-length:")), ":0")
        await self.reader.readexactly(int(length.partition(":")[2]))
        method, target, _ = line.split(" ")
        _, _, kind, name = target.split("/")
        return method, name, kind

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            await asyncio.sleep(0)

    @property
    def has_more(self) -> bool:
        """Whether the next request has come, if only into the kernel."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        waiting = select.select([sock.fileno()], [], [], 0)[0]
        return bool(waiting or self.reader._buffer)  # type: ignore[attr-defined]

    def reset(self) -> None:
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def close(self) -> None:
        self.writer.close()


Act = Callable[[Wire, str], Awaitable[bool]]
"""Answers one call; whether the connection is to be read for another."""


def right(name: str) -> bytes:
    return reply(200, [("X-Mark", name)], body_of(name))


def poison(name: str) -> bytes:
    """A whole answer that nobody asked for."""
    return reply(200, [("X-Mark", f"{name}-surplus")], mark(f"{name}-surplus") * 20)


def in_chunks(name: str, size: int = 777) -> list[bytes]:
    body = body_of(name)
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return [head(200, [("X-Mark", name), ("Transfer-Encoding", "chunked")]), *map(chunk, parts)]


async def honest(wire: Wire, name: str) -> bool:
    await wire.send(right(name))
    return True


async def chunks(wire: Wire, name: str) -> bool:
    await wire.send(*in_chunks(name), LAST_CHUNK)
    return True


async def dripped(wire: Wire, name: str) -> bool:
    raw = right(name)
    await wire.send(*(raw[at : at + 1] for at in range(200)), raw[200:])
    return True


async def interim(wire: Wire, name: str) -> bool:
    await wire.send(INTERIM * 3, b"HTTP/1.1 100 Continue\r\n\r\n" + right(name))
    return True


async def until_closed(wire: Wire, name: str) -> bool:
    body = body_of(name)
    await wire.send(b"HTTP/1.0 200 OK\r\nX-Mark: %s\r\n\r\n" % name.encode() + body)
    wire.close()
    return False


async def mislabelled(wire: Wire, name: str) -> bool:
    await wire.send(reply(200, [("X-Mark", name), ("Content-Encoding", "gzip")], body_of(name)))
    return True


async def surplus(wire: Wire, name: str) -> bool:
    await wire.send(right(name) + poison(name))
    return True


async def surplus_apart(wire: Wire, name: str) -> bool:
    await wire.send(right(name), poison(name))
    return True


async def surplus_late(wire: Wire, name: str) -> bool:
    """While the connection is idle; not once the next call has come, whose answer it would be."""
    await wire.send(right(name))
    await asyncio.sleep(0.001)
    if not wire.has_more:
        await wire.send(poison(name))
    return True


async def surplus_of_chunks(wire: Wire, name: str) -> bool:
    await wire.send(b"".join(in_chunks(name)) + LAST_CHUNK + poison(name))
    return True


async def bodies_of_none(wire: Wire, name: str) -> bool:
    await wire.send(head(204, [("X-Mark", name)]) + poison(name))
    return True


async def interim_flood(wire: Wire, name: str) -> bool:
    await wire.send(*[INTERIM * 50] * 40, right(name))
    return True


async def two_lengths(wire: Wire, name: str) -> bool:
    length = len(body_of(name))
    fields = [("Content-Length", str(length)), ("Content-Length", str(length + 9))]
    await wire.send(reply(200, [("X-Mark", name), *fields], body_of(name)) + poison(name))
    return True


async def length_and_chunks(wire: Wire, name: str) -> bool:
    fields = [("Content-Length", "5"), ("Transfer-Encoding", "chunked"), ("X-Mark", name)]
    await wire.send(head(200, fields) + chunk(body_of(name)) + LAST_CHUNK + poison(name))
    return True


async def endless_header(wire: Wire, name: str) -> bool:
    await wire.send(head(200, [("X-Mark", name)])[:-2])
    for number in range(2_000):
        await wire.send(b"X-%d: %s\r\n" % (number, b"a" * 1000))
    return False


async def endless_line(wire: Wire, name: str) -> bool:
    await wire.send(b"HTTP/1.1 200 OK\r\nX-Mark: ", *[b"a" * 60_000] * 40)
    return False


async def endless_body(wire: Wire, name: str) -> bool:
    await wire.send(head(200, [("X-Mark", name), ("Transfer-Encoding", "chunked")]))
    while True:
        await wire.send(chunk(mark(name) * 500))


async def too_long(wire: Wire, name: str) -> bool:
    fields = [("X-Mark", name), ("Content-Length", str(len(body_of(name)) + 10))]
    await wire.send(head(200, fields) + body_of(name))
    wire.close()
    return False


async def broken_chunk(wire: Wire, name: str) -> bool:
    await wire.send(*in_chunks(name), b"zz\r\n" + poison(name))
    return True


async def long_chunk(wire: Wire, name: str) -> bool:
    await wire.send(*in_chunks(name), b"f" * 17 + b"\r\n" + poison(name))
    return True


async def no_last_chunk(wire: Wire, name: str) -> bool:
    await wire.send(*in_chunks(name))
    wire.close()
    return False


async def garbage(wire: Wire, name: str) -> bool:
    await wire.send(random.Random(name).randbytes(300) + right(name))
    return True


async def no_http(wire: Wire, name: str) -> bool:
    await wire.send(mark(name) * 30)
    wire.close()
    return False


async def folded(wire: Wire, name: str) -> bool:
    await wire.send(b"HTTP/1.1 200 OK\r\nX-Mark: a\r\n b\r\nX-\0: 1\r\n\r\n" + poison(name))
    return True


async def reset(wire: Wire, name: str) -> bool:
    raw = b"".join([*in_chunks(name), LAST_CHUNK])
    await wire.send(raw[: random.Random(name).randrange(len(raw))])
    wire.reset()
    return False


async def ended(wire: Wire, name: str) -> bool:
    raw = right(name)
    await wire.send(raw[: random.Random(name).randrange(len(raw))])
    wire.close()
    return False


async def silent_end(wire: Wire, name: str) -> bool:
    wire.close()
    return False


def _named(*acts: Act) -> dict[str, Act]:
    return {act.__name__: act for act in acts}


WHOLE = _named(
    honest, chunks, dripped, interim, until_closed, mislabelled,
    surplus, surplus_apart, surplus_late, surplus_of_chunks,
)  # fmt: skip
"""After these the caller has its whole answer, or one of ours where the connection was lost."""
BROKEN = _named(
    bodies_of_none, interim_flood, two_lengths, length_and_chunks, endless_header, endless_line,
    endless_body, too_long, broken_chunk, long_chunk, no_last_chunk, garbage, no_http, folded,
    reset, ended, silent_end,
)  # fmt: skip
ACTS = WHOLE | BROKEN
HEAVY = ("endless_header", "endless_line", "endless_body", "interim_flood")
KIND = ("honest", "chunks", "interim", "dripped")
"""After these a connection is kept, and may carry the next call, of whichever tenant."""


class Upstream:
    """Keeps every connection, and answers each call as its path says."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Upstream:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        wire = Wire(reader, writer)
        try:
            while await self._answer(wire):
                pass
        except (*HUNG_UP, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, wire: Wire) -> bool:
        method, name, kind = await wire.request()
        self.requests += 1
        if method == "HEAD":  # its answer has no body, whatever comes
            await wire.send(right(name) + poison(name))
            return True
        return await ACTS[kind](wire, name)


@dataclass
class Figures:
    """What came of it. `crossed`: answers that held what was not theirs, each with its call."""

    calls: int = 0
    whole: int = 0
    cut: int = 0
    refused: int = 0
    connections: int = 0
    crossed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)

    def judge(self, name: str, kind: str, method: str, answer: Answered) -> None:
        """One answer against what its call may get."""
        self.calls += 1
        self.kinds[kind] += 1
        told = f"{method} {kind} {name}: {answer.status} {answer.body[:80]!r}"
        if answer.header("content-type") == "application/problem+json":
            self.refused += 1
            if b"[" in answer.body and any(mark_of in answer.body for mark_of in MARKS):
                self.crossed.append(told)
            if answer.status not in (502, 504) or not answer.complete:
                self.wrong.append(told)
            return
        if answer.header("x-mark") != name or not self._own(answer.body, name, kind):
            self.crossed.append(told)
        elif not answer.complete:
            self.cut += 1
            if kind in WHOLE and method != "HEAD":
                self.wrong.append(told)
        else:
            self.whole += 1
            if not self._may_be_whole(answer, name, kind, method):
                self.wrong.append(told)

    def _own(self, body: bytes, name: str, kind: str) -> bool:
        expected = body_of(name)
        if kind == "endless_body":
            expected = mark(name) * (len(body) // len(mark(name)) + 1)
        return expected.startswith(body)

    def _may_be_whole(self, answer: Answered, name: str, kind: str, method: str) -> bool:
        if method == "HEAD" or kind == "bodies_of_none":
            return answer.body == b""
        return kind in WHOLE and answer.body == body_of(name)


MARKS = tuple(f"[{tenant}-".encode() for tenant in TENANTS)


class Tenant:
    """Calls of one tenant over one kept connection of its own, one after the other."""

    def __init__(self, up: Running, upstream: Upstream, tenant: str, token: str) -> None:
        self._up = up
        self._upstream = upstream
        self._tenant = tenant
        self._token = ("Authorization", f"Bearer {token}")
        self._caller: Caller | None = None

    async def work(self, names: asyncio.Queue[tuple[int, str]], figures: Figures) -> None:
        """Until there are no more."""
        while not names.empty():
            number, kind = names.get_nowait()
            name = f"{self._tenant}-{number}"
            method = "HEAD" if number % 17 == 0 else "POST" if number % 3 else "GET"
            figures.judge(name, kind, method, await self._ask(method, name, kind))
        if self._caller is not None:
            await self._caller.close()

    async def _ask(self, method: str, name: str, kind: str) -> Answered:
        caller = self._caller or await Caller.connect(self._up.url)
        self._caller = None
        kept = KEEP if kind not in HEAVY and name.endswith(("0", "5")) else ""
        target = f"/proxy?server={self._upstream.url}/v1/{kind}/{name}&service=openai{kept}"
        body = None if method != "POST" else mark(name) * 5
        await caller.request(method, target, self._token, body=body)
        if kind == "endless_body" and method != "HEAD":
            answer = await self._some(caller)
        else:
            answer = await caller.answer(method)
        if answer.complete:
            self._caller = caller
        else:
            await caller.close()
        return answer

    async def _some(self, caller: Caller) -> Answered:
        """The beginning of an answer that has no end."""
        begun = await caller.head()
        if begun.header("content-length") is not None:
            length = int(begun.header("content-length") or 0)
            octets = await caller.reader.readexactly(length)
            return Answered(begun.status, begun.headers, octets)
        octets = bytearray()
        try:
            while len(octets) < LONGEST:
                octets += await caller.chunk()
        except (*HUNG_UP, ValueError):
            pass
        return Answered(begun.status, begun.headers, bytes(octets), complete=False)


def drawn(calls: int, seed: int) -> list[tuple[int, str]]:
    """Which call is answered how: every way, the costly ones less often."""
    choose = random.Random(seed)
    light = [kind for kind in ACTS if kind not in HEAVY]
    more = (choose.choice(KIND if at % 2 else light) for at in range(calls))
    kinds = [*ACTS, *more][:calls]
    kinds = [choose.choice(HEAVY) if at % 100 == 99 else kind for at, kind in enumerate(kinds)]
    choose.shuffle(kinds)
    return list(enumerate(kinds))


async def attack(data: Path, calls: int, seed: int = 5, abreast: int = 12) -> Figures:
    """So many calls in all, from both tenants at once."""
    figures = Figures()
    async with Upstream() as upstream:
        services = {"openai": {"origin": upstream.url}}
        async with running_relay(data, services, SETTINGS) as up, asyncio.TaskGroup() as group:
            for at, tenant in enumerate(TENANTS):
                await up.add_key("openai", tenant, key=KEYS[tenant])
                token = await up.issue(tenant, tenant)
                names: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
                for one in drawn(calls // len(TENANTS), seed + at):
                    names.put_nowait(one)
                for _ in range(abreast // len(TENANTS)):
                    worker = Tenant(up, upstream, tenant, token)
                    group.create_task(worker.work(names, figures))
        figures.connections = upstream.connections
    return figures


async def outcomes(calls: int = 10_000) -> AsyncIterator[Outcome]:
    """One row."""
    with tempfile.TemporaryDirectory() as folder:
        found = await attack(Path(folder) / "data", calls, random.randrange(10**9))
    told = (
        f"{len(found.kinds)} ways to answer, {found.connections:,} connections: "
        f"{found.whole:,} whole, {found.cut:,} cut, {found.refused:,} refused"
    )
    bad = (*found.crossed, *found.wrong)
    name = "hostile upstreams, two tenants at once"
    yield Outcome(name, found.calls, "calls", len(bad), told, bad[:5])
