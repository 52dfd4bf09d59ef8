"""Calls as a collector of traces sees them, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.caller import Answered, call
from tests.support.collector import CLIENT, INTERNAL, SERVER, TraceCollector
from tests.support.command import command
from tests.support.origin import Exchange, Origin, reply
from tests.support.process import keyrelay, served
from tests.support.relay import Running, running_relay

KEY = "sk-canary-0123456789abcdefghij"
FOREVER = "cache=4102444800"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


@dataclass
class Place:
    """The server, the provider's double, and where traces go."""

    up: Running
    origin: Origin
    collector: TraceCollector

    async def call(self, options: str, *headers: tuple[str, str], method: str = "GET") -> Answered:
        target = f"/proxy?server={self.origin.url}/v1?private=CANARY&service=openai&{options}"
        return await call(self.up.url, method, target, ("X-Relay-Token", self.up.token), *headers)


@asynccontextmanager
async def place(
    folder: Path, settings: str = "", origin: Origin | None = None, traced: bool = True
) -> AsyncIterator[Place]:
    """Traced to a collector, unless said otherwise; more `settings` of the section server."""
    async with (
        origin or Origin(reply(200, [], b"fine")) as provider,
        TraceCollector() as collector,
    ):
        where = f"traces_endpoint: '{collector.url}', " if traced else ""
        text = f"server: {{{where}{settings}}}\nlimits: {{concurrency: {{total: 1}}}}\n"
        async with running_relay(folder / "data", None, text) as up:
            await up.add_key("openai", key=KEY)
            await up.add_backend("openai", provider.url)
            yield Place(up, provider, collector)


async def test_a_call_is_a_span_with_look_up_and_upstream_in_it(tmp_path: Path) -> None:
    """Named and described by OpenTelemetry's conventions, in the order of time."""
    async with place(tmp_path) as at:
        await at.call(FOREVER, ("X-Request-ID", "my-1"))
        [[own, *parts]] = await at.collector.calls(1)
        assert at.collector.last.path == "/v1/traces"
    by_name = {one.name: one for one in parts}
    look_up, upstream = by_name["cache look-up"], by_name["GET"]
    assert (own.name, own.kind, own.parent, own.failed) == ("GET openai", SERVER, "", False)
    assert own.attributes == {
        "http.request.method": "GET",
        "http.route": "/proxy",
        "url.path": "/proxy",
        "url.scheme": "http",
        "http.response.status_code": 200,
        "http.request.body.size": 0,
        "http.response.body.size": 4,
        "keyrelay.request_id": "my-1",
        "keyrelay.tenant": "default",
        "keyrelay.token": "everything",
        "keyrelay.service": "openai",
        "keyrelay.host": "127.0.0.1",
        "keyrelay.cache": "stored",
    }
    assert (look_up.kind, look_up.attributes) == (INTERNAL, {"keyrelay.cache": "stored"})
    assert upstream.kind == CLIENT
    assert upstream.attributes.pop("keyrelay.header_seconds") >= 0
    assert upstream.attributes == {
        "http.request.method": "GET",
        "server.address": "127.0.0.1",
        "http.response.status_code": 200,
    }
    assert {one.trace for one in (own, *parts)} == {own.trace}
    assert len(parts) == 2
    assert own.begin <= look_up.begin <= look_up.end <= upstream.begin <= upstream.end


@pytest.mark.parametrize("transport", ["wire", "httpx"])
async def test_the_providers_span_stands_below_ours_and_ours_below_the_callers(
    tmp_path: Path, transport: str
) -> None:
    """W3C Trace Context; tracestate is passed on."""
    async with place(tmp_path, f"upstream_transport: {transport}") as at:
        await at.call("", ("traceparent", PARENT), ("tracestate", "a=1,b=2"))
        await at.call("", ("traceparent", PARENT), ("tracestate", "a=1,b=2"))
        first, second = await at.collector.calls(2)
        sent = at.origin.requests
    for (own, upstream), request in zip((first, second), sent, strict=True):
        assert (own.trace, own.parent, upstream.parent) == (TRACE, SPAN, own.id)
        assert request.all("traceparent") == [f"00-{TRACE}-{upstream.id}-01"]
        assert request.all("tracestate") == ["a=1,b=2"]
    assert len({one.id for one in (*first, *second)}) == 4


@pytest.mark.parametrize("said", [["nonsense"], [PARENT, PARENT], [PARENT.upper()]])
async def test_what_cannot_be_continued_begins_a_new_trace(tmp_path: Path, said: list[str]) -> None:
    """Nothing of it goes on, its state neither."""
    async with place(tmp_path) as at:
        await at.call("", *(("traceparent", one) for one in said), ("tracestate", "a=1"))
        [[own, upstream]] = await at.collector.calls(1)
        assert at.origin.last.all("traceparent") == [f"00-{own.trace}-{upstream.id}-01"]
        assert at.origin.last.all("tracestate") == []
    assert (own.parent, own.trace == TRACE) == ("", False)


