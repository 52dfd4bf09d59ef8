"""What one connection of a caller takes in, and how long it waits: octet by octet."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from proxy.patience import Waits
from proxy.protocol import MAX_PIPELINED, PIECE, RelayProtocol

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
OK = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}


class Socket(asyncio.Transport):
    """A connection's other end: what is written, and whether octets are wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.unsent = 0
        self.reads = True
        self.ended = asyncio.Event()

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.ended.is_set()

    def write(self, data: Any) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def close(self) -> None:
        self.ended.set()

    abort = close

    def can_write_eof(self) -> bool:
        return False


class Answering:
    """An application that answers one call after the other, each when it is told to."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.turns = asyncio.Semaphore(0)
        self.idle = asyncio.Event()

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        self.idle.set()
        await self.turns.acquire()
        await send(OK)
        await send({"type": "http.response.body"})

    async def asked(self) -> None:
        """Until the next call has come."""
        async with asyncio.timeout(10):
            await self.idle.wait()
        self.idle.clear()


@pytest.fixture
def app() -> Answering:
    return Answering()


@pytest.fixture
async def one(app: Answering) -> AsyncIterator[RelayProtocol]:
    one = connection(app, Waits())
    yield one
    one.connection_lost(None)
    for task in one.tasks:
        task.cancel()
    await asyncio.gather(*one.tasks, return_exceptions=True)


def connection(app: Answering, waits: Waits) -> RelayProtocol:
    config = Config(cast(Any, app), log_config=None)
    config.load()
    made = RelayProtocol(config=config, server_state=ServerState(), app_state={}, waits=waits)
    made.connection_made(Socket())
    return made


def other_end(one: RelayProtocol) -> Socket:
    return cast(Socket, one.transport)


async def test_a_flood_of_pipelined_calls_is_not_taken_in(
    one: RelayProtocol, app: Answering
) -> None:
    """An answer makes room for a call, not for all that came with one read; none is lost."""
    calls = 5000
    flood = b"".join(GET % number for number in range(calls))
    most = PIECE // len(GET) + MAX_PIPELINED + 1
    one.data_received(flood[:-9])
    one.data_received(flood[-9:])  # what was under way when reading was paused
    for number in range(calls):
        await app.asked()
        assert len(one.pipeline) <= most
        assert other_end(one).reads == (len(one.pipeline) < MAX_PIPELINED)
        assert app.paths[number] == f"/{number}"
        app.turns.release()
    while one.tasks:
        await asyncio.sleep(0)
    assert other_end(one).written.count(b"HTTP/1.1 200 ") == calls
    assert other_end(one).reads


async def test_what_is_no_http_behind_a_flood_ends_the_connection(
    one: RelayProtocol, app: Answering
) -> None:
    """Once it is its turn to be read; whoever waits behind it is not answered."""
    one.data_received(b"".join(GET % number for number in range(2000)) + b"JUNK\r\n\r\n")
    for _ in range(2000):
        app.turns.release()
    async with asyncio.timeout(10):
        await other_end(one).ended.wait()
    await asyncio.gather(*one.tasks)
    assert 1000 < len(app.paths) < 2000


async def test_a_call_that_is_lost_at_once_is_not_begun(one: RelayProtocol, app: Answering) -> None:
    """What follows in the same packet is no HTTP."""
    one.data_received(GET % 0 + b"JUNK\r\n\r\n")
    await asyncio.gather(*one.tasks)
    assert other_end(one).is_closing()
    assert app.paths == []


async def test_a_deaf_caller_is_cut_though_its_body_came_to_an_end(app: Answering) -> None:
    """The end of the request is no progress in reading the answer."""
    one = connection(app, Waits(answer=0.01))
    one.data_received(b"POST /0 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na")
    await app.asked()
    other_end(one).unsent = 1 << 20
    one.pause_writing()
    one.data_received(b"b")
    async with asyncio.timeout(10):
        await other_end(one).ended.wait()
    one.connection_lost(None)
    app.turns.release()
    await asyncio.gather(*one.tasks)


async def test_a_header_that_we_do_not_read_on_is_not_late(app: Answering) -> None:
    """Half a header behind a full queue waits for us, not for the caller."""
    waits = Waits(header=0.01)
    one, silent = connection(app, waits), connection(app, waits)
    one.data_received(b"".join(GET % number for number in range(MAX_PIPELINED + 1)) + b"GET /x")
    async with asyncio.timeout(10):
        await other_end(silent).ended.wait()  # by now the wait has passed
    assert not other_end(one).is_closing()
    for each in (one, silent):
        each.connection_lost(None)
    app.turns.release()
    await asyncio.gather(*one.tasks)


@pytest.mark.parametrize("sent", [b"", b"GET /x HTTP/1.1\r\n", GET % 0])
async def test_what_has_ended_is_gone_without_the_collector(app: Answering, sent: bytes) -> None:
    """A flood of connections leaves nothing that waits for a collector that seldom looks."""
    gc.collect()
    gc.disable()
    try:
        one = connection(app, Waits())
        if sent:
            one.data_received(sent)
        if sent == GET % 0:
            await app.asked()
            app.turns.release()
            await asyncio.gather(*one.tasks)
            await asyncio.sleep(0)  # in which the task's end is told
        one.connection_lost(None)
        seen = weakref.ref(one)
        del one
        for _ in range(3):
            await asyncio.sleep(0)
        assert seen() is None
    finally:
        gc.enable()
