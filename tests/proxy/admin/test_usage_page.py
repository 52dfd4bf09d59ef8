"""GET /usage over real sockets: one's own numbers, the tenant's, and nobody else's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.proxy.usage.transcripts import anthropic_stream, openai_chat
from tests.support.caller import Answered, Caller, call
from tests.support.clock import FakeClock
from tests.support.origin import Origin, head, reply
from tests.support.relay import Running, running_relay

KEY = "sk-canary-0123456789abcdefghij"
CHAT = [("Content-Type", "application/json")]
FOREVER = "&cache=4102444800"
TODAY = "2027-01-15"
PRICES = (
    "prices: {'gpt-4.1*': {input: 2, output: 8, cached: 0.5}, claude*: {input: 3, output: 15}}\n"
)


@dataclass
class Shop:
    """A server, its providers' double, and callers by their tokens."""

    up: Running
    origin: Origin

    async def ask(
        self, token: str, service: str = "openai", options: str = "", body: bytes = b"{}"
    ) -> Answered:
        target = f"/proxy?server={self.origin.url}/v1/x&service={service}{options}"
        return await call(self.up.url, "POST", target, ("X-Relay-Token", token), body=body)

    async def usage(self, token: str, query: str = "") -> Answered:
        bearer = ("Authorization", f"Bearer {token}")
        return await call(self.up.url, "GET", f"/usage{query}", bearer)

    async def told(self, token: str, query: str = "") -> Any:
        answer = await self.usage(token, query)
        assert answer.status == 200, answer.body
        return answer.json()


@contextlib.asynccontextmanager
async def open_shop(data: Path, settings: str = PRICES) -> AsyncIterator[Shop]:
    """At noon of 2027-01-15."""
    async with Origin(reply(200, CHAT, openai_chat("Hello"))) as origin:
        services = {name: {"origin": origin.url} for name in ("openai", "anthropic")}
        clock = FakeClock(1_800_014_400.0)
        async with running_relay(data, services, settings, clock) as up:
            for service in services:
                await up.add_key(service, key=KEY)
            yield Shop(up, origin)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path / "data") as found:
        yield found


async def test_a_holder_sees_each_call_at_once(shop: Shop) -> None:
    """Total, by service, by day; nothing waits for the disk."""
    for options in ("", FOREVER, FOREVER):
        assert (await shop.ask(shop.up.token, options=options)).status == 200
    shop.origin.answer_with(
        reply(200, [("Content-Type", "text/event-stream")], anthropic_stream("Hello"))
    )
    await shop.ask(shop.up.token, "anthropic")
    shop.origin.answer_with(reply(429, CHAT, b"{}"))
    await shop.ask(shop.up.token)
    told = await shop.told(shop.up.token)
    price = (876 * 2 + 1024 * 0.5 + 10 * 8) / 1e6
    claude = (1900 * 3 + 10 * 15) / 1e6
    assert [told[name] for name in ("scope", "tenant", "token")] == [
        "token",
        "default",
        "everything",
    ]
    assert (told["from"], told["to"]) == ("2026-12-17", TODAY)
    total = told["total"]
    assert total["seconds"].keys() == {"average", "p50", "p90", "p99", "longest"}
    del total["seconds"]
    octets = 3 * len(openai_chat("Hello")) + len(anthropic_stream("Hello")) + 2
    assert total == {
        "calls": 5,
        "successful": 4,
        "errors": 1,
        "success_rate": 0.8,
        "hits": 1,
        "joined": 0,
        "calls_saved": 1,
        "upstream_calls": 4,
        "bytes_in": 10,
        "bytes_out": octets,
        "tokens": {"input": 5700, "output": 30, "cached": 3072, "saved": 1910},
        "cost": pytest.approx(2 * price + claude),
        "saved": pytest.approx(price),
    }
    services = {one["service"]: one for one in told["services"]}
    assert {name: one["calls"] for name, one in services.items()} == {"anthropic": 1, "openai": 4}
    assert services["anthropic"]["cost"] == pytest.approx(claude)
    assert [(one["day"], one["calls"]) for one in told["days"]] == [(TODAY, 5)]
    assert "tokens" not in told


