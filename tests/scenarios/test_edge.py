"""The wire on the caller's side: refusals at once, octets as they came, cuts that show."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.scenarios.conftest import KEY, Scene
from tests.support.caller import Caller, call
from tests.support.origin import Exchange, chunk, reply, sse


async def test_a_call_gets_the_key_and_the_answer_comes_back(scene: Scene) -> None:
    """The idea (contract section 1)."""
    scene.origin.answer_with(reply(200, [("Content-Type", "application/json")], b'{"a":1}'))
    answer = await scene.call(method="POST", body=b"hello")
    assert (answer.status, answer.body) == (200, b'{"a":1}')
    sent = scene.origin.last
    assert sent.all("authorization") == [f"Bearer {KEY}"]
    assert (sent.method, sent.target, sent.body) == ("POST", "/v1/x", b"hello")
    assert scene.up.token not in repr(sent)
    assert answer.header("cache-status") == "keyrelay; fwd=bypass"
    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.header("via") is not None
    assert answer.header("x-request-id") == answer.header("x-relay-request-id")
    assert "relay;dur=" in (answer.header("server-timing") or "")
    assert "upstream;dur=" in (answer.header("server-timing") or "")


async def test_a_refusal_comes_without_waiting_for_the_body(scene: Scene) -> None:
    """Every refusal comes at once (contract section 2, rule 8)."""
    async with await Caller.connect(scene.up.url) as caller:
        length = ("Content-Length", "1000000")
        await caller.request("POST", scene.target(), length)
        answer = await caller.answer()
    assert answer.status == 401
    assert answer.json()["error"]["type"] == "authentication_error"
    assert scene.origin.requests == []


async def test_401_comes_before_400(scene: Scene) -> None:
    """A call that can't be read is not explained to strangers."""
    assert (await call(scene.up.url, "GET", "/proxy")).status == 401
    answer = await call(scene.up.url, "GET", "/proxy", scene.token)
    assert (answer.status, answer.json()["error"]["code"]) == (400, "bad_call")
    assert "cut the URL at an &" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [("CONNECT", "api.openai.com:443", 404), ("TRACE", "/proxy/openai/v1", 405)],
)
async def test_connect_and_trace_are_never_forwarded(
    scene: Scene, method: str, target: str, status: int
) -> None:
    """A CONNECT's target is not even ours."""
    answer = await call(scene.up.url, method, target, scene.token)
    assert answer.status in (status, 405)
    assert scene.origin.requests == []


async def test_a_websocket_upgrade_is_501(scene: Scene) -> None:
    """With a sentence."""
    upgrade = (("Connection", "Upgrade"), ("Upgrade", "websocket"))
    answer = await scene.call("/v1/x", *upgrade)
    assert (answer.status, answer.json()["error"]["code"]) == (501, "websocket_unsupported")
    assert scene.origin.requests == []


async def test_what_is_not_http_is_our_own_400(scene: Scene) -> None:
    """A problem document like every other, and the connection ends."""
    async with await Caller.connect(scene.up.url) as caller:
        await caller.send(b"GET /proxy HTTP/1.1\r\nHost x\r\n\r\n")
        answer = await caller.answer()
        assert (answer.status, answer.json()["error"]["code"]) == (400, "bad_request")
        names = [answer.all(name) for name in ("x-request-id", "x-relay-request-id")]
        assert names == [[answer.json()["request_id"]]] * 2
        assert await caller.closed()


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /proxy?" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /proxy HTTP/1.1\r\n" + b"X-A: 1\r\n" * 101 + b"\r\n",
        b"GET /proxy HTTP/1.1\r\nX-A: " + b"a" * 70_000 + b"\r\n\r\n",
    ],
)
async def test_a_header_without_bounds_is_431(scene: Scene, raw: bytes) -> None:
    """The parser itself has none."""
    async with await Caller.connect(scene.up.url) as caller:
        await caller.send(raw)
        assert (await caller.answer()).status == 431
        assert await caller.closed()


