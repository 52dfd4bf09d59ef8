"""Who comes to a TLS port and never agrees, agrees on nothing good, or leaves without a word.

On both event loops: production's and the standard one, which do TLS differently.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from proxy import patience
from proxy.certificate import Certificate
from proxy.patience import Waits
from tests.support.certificates import trusting, write_pair
from tests.support.origin import Exchange, Handler, Origin
from tests.support.programs import need
from tests.support.relay import Running, running_relay

SHORT = Waits(header=1.5, body=1.5, answer=1.5, idle=1.5)
LOOPS = (asyncio.new_event_loop, uvloop.new_event_loop)
CALL = b"%b /proxy/openai/v1/x HTTP/1.1\r\nHost: a\r\nX-Relay-Token: %b\r\n%b\r\n"


class Stranger:
    """One connection on which TLS is spoken by hand: `tls` says how, or not at all."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._come, self._go = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.layer: ssl.SSLObject | None = None

    def hello(self, context: ssl.SSLContext) -> bytes:
        """The first octets of a client."""
        self.layer = context.wrap_bio(self._come, self._go, server_hostname="localhost")
        with contextlib.suppress(ssl.SSLWantReadError):
            self.layer.do_handshake()
        return self._go.read()

    async def agree(self, context: ssl.SSLContext) -> None:
        """The whole handshake; raises SSLError."""
        self.writer.write(self.hello(context))
        assert self.layer is not None
        while True:
            try:
                self.layer.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.writer.write(self._go.read())
                if octets := await self.reader.read(65536):
                    self._come.write(octets)
                else:
                    self._come.write_eof()
        self.writer.write(self._go.read())

    def say(self, octets: bytes) -> None:
        """Under TLS."""
        assert self.layer is not None
        self.layer.write(octets)
        self.writer.write(self._go.read())

    async def hear(self) -> bytes:
        """What comes next, under TLS; empty at its end."""
        assert self.layer is not None
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                return self.layer.read(65536)
            if not (octets := await self.reader.read(65536)):
                return b""
            self._come.write(octets)

    async def rest(self) -> bytes:
        """All octets until the server closes; a reset is a close."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read()
        return b""

    def leave(self) -> None:
        """Without a word of TLS."""
        self.writer.close()


@asynccontextmanager
async def stranger(up: Running) -> AsyncIterator[Stranger]:
    port = int(up.url.rpartition(":")[2])
    one = Stranger(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield one
    finally:
        one.leave()


def old(context: ssl.SSLContext, most: ssl.TLSVersion, ciphers: str) -> ssl.SSLContext:
    """A client of other times."""
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = most
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    return context


async def drip(one: Stranger, octets: bytes) -> None:
    """One by one, as long as anybody listens."""
    for octet in octets:
        one.writer.write(bytes([octet]))
        with contextlib.suppress(ConnectionError):
            await one.writer.drain()
        if one.reader.at_eof() or one.writer.is_closing():
            return
        await asyncio.sleep(0.05)  # how it drips, not an order


def never_agreeing(tls: Callable[[], ssl.SSLContext]) -> dict[str, Callable[[Stranger], bytes]]:
    """What each says first; then it waits."""

    def hello(one: Stranger) -> bytes:
        return one.hello(tls())

    def ancient(one: Stranger) -> bytes:
        return one.hello(old(tls(), ssl.TLSVersion.TLSv1_1, "ALL"))

    def weak(one: Stranger) -> bytes:
        return one.hello(old(tls(), ssl.TLSVersion.TLSv1_2, "NULL"))

    return {
        "nothing": lambda _: b"",
        "an octet": lambda _: b"\x16",
        "half a hello": lambda one: hello(one)[:100],
        "a hello, and no more": hello,
        "a hello, and junk": lambda one: hello(one) + b"\x17\x03\x03\x00\x05aaaaa" * 3,
        "a hello twice": lambda one: hello(one) * 2,
        "the beginning of a long record": lambda _: b"\x16\x03\x01\xff\xff" + b"\1" * 100,
        "plain HTTP": lambda _: b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n",
        "the PROXY protocol": lambda _: b"PROXY TCP4 192.0.2.1 192.0.2.2 5 80\r\n",
        "SSL 2": lambda _: bytes.fromhex("802e0100020015000000100100800200800600400400800700c0"),
        "TLS 1.1": ancient,
        "no encryption": weak,
    }


@asynccontextmanager
async def quietly(
    folder: Path, caplog: pytest.LogCaptureFixture, services: dict[str, object] | None = None
) -> AsyncIterator[tuple[Running, Callable[[], ssl.SSLContext]]]:
    """A server with TLS. At its end all are gone who were counted, and the log had no reason to
    tell of it."""
    caplog.set_level(logging.WARNING)
    pair = write_pair(folder)
    certificate = Certificate(pair)
    async with running_relay(folder / "data", services, waits=SHORT, certificate=certificate) as up:
        yield up, lambda: trusting(pair)
        door = up.extra["door"]
        while door.arrivals.open:  # the test's own time bounds that
            await asyncio.sleep(0.01)
        assert door.arrivals == (0, {"total": 0, "address": 0})
    assert [record.getMessage() for record in caplog.records] == []


@asynccontextmanager
async def answering(
    folder: Path, caplog: pytest.LogCaptureFixture, answer: Handler
) -> AsyncIterator[tuple[Running, Callable[[], ssl.SSLContext], Origin]]:
    """The same before an upstream."""
    async with (
        Origin([answer]) as origin,
        quietly(folder, caplog, {"openai": {"origin": origin.url}}) as (up, tls),
    ):
        await up.add_key("openai", key="sk-0123456789abcdef")
        yield up, tls, origin


def on(loop: Callable[[], asyncio.AbstractEventLoop], what: Awaitable[None]) -> None:
    """To its end, on a loop of its own."""

    async def bounded() -> None:
        async with asyncio.timeout(50):
            await what

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(bounded())


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize("loop", LOOPS)
def test_who_never_agrees_is_closed_in_time(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Whatever they say, old and weak versions of TLS too: nobody gets a word of HTTP, and whoever
    speaks TLS is answered beside them."""

    async def all_of_them() -> None:
        async with quietly(tmp_path, caplog) as (up, tls):
            said = never_agreeing(tls)
            heard: dict[str, bytes] = {}
            beside = asyncio.Barrier(len(said) + 2)

            async def one(name: str, first: Callable[[Stranger], bytes]) -> None:
                async with stranger(up) as one:
                    await beside.wait()
                    one.writer.write(first(one))
                    heard[name] = await one.rest()

            async def dripping() -> None:
                async with stranger(up) as one:
                    await beside.wait()
                    dripper = asyncio.create_task(drip(one, one.hello(tls())))
                    heard["a hello, drop by drop"] = await one.rest()
                    dripper.cancel()
                    await asyncio.wait([dripper])

            async with asyncio.TaskGroup() as group:
                for name, first in said.items():
                    group.create_task(one(name, first))
                group.create_task(dripping())
                async with stranger(up) as good:
                    await beside.wait()
                    await good.agree(tls())
                    good.say(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
                    assert (await good.hear()).startswith(b"HTTP/1.1 200 ")
            assert len(heard) == len(said) + 1
            assert [name for name, octets in heard.items() if b"HTTP" in octets] == []

    on(loop, all_of_them())


@pytest.mark.parametrize("loop", LOOPS)
def test_the_deadlines_hold_under_tls(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    loop: Callable[[], asyncio.AbstractEventLoop],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a header, dripped or not, of a body that stops, of idling and of an answer that nobody
    takes."""
    monkeypatch.setattr(patience, "LAST_SECONDS", 0.6)
    ended = asyncio.Event()

    async def endless(exchange: Exchange) -> None:
        try:
            await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            while True:
                await exchange.send(b"x" * (1 << 20))
        except ConnectionError:
            ended.set()

    async def all_of_them() -> None:
        async with answering(tmp_path, caplog, endless) as (up, tls, _):
            token = up.token.encode()

            async def late(first: bytes, then: bytes = b"") -> bytes:
                async with stranger(up) as one:
                    await one.agree(tls())
                    one.say(first) if first else None
                    dripping = asyncio.create_task(dripped(one, then))
                    heard = b""
                    while octets := await heard_by(one):
                        heard += octets
                    dripping.cancel()
                    await asyncio.wait([dripping])
                    return heard

            async def deaf() -> None:
                async with stranger(up) as one:
                    await one.agree(tls())
                    one.say(CALL % (b"GET", token, b""))
                    await ended.wait()

            *heard, _ = await asyncio.gather(
                late(b""),
                late(b"GET / HTTP/1.1\r\nHost: a\r\nX"),
                late(b"GET / HTTP/1.1\r\nHost: a\r\n", b"X-A: b\r\n"),
                late(CALL % (b"POST", token, b"Content-Length: 9\r\n") + b"half"),
                late(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"),
                deaf(),
            )
            lines = [octets.partition(b"\r\n")[0] for octets in heard]
            late_line = b"HTTP/1.1 408 Request Timeout"
            assert lines == [b"", late_line, late_line, late_line, b"HTTP/1.1 200 OK"]
            assert [octets.count(b"HTTP/1.1 ") for octets in heard] == [0, 1, 1, 1, 1]

    on(loop, all_of_them())


async def dripped(one: Stranger, octets: bytes) -> None:
    while octets:
        one.say(octets)
        await asyncio.sleep(0.05)  # how it drips, not an order


async def heard_by(one: Stranger) -> bytes:
    with contextlib.suppress(ConnectionError, ssl.SSLZeroReturnError):
        return await one.hear()
    return b""


@pytest.mark.parametrize("loop", LOOPS)
def test_who_leaves_without_a_word_of_tls_is_gone(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """No close_notify, in the handshake, a header, a body or an answer: the call ends upstream too,
    and half a body is no body."""
    begun, gone = asyncio.Event(), asyncio.Event()

    async def endless(exchange: Exchange) -> None:
        await exchange.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"
        )
        begun.set()
        await exchange.hung_up()
        gone.set()

    async def all_of_them() -> None:
        async with answering(tmp_path, caplog, endless) as (up, tls, origin):
            token = up.token.encode()
            async with stranger(up) as one:
                one.writer.write(one.hello(tls()))
            half = CALL % (b"POST", token, b"Content-Length: 9\r\nExpect: 100-continue\r\n")
            for octets in (b"", b"GET / HTTP/1.1\r\nHost", half + b"half"):
                async with stranger(up) as one:
                    await one.agree(tls())
                    one.say(octets) if octets else None
            async with stranger(up) as one:
                await one.agree(tls())
                one.say(CALL % (b"GET", token, b""))
                await begun.wait()
            await gone.wait()
            assert [request.method for request in origin.requests] == ["GET"]

    on(loop, all_of_them())


@pytest.mark.parametrize("loop", LOOPS)
def test_nobody_agrees_anew(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    loop: Callable[[], asyncio.AbstractEventLoop],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TLS 1.2 lets a client begin a handshake on a connection again and again, at our cost."""
    openssl = need("openssl")
    monkeypatch.setattr(patience, "LAST_SECONDS", 0.6)

    async def renegotiate() -> None:
        async with quietly(tmp_path, caplog) as (up, tls):
            place = up.url.removeprefix("https://")
            command = (openssl, "s_client", "-connect", place, "-tls1_2")
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            words = b""
            process.stdin.write(b"R\n")
            while octets := await process.stdout.read(65536):
                words += octets
            process.stdin.close()
            await process.wait()
            assert b"RENEGOTIATING" in words
            async with stranger(up) as good:
                await good.agree(tls())

    on(loop, renegotiate())
