"""TLS towards callers: the same wire as without it, and a certificate that may change."""

from __future__ import annotations

import asyncio
import signal
import ssl
from pathlib import Path

import httpx
import pytest

from proxy.certificate import Certificate
from proxy.patience import Waits
from tests.support.caller import Caller
from tests.support.certificates import trusting, write_pair
from tests.support.command import command
from tests.support.origin import Exchange, Origin, reply
from tests.support.process import keyrelay, served
from tests.support.relay import running_relay

KEY = "sk-canary-0123456789abcdefghij"
CALL = b"%b /proxy/openai/a%%2Fb?c=%%7e HTTP/1.1\r\nHost: a\r\nX-Relay-Token: %b\r\n%b\r\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    return data


def configure(data: Path, origin: Origin, more: str = "") -> None:
    (data / "keys.yaml").write_text(
        f"services: {{openai: {{origin: '{origin.url}'}}}}\nkeys: {{openai: '${{KEY}}'}}\n{more}"
    )


async def issue(data: Path) -> bytes:
    ended = await command(data, "token", "issue", "caller", KEY=KEY)
    assert ended.code == 0, ended.err
    return ended.out.strip().encode()


async def test_the_wire_is_the_same_with_tls(data: Path) -> None:
    """The raw target, a header that is known, refusals, last words under octets, plain HTTP."""
    pair = write_pair(data.parent)
    tls = trusting(pair)
    async with Origin() as origin:
        origin.answer_with(*[reply(200, [], b"ok")] * 3)
        configure(data, origin)
        options = ("--tls-cert", str(pair.chain), "--tls-key", str(pair.key))
        async with served(data, *options, KEY=KEY) as up:
            assert up.url.startswith("https://127.0.0.1:")
            token = await issue(data)
            async with await Caller.connect(up.url, tls) as caller:
                for body in (b"", b"hello", b"hi"):
                    length = b"Content-Length: %d\r\n" % len(body)
                    await caller.send(CALL % (b"POST", token, length) + body)
                    assert (await caller.answer()).status == 200
                    assert (origin.last.target, origin.last.body) == ("/a%2Fb?c=%7e", body)
                    assert origin.last.header("authorization") == f"Bearer {KEY}"
                await caller.send(b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n")
                assert (await caller.answer()).status == 400
                assert await caller.closed()
            assert len(origin.requests) == 3
            async with await Caller.connect(up.url, tls) as caller:
                close = b"Connection: close\r\nContent-Length: 4000000\r\n"
                await caller.send(CALL % (b"POST", b"kr_nobody", close))
                for _ in range(40):
                    await caller.send(bytes(100_000))
                assert (await caller.answer()).json()["error"]["code"] == "unauthorized"
            async with await Caller.connect(up.url.replace("https", "http")) as caller:
                await caller.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                    await caller.answer()
            old = trusting(pair)
            old.maximum_version = ssl.TLSVersion.TLSv1_2
            async with await Caller.connect(up.url, old) as caller:
                await caller.request("GET", "/health/live")
                assert (await caller.answer()).status == 200
            assert await up.stop() == 0
    assert not [line for line in up.said if "error" in line or "Traceback" in line]


@pytest.mark.parametrize("by_signal", [True, False])
async def test_a_new_certificate_drops_no_call(data: Path, by_signal: bool) -> None:
    """SIGHUP reads it at once, and a changed file shows by itself; a stream goes on as it was."""
    first, second = write_pair(data.parent, "first"), write_pair(data.parent, "second")
    pair = write_pair(data.parent)
    seen = asyncio.Event()

    def put(other: Path, here: Path) -> None:
        beside = here.with_suffix(".new")
        beside.write_bytes(other.read_bytes())
        beside.rename(here)

    async def two_parts(exchange: Exchange) -> None:
        await exchange.start(200, [("Content-Type", "text/event-stream")])
        await exchange.chunk(b"one")
        await exchange.wait(seen)
        await exchange.chunk(b"two")
        await exchange.finish()

    put(first.chain, pair.chain)
    put(first.key, pair.key)
    async with Origin([two_parts]) as origin:
        files = f"server: {{tls_cert: '{pair.chain}', tls_key: '{pair.key}'}}\n"
        configure(data, origin, files)
        async with (
            served(data, KEY=KEY) as up,
            await Caller.connect(up.url, trusting(first)) as caller,
        ):
            await caller.send(CALL % (b"GET", await issue(data), b""))
            assert (await caller.head()).status == 200
            assert await caller.chunk() == b"one"
            put(second.key, pair.key)
            put(second.chain, pair.chain)
            if by_signal:
                up.process.send_signal(signal.SIGHUP)
            async with asyncio.timeout(20):
                while True:
                    try:
                        other = await Caller.connect(up.url, trusting(second))
                        break
                    except ssl.SSLCertVerificationError:
                        await asyncio.sleep(0.05)
            await other.close()
            seen.set()
            assert await caller.chunk() == b"two"
            assert await caller.chunk() == b""


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--tls-cert", "relay.pem"], 2, "--tls-cert and --tls-key belong together"),
        (["--demo", "--tls-cert", "a", "--tls-key", "b"], 2, "--demo speaks plain HTTP"),
        (["--tls-cert", "gone", "--tls-key", "gone"], 1, "gone: no such file or directory"),
    ],
)
async def test_wrong_files_end_the_start(
    data: Path, options: list[str], code: int, words: str
) -> None:
    """With one sentence."""
    ended = await keyrelay(data, "serve", "--port", "0", *options)
    assert (ended.code, ended.err.count("\n")) == (code, 1)
    assert words in ended.err


async def test_a_person_signs_in_over_tls(tmp_path: Path) -> None:
    """The session's cookie has the prefix __Host- and needs TLS: a client sends it back."""
    pair = write_pair(tmp_path)
    async with running_relay(tmp_path / "data", certificate=Certificate(pair)) as up:
        admin = await up.issue("ada", role="admin")
        async with httpx.AsyncClient(base_url=up.url, verify=trusting(pair)) as browser:
            page = {"Origin": up.url, "Sec-Fetch-Site": "same-origin"}
            signed = await browser.post("/admin/login", data={"token": admin}, headers=page)
            assert signed.status_code == 303
            assert [cookie.name for cookie in browser.cookies.jar] == ["__Host-keyrelay"]
            assert (await browser.get("/admin/keys")).status_code == 200


async def test_callers_have_seconds_to_agree_on_tls(tmp_path: Path) -> None:
    """They count from the first moment, and are closed in time; the others' deadlines hold too."""
    pair = write_pair(tmp_path)
    waits = Waits(header=1.5, body=1.5, answer=1.5, idle=1.5)
    settings = "server: {max_connections: 2}"
    async with running_relay(
        tmp_path / "data", settings=settings, waits=waits, certificate=Certificate(pair)
    ) as up:
        plain = up.url.replace("https", "http")
        async with await Caller.connect(plain) as one, await Caller.connect(plain) as two:
            async with await Caller.connect(plain) as third:
                assert await third.closed()
            for caller in (one, two):
                try:
                    await asyncio.wait_for(caller.reader.read(), 20)
                except ConnectionError:
                    continue
        async with asyncio.timeout(20):
            while True:  # what was counted is given back with the end of the connections
                try:
                    caller = await Caller.connect(up.url, trusting(pair))
                    break
                except (ConnectionError, ssl.SSLError):
                    await asyncio.sleep(0.05)
        await caller.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-A")
        assert (await caller.answer()).status == 408
        await caller.close()