async def test_expect_100_continue_is_answered_by_us_once_authorised(scene: Scene) -> None:
    """And not forwarded; a stranger never hears `100 Continue`."""
    expect = (("Expect", "100-continue"), ("Content-Length", "5"))
    async with await Caller.connect(scene.up.url) as caller:
        await caller.request("POST", scene.target(), scene.token, *expect)
        assert (await caller.head()).status == 100
        await caller.send(b"hello")
        assert (await caller.answer()).status == 200
    assert scene.origin.last.body == b"hello"
    assert scene.origin.last.header("expect") is None
    async with await Caller.connect(scene.up.url) as caller:
        await caller.request("POST", scene.target(), *expect)
        assert (await caller.head()).status == 401


async def test_a_preflight_is_answered_without_a_token(scene: Scene) -> None:
    """And never forwarded; every other OPTIONS is."""
    page = ("Origin", "https://app.example")
    ask = ("Access-Control-Request-Method", "POST")
    answer = await call(scene.up.url, "OPTIONS", scene.target(), page, ask)
    assert (answer.status, answer.header("access-control-allow-origin")) == (204, page[1])
    assert scene.origin.requests == []
    await scene.call(method="OPTIONS")
    assert scene.origin.last.method == "OPTIONS"


async def test_a_page_can_read_our_errors(scene: Scene) -> None:
    """Errors carry the CORS fields too."""
    answer = await call(scene.up.url, "GET", "/proxy", ("Origin", "https://app.example"))
    assert (answer.status, answer.header("access-control-allow-origin")) == (
        401,
        "https://app.example",
    )
    other = await call(scene.up.url, "GET", "/proxy", ("Origin", "https://evil.example"))
    assert other.header("access-control-allow-origin") is None


async def test_a_well_formed_request_id_is_kept(scene: Scene) -> None:
    """Any other is replaced, and a token is never echoed."""
    kept = await scene.call("/v1/x", ("X-Request-ID", "abc-123"))
    assert kept.header("x-relay-request-id") == "abc-123"
    for text in ("a b", "x" * 200, scene.up.token):
        fresh = await call(scene.up.url, "GET", "/proxy", ("X-Request-ID", text))
        assert fresh.header("x-relay-request-id") not in (None, text)
        assert scene.up.token not in repr(fresh)


async def test_events_come_one_by_one(scene: Scene) -> None:
    """An SSE answer is not collected: the first event is here before the second was sent."""
    seen = asyncio.Event()

    async def slowly(exchange: Exchange) -> None:
        await exchange.start(200, [("Content-Type", "text/event-stream")])
        await exchange.chunk(b"data: 1\n\n")
        await exchange.wait(seen)
        await exchange.chunk(b"data: 2\n\n")
        await exchange.finish()

    scene.origin.answer_with(slowly)
    async with await Caller.connect(scene.up.url) as caller:
        await caller.request("GET", scene.target(), scene.token)
        await caller.head()
        assert await caller.chunk() == b"data: 1\n\n"
        seen.set()
        assert await caller.chunk() == b"data: 2\n\n"
        assert await caller.chunk() == b""


async def test_a_request_body_streams_up(scene: Scene) -> None:
    """The upstream has the first part before the caller sends the second."""
    first = asyncio.Event()

    async def reading(exchange: Exchange) -> None:
        async for part in exchange.body_chunks():
            if part:
                first.set()
        await exchange.reply(200, [], b"done")

    scene.origin.read_body = False
    scene.origin.answer_with(reading)
    async with await Caller.connect(scene.up.url) as caller:
        chunked = ("Transfer-Encoding", "chunked")
        await caller.request("POST", scene.target(), scene.token, chunked)
        await caller.send(chunk(b"one"))
        await asyncio.wait_for(first.wait(), 10)
        await caller.send(chunk(b"two") + b"0\r\n\r\n")
        assert (await caller.answer()).body == b"done"
    assert scene.origin.last.header("transfer-encoding") == "chunked"


