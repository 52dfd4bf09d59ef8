"""Callers that are slow, silent or deaf: cut in time, and nobody else is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest

from proxy.patience import Waits
from tests.support.origin import Exchange, Origin
from tests.support.relay import Running, running_relay

SHORT = Waits(header=0.3, body=0.3, answer=0.3, idle=0.3)


class Caller:
    """One connection, octet by octet."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def of(cls, up: Running) -> Caller:
        port = int(up.url.rpartition(":")[2])
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 26))

    def say(self, octets: bytes) -> None:
        self.writer.write(octets)

    async def rest(self) -> bytes:
        """All until the server closes; a reset is a close."""
        async with asyncio.timeout(20):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    async def hang_up(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Running]:
    async with running_relay(tmp_path, waits=SHORT) as running:
        yield running


@pytest.fixture
async def caller(up: Running) -> AsyncIterator[Caller]:
    one = await Caller.of(up)
    yield one
    await one.hang_up()


async def test_a_connection_that_says_nothing_is_closed_without_a_word(caller: Caller) -> None:
    """A header is due from the connection on."""
    assert await caller.rest() == b""


async def test_half_a_header_is_answered_408(caller: Caller) -> None:
    """RFC 9110 section 15.5.9."""
    caller.say(b"GET /health/live HTTP/1.1\r\nHost: a\r\nX-Slow: ")
    answer = await caller.rest()
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b'"code":"request_too_slow"' in answer


async def test_dripping_a_header_does_not_prolong_it(caller: Caller) -> None:
    """The deadline is that of the whole header, whatever comes meanwhile."""

    async def drip() -> None:
        caller.say(b"GET / HTTP/1.1\r\nHost: a\r\n")
        while True:
            caller.say(b"X-A: b\r\n")
            await caller.writer.drain()
            await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    assert b" 408 " in await caller.rest()
    dripping.cancel()
    await asyncio.wait([dripping])


async def test_a_body_that_stops_is_answered_408(caller: Caller, up: Running) -> None:
    """Nothing came for a while, and more was announced."""
    target = "/proxy?server=" + quote("https://api.openai.com/v1/x", safe="")
    await up.add_key("openai", key="sk-0123456789abcdef")
    caller.say(
        f"POST {target}&cache=1893456000 HTTP/1.1\r\nHost: a\r\n"
        f"Authorization: Bearer {up.token}\r\nContent-Length: 9\r\n\r\nhalf".encode()
    )
    assert (await caller.rest()).startswith(b"HTTP/1.1 408 ")


async def test_an_idle_connection_is_closed_after_its_answer(caller: Caller) -> None:
    """The next call is waited for, but not for ever."""
    caller.say(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = await caller.rest()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1") == 1


async def test_a_slow_upstream_is_no_fault_of_the_caller(tmp_path: Path) -> None:
    """Whoever waits for us is not timed."""
    go = asyncio.Event()

    async def late(exchange: Exchange) -> None:
        await go.wait()
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    waits = Waits(header=0.05, body=0.05, answer=0.05, idle=60)
    async with (
        Origin([late]) as origin,
        running_relay(
            tmp_path, {"local": {"in": "header", "origin": origin.url}}, waits=waits
        ) as up,
    ):
        await up.add_key("local", key="sk-0123456789abcdef")
        caller, silent = await Caller.of(up), await Caller.of(up)
        caller.say(
            f"GET /proxy?server={quote(origin.url, safe='')}&service=local HTTP/1.1\r\nHost: a\r\n"
            f"Authorization: Bearer {up.token}\r\n\r\n".encode()
        )
        assert await silent.rest() == b""  # by now each of the waits has passed
        await silent.hang_up()
        go.set()
        assert b" 200 OK" in await caller.reader.readuntil(b"ok")
        await caller.hang_up()


async def test_a_caller_that_does_not_read_is_cut(tmp_path: Path) -> None:
    """What it has asked for must not fill our memory for ever."""

    ended = asyncio.Event()

    async def endless(exchange: Exchange) -> None:
        try:
            await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            while True:
                await exchange.send(b"x" * (1 << 20))
        except ConnectionError:
            ended.set()

    async with (
        Origin([endless]) as origin,
        running_relay(
            tmp_path, {"local": {"in": "header", "origin": origin.url}}, waits=SHORT
        ) as up,
    ):
        await up.add_key("local", key="sk-0123456789abcdef")
        caller = await Caller.of(up)
        caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
        caller.say(
            f"GET /proxy?server={quote(origin.url, safe='')}&service=local HTTP/1.1\r\nHost: a\r\n"
            f"Authorization: Bearer {up.token}\r\n\r\n".encode()
        )
        await asyncio.wait_for(ended.wait(), 20)
        await caller.hang_up()


async def test_who_still_sends_gets_the_whole_refusal(caller: Caller) -> None:
    """RFC 9112 section 9.6: what comes behind our last words is read, so no reset takes them."""
    caller.say(
        b"POST /proxy?server=https://api.openai.com/ HTTP/1.1\r\nHost: a\r\n"
        b"Connection: close\r\nContent-Length: 4000000\r\n\r\n"
    )
    for _ in range(40):
        caller.say(bytes(100_000))
        await caller.writer.drain()
    answer = await caller.rest()
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b'"code":"unauthorized"' in answer


async def test_a_call_refused_before_its_body_came_leaves_no_connection_behind(
    caller: Caller,
) -> None:
    """The rest of the body is let go of, and then the next call is waited for as ever."""
    caller.say(b"POST /proxy/x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nha")
    answer = await caller.reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 401 ")
    caller.say(b"lf")
    assert b'"code":"unauthorized"' in await caller.rest()
