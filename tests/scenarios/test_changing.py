"""A server in a process of its own: its configuration changes, and it goes down in time."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.clock import SystemClock
from tests.support.caller import Answered, Caller, call
from tests.support.command import command
from tests.support.origin import Exchange, Origin, reply
from tests.support.process import COMMAND, Served, environment, served
from vault import open_vault

KEYS = {"FIRST": "sk-first-0123456789abcdefghij", "SECOND": "sk-second-0123456789abcdefghi"}


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with Origin(reply(200, [], b"answer")) as one:
        yield one


@pytest.fixture
def data(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    return data


def configure(data: Path, origin: Origin, key: str, more: str = "") -> None:
    """As a careful editor writes: beside it, then over it."""
    beside = data / ".keys.new"
    beside.write_text(
        f"services: {{openai: {{origin: '{origin.url}'}}}}\nkeys: {{openai: '{key}'}}\n{more}"
    )
    beside.rename(data / "keys.yaml")


async def issue(data: Path) -> str:
    ended = await command(data, "token", "issue", "caller", **KEYS)
    assert ended.code == 0, ended.err
    return ended.out.strip()


async def ask(server: Served, origin: Origin, token: str) -> Answered:
    target = f"/proxy?server={origin.url}/v1&service=openai"
    return await call(server.url, "GET", target, ("Authorization", f"Bearer {token}"))


async def sent_key(server: Served, origin: Origin, token: str) -> str | None:
    await ask(server, origin, token)
    return origin.last.header("authorization") if origin.requests else None


async def said(server: Served, words: str) -> None:
    async with asyncio.timeout(20):
        while not any(words in line for line in server.said):
            await asyncio.sleep(0.05)


async def until_sent(server: Served, origin: Origin, token: str, key: str) -> None:
    async with asyncio.timeout(20):
        while await sent_key(server, origin, token) != f"Bearer {key}":
            await asyncio.sleep(0.05)


async def test_a_changed_file_is_taken_up(data: Path, origin: Origin) -> None:
    """By an atomic rename, without a signal or a restart."""
    await command(data, "init")
    configure(data, origin, "${FIRST}")
    token = await issue(data)
    async with served(data, **KEYS) as server:
        await until_sent(server, origin, token, KEYS["FIRST"])
        configure(data, origin, "${SECOND}", "server: {port: 9999}\n")
        await until_sent(server, origin, token, KEYS["SECOND"])
        await said(server, "only after a restart: server.port")
    assert not any(key in "".join(server.said) for key in KEYS.values())


async def test_a_mistake_is_in_the_log_and_all_stays(data: Path, origin: Origin) -> None:
    """The file, the place in it, what was expected; then the mended file is taken up."""
    await command(data, "init")
    configure(data, origin, "${FIRST}")
    token = await issue(data)
    async with served(data, **KEYS) as server:
        await until_sent(server, origin, token, KEYS["FIRST"])
        configure(data, origin, "${GONE}")
        await said(server, "keys.yaml: keys.openai: expected the environment variable GONE")
        assert await sent_key(server, origin, token) == f"Bearer {KEYS['FIRST']}"
        configure(data, origin, "${SECOND}")
        await until_sent(server, origin, token, KEYS["SECOND"])


async def test_a_file_that_never_ends_keeps_neither_a_revocation_nor_the_end(
    data: Path, origin: Origin
) -> None:
    """A pipe in its place: said in the log; the vault's changes go on, and so does SIGTERM."""
    await command(data, "init")
    configure(data, origin, "${FIRST}")
    token = await issue(data)
    async with served(data, **KEYS) as server:
        await until_sent(server, origin, token, KEYS["FIRST"])
        os.mkfifo(data / "pipe")
        (data / "pipe").rename(data / "keys.yaml")
        await said(server, "keys.yaml: expected a regular file")
        vault = await open_vault(data, {}, SystemClock(), create=False, actor="test")
        await vault.revoke_token("default", "caller")
        await vault.close()
        async with asyncio.timeout(20):
            while (await ask(server, origin, token)).status != 401:
                await asyncio.sleep(0.05)
        assert await server.stop() == 0