async def test_an_answer_comes_through_while_the_caller_is_silent_in_the_middle(
    scene: Scene,
) -> None:
    """A refusal need not wait for the rest of the body."""

    async def refusing(exchange: Exchange) -> None:
        await exchange.reply(413, [], b"too much")

    scene.origin.read_body = False
    scene.origin.answer_with(refusing)
    async with await Caller.connect(scene.up.url) as caller:
        chunked = ("Transfer-Encoding", "chunked")
        await caller.request("POST", scene.target(), scene.token, chunked)
        await caller.send(chunk(b"one"))
        answer = await caller.answer()
    assert (answer.status, answer.body) == (413, b"too much")


async def test_a_hang_up_stops_the_upstream_call(scene: Scene) -> None:
    """Nobody pays for a dead caller."""
    asked, gone = asyncio.Event(), asyncio.Event()

    async def waiting(exchange: Exchange) -> None:
        asked.set()
        await exchange.hung_up()
        gone.set()

    scene.origin.answer_with(waiting)
    async with await Caller.connect(scene.up.url) as caller:
        await caller.request("GET", scene.target(), scene.token)
        await asyncio.wait_for(asked.wait(), 10)
    await asyncio.wait_for(gone.wait(), 10)


async def test_a_hang_up_in_the_middle_of_a_stream_stops_it(scene: Scene) -> None:
    """The same after the header."""
    gone = asyncio.Event()

    async def endless(exchange: Exchange) -> None:
        await exchange.start(200, [("Content-Type", "text/event-stream")])
        await exchange.chunk(b"data: 1\n\n")
        await exchange.hung_up()
        gone.set()

    scene.origin.answer_with(endless)
    async with await Caller.connect(scene.up.url) as caller:
        await caller.request("GET", scene.target(), scene.token)
        await caller.head()
    await asyncio.wait_for(gone.wait(), 10)


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
    ],
)
@pytest.mark.parametrize("options", ["", "&cache=4102444800"])
async def test_a_cut_upstream_is_a_cut_answer(scene: Scene, start: bytes, options: str) -> None:
    """It never looks whole."""

    async def cut(exchange: Exchange) -> None:
        await exchange.send(start)
        await exchange.close()

    scene.origin.answer_with(cut)
    answer = await scene.call(options=options)
    assert (answer.status, answer.body, answer.complete) == (200, b"part", False)


async def test_octets_pass_as_they_came(scene: Scene) -> None:
    """No decoding, no re-encoding; the fields that act on our origin are dropped."""
    body = b"\x1f\x8b\x08not really gzip"
    fields = [
        ("Content-Encoding", "gzip"),
        ("Content-Type", "text/html"),
        ("Set-Cookie", "a=b"),
        ("X-Thing", "kept"),
        ("Access-Control-Allow-Origin", "*"),
        ("X-Echo", f"your key is {KEY}"),
    ]
    scene.origin.answer_with(reply(200, fields, body))
    answer = await scene.call()
    assert answer.body == body
    assert answer.header("content-encoding") == "gzip"
    assert answer.header("x-thing") == "kept"
    assert answer.header("content-security-policy") == "sandbox"
    for name in ("set-cookie", "access-control-allow-origin", "x-echo"):
        assert answer.header(name) is None


