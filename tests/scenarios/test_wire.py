"""What no HTTP client would send: framing, upgrades, old versions, callers that vanish."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.scenarios.conftest import Scene
from tests.support.caller import Caller, call
from tests.support.origin import Exchange, Origin, head, reply
from tests.support.relay import running_relay

LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"


def request(
    scene: Scene, more: bytes = b"", method: bytes = b"POST", version: bytes = b"HTTP/1.1"
) -> bytes:
    """The header of a call with a token."""
    line = b"%s %s %s\r\n" % (method, scene.target().encode(), version)
    return line + b"Host: x\r\nX-Relay-Token: %s\r\n%s\r\n" % (scene.up.token.encode(), more)


async def refused(scene: Scene, raw: bytes) -> int:
    """The status of a refusal that ends the connection; nothing has been forwarded."""
    async with await Caller.connect(scene.up.url) as caller:
        await caller.send(raw)
        answer = await caller.answer()
        assert answer.json()["status"] == answer.status
        assert await caller.closed()
    assert scene.origin.requests == []
    return answer.status


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /proxy\r\n\r\n",
        b"GET /proxy HTTP/1.1\r\n\r\n",
        b"GET /proxy HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /proxy HTTP/2.0\r\nHost: a\r\n\r\n",
        b"POST /proxy HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /proxy HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"POST /proxy HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n" + CHUNKED + b"\r\n",
        b"POST /proxy HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n" + CHUNKED + b"\r\n",
        b"POST /proxy HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n",
    ],
)
async def test_what_two_readers_could_read_differently_is_400(scene: Scene, raw: bytes) -> None:
    """RFC 9112 sections 3.2 and 6: the parser lets some of it through."""
    assert await refused(scene, raw) == 400


@pytest.mark.parametrize(
    "start",
    [
        b"GET /proxy HTTP/1.1\r\nX-A: ",
        b"GET /proxy HTTP/1.1\r\n",
        b"POST /proxy HTTP/1.1\r\nHost: x\r\n" + CHUNKED + b"\r\n1;a=",
    ],
)
async def test_one_endless_field_ends_the_connection(scene: Scene, start: bytes) -> None:
    """The parser would gather it in memory until its end comes."""
    async with await Caller.connect(scene.up.url) as caller:
        await caller.send(start)
        with pytest.raises(ConnectionError):
            for _ in range(1000):
                await caller.send(b"a" * 65536)


async def test_trailers_are_no_fields_of_the_header(scene: Scene) -> None:
    """RFC 9110 section 6.5.1: neither a credential nor forwarded."""
    trailers = b"2\r\nhi\r\n0\r\nX-Trailer: 1\r\n"
    async with await Caller.connect(scene.up.url) as caller:
        await caller.send(request(scene, CHUNKED) + trailers + b"\r\n")
        assert (await caller.answer()).status == 200
    assert scene.origin.last.header("x-trailer") is None
    stranger = request(scene, CHUNKED).replace(b"X-Relay-Token", b"X-Other")
    token = b"X-Relay-Token: " + scene.up.token.encode()
    async with await Caller.connect(scene.up.url) as caller:
        await caller.send(stranger + trailers + token + b"\r\n\r\n")
        assert (await caller.answer()).status == 401


@pytest.mark.parametrize(
    ("framing", "parts", "body"),
    [
        (b"Content-Length: 2\r\n", [b"h", b"i"], b"hi"),
        (b"Content-Length: %d\r\n" % len(LIVE), [LIVE], LIVE),
        (CHUNKED, [b"2\r\nh", b"i\r\n0\r\n\r\n"], b"hi"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
async def test_an_upgrade_that_is_not_made_keeps_its_body(
    scene: Scene, framing: bytes, parts: list[bytes], body: bytes, together: bool
) -> None:
    """RFC 9110 section 7.8; some clients offer h2c by themselves. A body is never a request."""
    sent = [request(scene, UPGRADE + framing), *parts, LIVE]
    async with await Caller.connect(scene.up.url) as caller:
        for part in [b"".join(sent)] if together else sent:
            await caller.send(part)
            await asyncio.sleep(0)
        assert (await caller.answer()).header("via") is not None
        assert (await caller.answer()).json() == {"status": "live"}
    assert scene.origin.last.body == body
    assert scene.origin.last.header("upgrade") is None


async def test_a_websocket_is_501_whatever_follows(scene: Scene) -> None:
    """Frames are not HTTP."""
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    assert await refused(scene, request(scene, upgrade, b"GET") + b"\x81\x05hello") == 501


async def test_connect_is_405_for_callers(scene: Scene) -> None:
    """Its target is an authority, not a path."""
    token = b"X-Relay-Token: " + scene.up.token.encode()
    raw = b"CONNECT api.openai.com:443 HTTP/1.1\r\nHost: x\r\n" + token + b"\r\n\r\n"
    assert await refused(scene, raw) == 405


@pytest.mark.parametrize("cut", [False, True])
async def test_http_1_0_gets_no_chunks(scene: Scene, cut: bool) -> None:
    """The end of the connection ends the answer; a cut one is reset (RFC 9112 section 6.3)."""
    seen = asyncio.Event()

    async def two_parts(exchange: Exchange) -> None:
        await exchange.start(200, [("Content-Type", "text/plain")])
        await exchange.chunk(b"one")
        await exchange.wait(seen)
        await (exchange.close() if cut else exchange.finish())

    scene.origin.answer_with(two_parts)
    async with await Caller.connect(scene.up.url) as caller:
        expect = b"Content-Length: 2\r\nExpect: 100-continue\r\n"
        await caller.send(request(scene, expect, version=b"HTTP/1.0") + b"hi")
        first = await caller.head()
        assert (first.status, first.header("transfer-encoding")) == (200, None)
        assert await caller.reader.readexactly(3) == b"one"
        seen.set()
        if cut:
            with pytest.raises(ConnectionError):
                await caller.reader.read()
        else:
            assert await caller.closed()


async def test_a_hang_up_behind_a_pipelined_call_stops_both(scene: Scene) -> None:
    """The one that is being answered, though another stands in the queue."""
    gone = asyncio.Event()

    async def endless(exchange: Exchange) -> None:
        await exchange.start(200, [("Content-Type", "text/event-stream")])
        await exchange.chunk(b"data: 1\n\n")
        await exchange.hung_up()
        gone.set()

    scene.origin.answer_with(endless)
    async with await Caller.connect(scene.up.url) as caller:
        await caller.send(request(scene, method=b"GET") * 2)
        await caller.head()
    await asyncio.wait_for(gone.wait(), 10)
    assert len(scene.origin.requests) == 1


async def test_a_hang_up_stops_an_answer_that_came_before_the_body_was_read(scene: Scene) -> None:
    """Nobody reads the rest of the body, so nobody would see its end."""
    gone = asyncio.Event()

    async def early(exchange: Exchange) -> None:
        await exchange.start(200, [("Content-Type", "text/event-stream")])
        try:
            while True:
                await exchange.chunk(b"data: 1\n\n")
                await asyncio.sleep(0.001)
        finally:
            gone.set()

    scene.origin.read_body = False
    scene.origin.answer_with(early)
    async with await Caller.connect(scene.up.url) as caller:
        await caller.send(request(scene, b"Content-Length: 1000000\r\n") + b"x" * 1000)
        for _ in range(20):
            caller.writer.write(b"x" * 1000)
            await asyncio.sleep(0.01)
        await caller.head()
        caller.writer.transport.abort()
    await asyncio.wait_for(gone.wait(), 10)


async def test_a_refusal_never_stands_inside_an_answer(scene: Scene) -> None:
    """What is not HTTP, behind a queued call, cuts the answer that has begun."""
    seen = asyncio.Event()

    async def slowly(exchange: Exchange) -> None:
        await exchange.start(200)
        await exchange.chunk(b"one")
        await exchange.wait(seen)

    scene.origin.answer_with(slowly)
    async with await Caller.connect(scene.up.url) as caller:
        await caller.send(request(scene, method=b"GET") * 2)
        await caller.head()
        assert await caller.chunk() == b"one"
        await caller.send(b"JUNK\r\n\r\n")
        assert await caller.closed()
    seen.set()


@pytest.mark.parametrize("status", [204, 304])
async def test_a_length_without_a_body_is_not_passed_on(scene: Scene, status: int) -> None:
    """The connection stays good for the next call."""
    scene.origin.answer_with(head(status, [("Content-Length", "5")]), reply(200, [], b"next"))
    async with await Caller.connect(scene.up.url) as caller:
        await caller.request("GET", scene.target(), scene.token)
        assert (await caller.answer()).header("content-length") is None
        await caller.request("GET", scene.target(), scene.token)
        assert (await caller.answer()).body == b"next"


async def test_a_control_character_in_an_answers_field_is_502(scene: Scene) -> None:
    """Neither passed on nor dropped in silence."""
    scene.origin.answer_with(b"HTTP/1.1 200 OK\r\nX-A: a\x01b\r\nContent-Length: 0\r\n\r\n")
    answer = await scene.call()
    assert (answer.status, answer.json()["error"]["code"]) == (502, "upstream_error")


async def test_the_pages_refuse_like_everything_else(scene: Scene) -> None:
    """A problem document; and no redirect to whatever Host says."""
    for path in ("/", "/health/live", "/errors"):
        answer = await call(scene.up.url, "POST", path, body=b"")
        assert (answer.status, answer.header("allow")) == (405, "GET, HEAD")
        assert answer.json()["error"]["code"] == "method_not_allowed"
        assert answer.header("proxy-status") is not None
    assert (await call(scene.up.url, "GET", "/errors/")).status == 404


async def test_a_key_in_the_path_stays_below_the_place_that_it_is_for(tmp_path: Path) -> None:
    """An origin with a path: the key's segment stands behind it, never before it."""
    async with Origin() as origin:
        services = {"telegram": {"origin": f"{origin.url}/tg"}}
        async with running_relay(tmp_path / "data", services) as up:
            await up.add_key("telegram", key="123456:canary-canary")
            token = ("X-Relay-Token", up.token)
            for path, sent in (
                ("/getMe", "/tg/bot123456:canary-canary/getMe"),
                ("/botmine/getMe", "/tg/bot123456:canary-canary/getMe"),
                ("/file/bot1/x", "/tg/file/bot123456:canary-canary/x"),
            ):
                await call(up.url, "GET", f"/proxy/telegram{path}", token)
                assert origin.last.target == sent


async def test_a_redirect_to_a_download_host_comes_through_us(tmp_path: Path) -> None:
    """And what is behind it gets no key."""
    there = "https://cdn.files.example/f?sig=1"
    async with Origin(reply(302, [("Location", there)])) as origin:
        files = {"hosts": ["api.files.example"], "download_hosts": ["cdn.files.example"]}
        services = {"files": {**files, "origin": origin.url}}
        async with running_relay(tmp_path / "data", services) as up:
            await up.add_key("files", key="files-canary")
            answer = await call(up.url, "GET", "/proxy/files/x", ("X-Relay-Token", up.token))
    place = "/proxy?server=https%3A%2F%2Fcdn.files.example%2Ff%3Fsig%3D1&service=files"
    assert (answer.status, answer.header("location")) == (302, place)