async def test_nobody_sees_the_calls_of_another_token(shop: Shop) -> None:
    """Nor of a token with the name of its id."""
    other = await shop.up.issue("other")
    await shop.ask(other)
    own = await shop.told(other)
    named_so = await shop.up.issue(own["token_id"])
    await shop.ask(named_so)
    assert (await shop.told(shop.up.token))["total"]["calls"] == 0
    assert (await shop.told(other))["total"]["calls"] == 1
    assert (await shop.told(named_so))["total"]["calls"] == 1


@pytest.mark.parametrize("role", ["read", "admin"])
async def test_who_may_read_sees_the_tenant_by_token(shop: Shop, role: str) -> None:
    """Their own tenant's alone."""
    reader = await shop.up.issue("reader", role=role)
    stranger = await shop.up.issue("stranger", tenant="research", role=role)
    for token in (shop.up.token, shop.up.token, await shop.up.issue("ann")):
        await shop.ask(token)
    told = await shop.told(reader, "?scope=tenant")
    assert [(one["token"], one["calls"]) for one in told["tokens"]] == [
        ("ann", 1),
        ("everything", 2),
    ]
    assert all(one["token_id"] for one in told["tokens"])
    assert told["total"]["calls"] == 3
    assert "token" not in told
    other = await shop.told(stranger, "?scope=tenant")
    assert (other["tenant"], other["total"]["calls"], other["tokens"]) == ("research", 0, [])


async def test_who_may_not_is_told_so(shop: Shop) -> None:
    """As everywhere: 401 without a token, 403 for a role or a token that is for some services."""
    answer = await call(shop.up.url, "GET", "/usage")
    assert (answer.status, answer.header("www-authenticate")) == (401, "Bearer")
    assert (await shop.usage("kr_nonsense")).status == 401
    refused = await shop.usage(shop.up.token, "?scope=tenant")
    assert (refused.status, refused.json()["error"]["code"]) == (403, "forbidden")
    some = await shop.up.issue("some", role="read", services=frozenset({"openai"}))
    assert (await shop.usage(some, "?scope=tenant")).status == 403
    assert (await shop.usage(some)).status == 200


async def test_a_time_and_a_service_can_be_named(shop: Shop) -> None:
    """Both days count; UTC."""
    await shop.ask(shop.up.token)
    await shop.ask(shop.up.token, "anthropic")
    token = shop.up.token
    assert (await shop.told(token, "?service=openai"))["total"]["calls"] == 1
    assert (await shop.told(token, "?service=nobody"))["services"] == []
    assert (await shop.told(token, f"?from={TODAY}&to={TODAY}"))["total"]["calls"] == 2
    assert (await shop.told(token, "?to=2027-01-14"))["total"]["calls"] == 0
    before = await shop.told(token, "?to=2027-01-14")
    assert (before["from"], before["to"]) == ("2026-12-16", "2027-01-14")
    assert (await shop.told(token, "?from=2027-01-16&to=9998-12-31"))["days"] == []


@pytest.mark.parametrize(
    "query",
    [
        "?from=soon",
        "?from=0001-01-01",
        "?to=9999-12-31",
        "?from=2027-01-02&to=2027-01-01",
        "?scope=all",
        "?since=2027-01-02",
        "?from=2027-01-01&from=2027-01-01",
    ],
)
async def test_a_parameter_that_can_t_be_meant_is_refused(shop: Shop, query: str) -> None:
    """With a sentence that repeats none of it."""
    answer = await shop.usage(shop.up.token, query)
    assert (answer.status, answer.json()["error"]["code"]) == (400, "bad_request")
    assert "soon" not in answer.json()["detail"]


async def test_a_refused_call_counts_as_an_error(shop: Shop) -> None:
    """Of the token that sent it; what nobody sent is no token's."""
    target = "/proxy?server=https://nowhere.example/&service=openai"
    await call(shop.up.url, "GET", target, ("X-Relay-Token", shop.up.token))
    await call(shop.up.url, "GET", target)
    total = (await shop.told(shop.up.token))["total"]
    assert (total["calls"], total["errors"], total["upstream_calls"]) == (1, 1, 0)