async def test_an_echoed_key_is_in_no_log(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is turned on: not ours, not the library's that sends."""
    caplog.set_level(logging.DEBUG)
    scene.origin.answer_with(reply(200, [("X-Echo", KEY), ("X-Again", KEY.replace("-", "%2D"))]))
    answer = await scene.call()
    assert answer.header("x-echo") is answer.header("x-again") is None
    assert KEY not in caplog.text
    assert scene.up.token not in caplog.text


@pytest.mark.parametrize("status", [204, 304, 404, 418, 500, 503])
async def test_every_status_passes(scene: Scene, status: int) -> None:
    """The upstream's answer, not ours: no Proxy-Status."""
    scene.origin.answer_with(reply(status, [("X-A", "1")]))
    answer = await scene.call()
    assert (answer.status, answer.header("x-a")) == (status, "1")
    assert answer.header("proxy-status") is None


async def test_a_304_with_a_length_and_a_head_keep_the_connection(scene: Scene) -> None:
    """Their Content-Length announces no body."""
    scene.origin.answer_with(
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
        reply(200, [], b"third"),
    )
    async with await Caller.connect(scene.up.url) as caller:
        for method, status in (("GET", 304), ("HEAD", 200), ("GET", 200)):
            await caller.request(method, scene.target(), scene.token)
            answer = await caller.answer(method)
            assert answer.status == status
    assert answer.body == b"third"


async def test_an_upstream_that_is_gone_is_502(scene: Scene) -> None:
    """Proxy-Status tells it from the upstream's own (RFC 9209)."""
    await scene.origin.__aexit__(None, None, None)
    answer = await scene.call()
    assert (answer.status, answer.json()["error"]["code"]) == (502, "upstream_unreachable")
    assert answer.header("proxy-status") == "keyrelay; error=connection_refused"


async def test_a_redirect_comes_through_us_or_not_at_all(scene: Scene) -> None:
    """Contract section 4."""
    scene.origin.answer_with(
        reply(307, [("Location", "/v2/y?a=1")]),
        reply(302, [("Location", "https://evil.example/?k=1")]),
    )
    kept = await scene.call()
    assert kept.status == 307
    assert kept.header("location") == (
        f"/proxy?server=http%3A%2F%2F127.0.0.1%3A{scene.origin.port}%2Fv2%2Fy%3Fa%3D1&service=openai"
    )
    refused = await scene.call()
    assert (refused.status, refused.json()["error"]["code"]) == (502, "redirect_refused")
    assert refused.json()["location"] == "https://evil.example/?k=1"
    assert "evil.example" in refused.json()["detail"]


async def test_a_loop_ends(scene: Scene) -> None:
    """A request that carries our pseudonym three times: 508."""
    via = (await scene.call()).header("via") or ""
    answer = await scene.call("/v1/x", ("Via", ", ".join([via] * 3)))
    assert answer.status == 508


async def test_pipelined_and_kept_alive_calls_stay_apart(scene: Scene) -> None:
    """One answer belongs to one request."""

    async def own(exchange: Exchange) -> None:
        await exchange.reply(200, [], exchange.request.path.encode())

    scene.origin.answer_with(own)
    async with await Caller.connect(scene.up.url) as caller:
        for number in range(3):
            await caller.request("GET", scene.target(f"/{number}"), scene.token)
        bodies = [(await caller.answer()).body for _ in range(3)]
    assert bodies == [b"/0", b"/1", b"/2"]


async def test_the_pages_beside_the_proxy(scene: Scene) -> None:
    """What this is, whether it lives, the catalogue; everything else is 404."""
    assert b"platform token" in (await call(scene.up.url, "GET", "/")).body
    assert (await call(scene.up.url, "GET", "/health/live")).json() == {"status": "live"}
    catalogue = (await call(scene.up.url, "GET", "/errors")).json()["errors"]
    for entry in catalogue:
        assert (await call(scene.up.url, "GET", entry["type"])).json() == entry
    for path in ("/errors/nosuch", "/nosuch", "/proxyx", "/admin/nosuch"):
        answer = await call(scene.up.url, "GET", path, ("X-Request-ID", "mine"))
        assert (answer.status, answer.json()["error"]["code"]) == (404, "not_found")
        assert (answer.header("x-request-id"), answer.json()["request_id"]) == ("mine", "mine")


async def test_a_stream_that_is_kept_is_replayed_octet_for_octet(scene: Scene) -> None:
    """SSE, first live, then from the cache."""
    scene.origin.answer_with(sse(["one", "two", "[DONE]"]))
    first = await scene.call(options="&cache=4102444800")
    again = await scene.call(options="&cache=4102444800")
    assert first.body == again.body
    assert first.body.count(b"data:") == 3
    assert (again.header("cache-status") or "").startswith("keyrelay; hit; ttl=")
    assert again.header("age") is not None
    assert len(scene.origin.requests) == 1