async def test_sighup_reads_it_again(data: Path, origin: Origin) -> None:
    """Whether it has changed or not; the server lives."""
    await command(data, "init")
    configure(data, origin, "${FIRST}")
    async with served(data, **KEYS) as server:
        server.process.send_signal(signal.SIGHUP)
        await said(server, "configuration read: no change")
        assert (await call(server.url, "GET", "/health/live")).status == 200


async def ignores_hangups(process: asyncio.subprocess.Process) -> None:
    """Until SIGHUP is among the signals that the process ignores."""
    async with asyncio.timeout(20):
        while True:
            status = Path(f"/proc/{process.pid}/status").read_text()
            if int(status.partition("SigIgn:")[2].split()[0], 16) & 1:
                return
            await asyncio.sleep(0.005)


async def test_sighup_during_the_start_ends_no_server(data: Path) -> None:
    """It will read the configuration anyway; systemd would not start it again."""
    await command(data, "init")
    process = await asyncio.create_subprocess_exec(
        *(*COMMAND, "--data", str(data), "serve", "--port", "0"),
        stdout=asyncio.subprocess.PIPE,
        env=environment(PYTHONUNBUFFERED="1"),
    )
    try:
        await ignores_hangups(process)
        process.send_signal(signal.SIGHUP)
        assert process.stdout is not None
        assert b"keyrelay listens on" in await asyncio.wait_for(process.stdout.readline(), 30)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Slow:
    """An answer that begins, and ends when the test says so."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.start(200, [("Content-Type", "text/event-stream")])
        await exchange.chunk(b"data: 1\n\n")
        self.begun.set()
        await self.may_end.wait()
        await exchange.chunk(b"data: 2\n\n")
        await exchange.finish()


@asynccontextmanager
async def calling(server: Served, origin: Origin, token: str) -> AsyncIterator[Caller]:
    """A caller that has asked, and reads what comes."""
    caller = await Caller.connect(server.url)
    target = f"/proxy?server={origin.url}/v1&service=openai"
    await caller.request("GET", target, ("Authorization", f"Bearer {token}"))
    try:
        yield caller
    finally:
        await caller.close()


async def busy(server: Served, bearer: tuple[str, str]) -> None:
    """Until a call is being answered for a while."""
    seen = 0
    async with asyncio.timeout(20):
        while seen < 5:
            await asyncio.sleep(0.1)
            told = (await call(server.url, "GET", "/health", bearer)).json()
            seen = seen + 1 if told["calls_in_flight"] else 0


async def refuses(server: Served) -> None:
    """Until nobody is accepted any more."""
    async with asyncio.timeout(20):
        while True:
            try:
                await (await Caller.connect(server.url)).close()
            except ConnectionRefusedError:
                return
            await asyncio.sleep(0.02)


async def test_a_stream_in_flight_ends_as_a_whole(data: Path, origin: Origin) -> None:
    """SIGTERM accepts nobody any more, closes who is idle, and waits for who is served."""
    await command(data, "init")
    configure(data, origin, "${FIRST}")
    token = await issue(data)
    slow = Slow()
    origin.answer_with(slow)
    async with served(data, **KEYS) as server, calling(server, origin, token) as caller:
        idle = await Caller.connect(server.url)
        await asyncio.wait_for(slow.begun.wait(), 10)
        server.process.send_signal(signal.SIGTERM)
        await refuses(server)
        assert await asyncio.wait_for(idle.reader.read(), 10) == b""
        await idle.close()
        await said(server, "keyrelay is stopping; calls in flight: 1")
        slow.may_end.set()
        answer = await caller.reader.read()
        assert answer.endswith(b"data: 2\n\n\r\n0\r\n\r\n")
        assert await asyncio.wait_for(server.process.wait(), 20) == 0
    assert server.said[-1] == "keyrelay has stopped\n"


async def test_who_is_still_served_at_the_deadline_is_cut_and_counted(
    data: Path, origin: Origin
) -> None:
    """A cut answer never looks whole, and the last line says how many there were."""
    await command(data, "init")
    configure(data, origin, "${FIRST}", "server: {shutdown_grace: 0.3s}\n")
    token = await issue(data)
    slow = Slow()
    origin.answer_with(slow)
    async with (
        served(data, **KEYS) as server,
        calling(server, origin, token) as one,
        calling(server, origin, token) as other,
    ):
        for caller in (one, other):
            await asyncio.wait_for(caller.reader.readuntil(b"data: 1\n\n"), 10)
        server.process.send_signal(signal.SIGTERM)
        for caller in (one, other):
            assert b"0\r\n\r\n" not in await asyncio.wait_for(caller.reader.read(), 10)
        assert await asyncio.wait_for(server.process.wait(), 20) == 0
    assert server.said[-1] == "keyrelay has stopped; 2 calls in flight were cut\n"
    assert "calls in flight were cut: 2" in "".join(server.said)
    assert "Traceback" not in "".join(server.said)


async def test_who_does_not_read_keeps_no_server_from_ending(data: Path, origin: Origin) -> None:
    """Not even by a call behind answers that it lets lie: what it is told waits for nobody."""
    await command(data, "init")
    configure(data, origin, "${FIRST}", "server: {shutdown_grace: 0.3s}\n")
    issued = await command(data, "token", "issue", "ada", "--role", "admin", **KEYS)
    bearer = ("Authorization", f"Bearer {issued.out.strip()}")
    kept = "/proxy/openai/cache=4102444800/-/v1/large"
    origin.answer_with(reply(200, [], b"x" * 900_000))
    async with served(data, **KEYS) as server:
        deaf = await Caller.connect(server.url)
        for _ in range(8):  # more than sockets hold
            await deaf.request("GET", kept, bearer)
        await busy(server, bearer)
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(server.process.wait(), 20) == 0
        deaf.writer.transport.abort()
    assert server.said[-1] == "keyrelay has stopped; 1 call in flight was cut\n"


async def test_a_page_in_flight_at_the_deadline_is_told_so(data: Path, origin: Origin) -> None:
    """Whoever has sent half a body hears why, and the log knows of no fault."""
    await command(data, "init")
    configure(data, origin, "${FIRST}", "server: {shutdown_grace: 0.3s}\n")
    ended = await command(data, "token", "issue", "ada", "--role", "admin", **KEYS)
    async with served(data, **KEYS) as server, await Caller.connect(server.url) as caller:
        bearer = f"Authorization: Bearer {ended.out.strip()}".encode()
        kind = b"Content-Type: application/json\r\nContent-Length: 9\r\nExpect: 100-continue"
        lines = (b"POST /admin/api/v1/tokens HTTP/1.1", b"Host: a", bearer, kind, b"", b"{")
        await caller.send(b"\r\n".join(lines))
        assert (await caller.head()).status == 100  # the body is being read
        server.process.send_signal(signal.SIGTERM)
        assert (await caller.answer()).status == 503
        assert await asyncio.wait_for(server.process.wait(), 20) == 0
    assert server.said[-1] == "keyrelay has stopped; 1 call in flight was cut\n"
    assert "ASGI" not in "".join(server.said)


async def test_an_answer_that_begins_late_closes_its_connection(data: Path, origin: Origin) -> None:
    """So that the caller does not use it again."""
    await command(data, "init")
    configure(data, origin, "${FIRST}")
    token = await issue(data)
    asked, answer = asyncio.Event(), asyncio.Event()

    async def late(exchange: Exchange) -> None:
        asked.set()
        await answer.wait()
        await exchange.reply(200, [], b"late")

    origin.answer_with(late)
    async with served(data, **KEYS) as server, calling(server, origin, token) as caller:
        await asyncio.wait_for(asked.wait(), 10)
        server.process.send_signal(signal.SIGTERM)
        await said(server, "keyrelay is stopping")
        answer.set()
        head = await caller.head()
        assert (head.status, head.header("connection")) == (200, "close")
        assert await asyncio.wait_for(server.process.wait(), 20) == 0