async def test_equal_calls_under_way_are_joined_and_saved(shop: Shop) -> None:
    """One of them went out."""
    both = asyncio.Event()
    octets = openai_chat("Hello")

    async def wait(exchange: Any) -> None:
        await exchange.send(head(200, [*CHAT, ("Content-Length", str(len(octets)))]))
        await exchange.send(octets[:100])
        await both.wait()
        await exchange.send(octets[100:])

    shop.origin.answer_with(wait)
    target = f"/proxy?server={shop.origin.url}/v1/x&service=openai{FOREVER}"
    token = ("X-Relay-Token", shop.up.token)
    async with (
        await Caller.connect(shop.up.url) as first,
        await Caller.connect(shop.up.url) as second,
    ):
        for caller in (first, second):
            await caller.request("GET", target, token)
            assert (await caller.head()).status == 200
        both.set()
        for caller in (first, second):
            assert await caller.reader.readexactly(len(octets)) == octets
    total = (await shop.told(shop.up.token))["total"]
    assert (total["calls_saved"], total["upstream_calls"]) == (1, 1)
    assert total["cost"] == total["saved"] > 0


async def test_a_disk_that_refuses_fails_no_call(shop: Shop) -> None:
    """Calls go on, numbers come late, and none is missing."""
    with closing(sqlite3.connect(shop.up.data / "usage.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert (await shop.ask(shop.up.token)).status == 200
        assert (await shop.told(shop.up.token))["total"]["calls"] == 0
    assert (await shop.told(shop.up.token))["total"]["calls"] == 1


async def test_a_file_that_is_broken_is_said_to_be(tmp_path: Path) -> None:
    """503, and calls go on."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "usage.db").write_bytes(b"no database, " * 1000)
    async with open_shop(data) as shop:
        assert (await shop.ask(shop.up.token)).status == 200
        answer = await shop.usage(shop.up.token)
        assert (answer.status, answer.json()["error"]["code"]) == (503, "unavailable")
    assert (data / "usage.db").read_bytes() == b"no database, " * 1000


async def test_what_is_switched_off_counts_nothing(tmp_path: Path) -> None:
    """No row, no numbers."""
    async with open_shop(tmp_path / "data", "usage: {enabled: false}\n") as shop:
        assert (await shop.ask(shop.up.token)).status == 200
        answer = await shop.usage(shop.up.token)
        assert answer.status == 404
        assert "usage.enabled" in answer.json()["detail"]
        assert (await call(shop.up.url, "GET", "/usage")).status == 401


async def test_a_caller_who_hangs_up_is_counted(shop: Shop) -> None:
    """As no success."""
    begun = asyncio.Event()

    async def begin(exchange: Any) -> None:
        begun.set()
        await asyncio.sleep(3600)

    shop.origin.answer_with(begin)
    async with await Caller.connect(shop.up.url) as caller:
        target = f"/proxy?server={shop.origin.url}/v1/x&service=openai"
        await caller.request("GET", target, ("X-Relay-Token", shop.up.token))
        async with asyncio.timeout(20):
            await begun.wait()
    async with asyncio.timeout(20):
        while not (total := (await shop.told(shop.up.token))["total"])["calls"]:
            await asyncio.sleep(0.01)
    assert (total["calls"], total["successful"]) == (1, 0)


def test_the_page_of_documentation_shows_the_members() -> None:
    """docs/usage.md has each member of an answer."""
    page = (Path(__file__).parents[3] / "docs/usage.md").read_text()
    shown = json.loads(page.split("```json\n")[1].split("```")[0])
    from proxy.usage import Sums, document  # noqa: PLC0415

    members = document(Sums({}))
    assert set(shown["total"]) == set(members)
    assert set(shown["total"]["seconds"]) == set(members["seconds"])
    assert set(shown["total"]["tokens"]) == set(members["tokens"])