async def test_a_hit_asks_nobody_and_a_bypass_looks_nothing_up(tmp_path: Path) -> None:
    """Another caller's trace makes no other answer of it."""
    async with place(tmp_path) as at:
        await at.call(FOREVER, ("traceparent", PARENT))
        await at.call(FOREVER, ("traceparent", PARENT.replace("a", "b")))
        await at.call("")
        stored, hit, bypass = await at.collector.calls(3)
        assert len(at.origin.requests) == 2
    assert [one.attributes["keyrelay.cache"] for one in (stored[0], hit[0], bypass[0])] == [
        *("stored", "hit", "bypass")
    ]
    assert [one.name for one in hit] == ["GET openai", "cache look-up"]
    assert [one.name for one in bypass] == ["GET openai", "GET"]


async def test_the_time_in_the_queue_is_a_span(tmp_path: Path) -> None:
    """Between look-up and upstream, of a call that had to wait."""
    came, door = asyncio.Event(), asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        came.set()
        await exchange.wait(door, 20)
        await exchange.send(reply(200, [], b"fine"))

    async with place(tmp_path, origin=Origin(answer)) as at:
        first = asyncio.create_task(at.call(FOREVER))
        await asyncio.wait_for(came.wait(), 20)
        second = asyncio.create_task(at.call(FOREVER, method="POST"))
        async with asyncio.timeout(20):
            bearer = ("Authorization", f"Bearer {await at.up.issue('reader', role='read')}")
            while (
                b"keyrelay_queued 1.0"
                not in (await call(at.up.url, "GET", "/metrics", bearer)).body
            ):
                await asyncio.sleep(0.01)
        door.set()
        await asyncio.gather(first, second)
        calls = await at.collector.calls(2)
    [[own, *parts]] = [spans for spans in calls if spans[0].name == "POST openai"]
    look_up, wait, upstream = sorted(parts, key=lambda one: (one.begin, one.end))
    assert (look_up.name, wait.name, upstream.name) == ("cache look-up", "queue wait", "POST")
    assert look_up.end == wait.begin < wait.end <= upstream.begin <= upstream.end
    assert not own.failed


async def test_refusals_and_failures_say_so_by_their_code(tmp_path: Path) -> None:
    """4xx of ours is no failure of the server; 5xx is."""
    async with place(tmp_path, origin=Origin(b"garbage\r\n\r\n")) as at:
        await call(at.up.url, "GET", "/proxy/openai/v1/models")
        await at.call("")
        await at.call("", ("X-Relay-Timeout", "never"))
        spans = await at.collector.calls(3)
    by_status = {one[0].attributes["http.response.status_code"]: one for one in spans}
    assert sorted(by_status) == [400, 401, 502]
    [unknown] = by_status[401]
    assert (unknown.name, unknown.failed) == ("GET", False)
    assert unknown.attributes["error.type"] == "unauthorized"
    own, upstream = by_status[502]
    assert own.failed and upstream.failed
    assert own.attributes["error.type"] == upstream.attributes["error.type"] == "upstream_error"
    assert upstream.end <= own.end


async def test_the_caller_and_the_ratio_decide_what_is_sent(tmp_path: Path) -> None:
    """What is not sampled is passed on as such, and the collector hears nothing of it."""
    async with place(tmp_path, "traces_ratio: 0.0") as at:
        await at.call("")
        await at.call("", ("traceparent", PARENT[:-2] + "00"))
        await at.call("", ("traceparent", PARENT))
        [[own, _]] = await at.collector.calls(1)
        new, unsampled, sampled = [one.header("traceparent") or "" for one in at.origin.requests]
    assert (own.parent, len(at.collector.spans)) == (SPAN, 2)
    assert (new[-3:], unsampled[-3:], sampled[-3:]) == ("-00", "-00", "-01")
    assert TRACE in unsampled and TRACE not in new


async def test_without_traces_the_callers_fields_pass_unchanged(tmp_path: Path) -> None:
    """Each call's own, also where all else of its header is known already."""
    other = PARENT.replace("a", "b")
    async with place(tmp_path, traced=False) as at:
        for parent in (PARENT, other, "nonsense"):
            await at.call("", ("traceparent", parent), ("tracestate", "a=1"))
        await at.call("")
        sent = at.origin.requests
    assert [one.all("traceparent") for one in sent] == [[PARENT], [other], ["nonsense"], []]
    assert [one.all("tracestate") for one in sent] == [["a=1"]] * 3 + [[]]


