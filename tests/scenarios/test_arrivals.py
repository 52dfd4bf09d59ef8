"""Connections that come to a running server: as many as may, and whose they are."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from tests.scenarios.conftest import KEY
from tests.support.caller import Caller, call
from tests.support.origin import Exchange, Origin, reply
from tests.support.process import served
from tests.support.relay import running_relay


async def test_one_connection_too_many_is_503_and_counted(tmp_path: Path) -> None:
    """At once, without a word of the caller; those that are there go on."""
    async with (
        running_relay(tmp_path / "data", settings="server: {max_connections: 2}") as up,
        await Caller.connect(up.url) as one,
        await Caller.connect(up.url) as two,
    ):
        for caller in (one, two):
            await caller.request("GET", "/health/live")
            assert (await caller.answer()).status == 200
        async with await Caller.connect(up.url) as third:
            answer = await third.answer()
            assert (answer.status, answer.header("connection")) == (503, "close")
            assert answer.json()["error"]["code"] == "too_many_connections"
            assert await third.closed()
        reader = await up.issue("scraper", role="read")
        await one.request("GET", "/metrics", ("Authorization", f"Bearer {reader}"))
        metrics = (await one.answer()).body.decode().splitlines()
    assert "keyrelay_connections 2.0" in metrics
    assert 'keyrelay_connections_refused_total{bound="total"} 1.0' in metrics


async def test_calls_behind_a_trusted_proxy_are_those_of_their_callers(tmp_path: Path) -> None:
    """One address has its share in flight; another one's calls go on, on the same connections."""
    asked, go = asyncio.Event(), asyncio.Event()

    async def slowly(exchange: Exchange) -> None:
        asked.set()
        await exchange.wait(go)
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    server = "server: {trusted_proxies: [127.0.0.1], max_connections_per_address: 1}"
    async with Origin([slowly, reply(200, [], b"ok")]) as origin:
        services = {"openai": {"origin": origin.url}}
        async with (
            running_relay(tmp_path / "data", services, server) as up,
            await Caller.connect(up.url) as one,
            await Caller.connect(up.url) as two,
        ):
            await up.add_key("openai", key=KEY)
            token = ("X-Relay-Token", up.token)
            named = ("X-Forwarded-For", "192.0.2.1")
            await one.request("GET", "/proxy/openai/x", token, named)
            await asyncio.wait_for(asked.wait(), 20)
            await two.request("GET", "/proxy/openai/x", token, named)
            assert (await two.answer()).json()["error"]["code"] == "too_many_connections"
            await two.request("GET", "/proxy/openai/x", token, ("X-Forwarded-For", "192.0.2.2"))
            assert (await two.answer()).status == 200
            go.set()
            assert (await one.answer()).status == 200
    assert [request.header("x-forwarded-for") for request in origin.requests] == [None, None]


async def test_the_log_names_who_calls(tmp_path: Path) -> None:
    """By a trusted proxy's word, where that can be read."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "keys.yaml").write_text("server: {trusted_proxies: [127.0.0.1], log_format: json}\n")
    async with served(data) as up:
        for text in ("1.1.1.1, 192.0.2.7", "junk"):
            await call(up.url, "GET", "/proxy", ("X-Forwarded-For", text))
        await up.stop()
    lines = [json.loads(line) for line in up.said if line.startswith("{")]
    assert [line["address"] for line in lines if line["event"] == "call"] == [
        "192.0.2.7",
        "127.0.0.1",
    ]