async def test_an_answer_that_varies_by_the_trace_is_for_nobody_else(tmp_path: Path) -> None:
    """There is another traceparent in every call."""
    origin = Origin(reply(200, [("Vary", "Traceparent")], b"fine"))
    async with place(tmp_path, origin=origin, traced=False) as at:
        for parent in (PARENT, PARENT.replace("a", "b")):
            answer = await at.call(FOREVER, ("traceparent", parent))
            assert "stored" not in (answer.header("cache-status") or "")
    assert len(origin.requests) == 2


async def test_a_token_in_a_field_of_the_trace_is_refused(tmp_path: Path) -> None:
    """Also where the same header without it was let through before."""
    async with place(tmp_path) as at:
        assert (await at.call("", ("traceparent", PARENT))).status == 200
        leak = ("tracestate", f"a={at.up.token}")
        assert (await at.call("", ("traceparent", PARENT), leak)).status == 400
        assert (await at.call("", ("traceparent", at.up.token))).status == 200
        assert at.up.token not in repr([one.headers for one in at.origin.requests])


# A server of its own, and collectors that fail.


@asynccontextmanager
async def own_server(tmp_path: Path, endpoint: str) -> AsyncIterator[tuple[Path, str, str]]:
    """A data directory, a token, and the target of a call."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    async with Origin(reply(200, [], b"fine")) as origin:
        (data / "keys.yaml").write_text(
            f"services: {{openai: {{origin: '{origin.url}'}}}}\n"
            f"server: {{traces_endpoint: '{endpoint}'}}\n"
        )
        await command(data, "init")
        await command(data, "key", "add", "openai", stdin=KEY + "\n")
        token = (await command(data, "token", "issue", "laptop")).out.strip()
        yield data, token, f"/proxy?server={origin.url}/v1&service=openai"


async def test_the_end_of_the_server_sends_what_waits(tmp_path: Path) -> None:
    """SIGTERM right after a call: its spans are there."""
    async with (
        TraceCollector() as collector,
        own_server(tmp_path, collector.url + "/own/path") as (data, token, target),
    ):
        async with served(data) as server:
            await call(server.url, "GET", target, ("X-Relay-Token", token))
            await collector.calls(1)
            await call(server.url, "GET", target, ("X-Relay-Token", token))
        _, [own, _] = await collector.calls(2)
        assert collector.last.path == "/own/path"
        assert own.attributes["keyrelay.token"] == "laptop"


async def test_a_dead_collector_is_one_line_and_no_calls_concern(tmp_path: Path) -> None:
    """Refused connections; each call is answered, and the server ends in time."""
    async with TraceCollector() as collector:
        gone = collector.url
    async with own_server(tmp_path, gone) as (data, token, target), served(data) as server:
        for told in (False, True, True):
            async with asyncio.timeout(20):
                while told and "server.traces_endpoint" not in "".join(server.said):
                    await asyncio.sleep(0.01)
            answer = await call(server.url, "GET", target, ("X-Relay-Token", token))
            assert answer.status == 200
        await server.stop()
    said = [json.loads(line) for line in server.said if "server.traces_endpoint" in line]
    assert [(one["level"], one["event"]) for one in said] == [
        (
            "warning",
            "the collector of server.traces_endpoint takes no traces: ConnectionRefusedError",
        )
    ]
    assert server.said[-1].startswith("keyrelay has stopped")


async def test_a_collector_that_refuses_is_one_line(tmp_path: Path) -> None:
    """With what it answers."""
    async with (
        TraceCollector(status=404) as collector,
        own_server(tmp_path, collector.url) as (data, token, target),
        served(data) as server,
    ):
        for _ in range(2):
            await call(server.url, "GET", target, ("X-Relay-Token", token))
            await collector.until_asked()
        await server.stop()
    lines = [line for line in server.said if "traces" in line]
    assert len(lines) == 1
    assert "it answers 404" in lines[0]


async def test_without_the_extra_the_start_says_what_to_install(tmp_path: Path) -> None:
    """One sentence, before anything is opened or heard."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "keys.yaml").write_text("server: {traces_endpoint: 'http://127.0.0.1:4318'}\n")
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "sitecustomize.py").write_text(
        "import sys\nsys.modules['opentelemetry.proto'] = None\n"
    )
    ended = await keyrelay(data, "serve", "--port", "0", PYTHONPATH=str(bare))
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert "server.traces_endpoint" in ended.err
    assert "pip install 'keyrelay[traces]'" in ended.err
