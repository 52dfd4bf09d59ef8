"""Too many calls, too large ones and too slow ones, over real sockets."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.caller import Answered, Caller, call
from tests.support.origin import Exchange, Origin, reply
from tests.support.relay import Running, running_relay

KEY = "sk-canary-0123456789abcdefghij"
LONG = "cache=4102444800"


@dataclass
class Gate:
    """A provider that answers each call when the test says so; `came`: their paths, in order."""

    came: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    doors: asyncio.Queue[None] = field(default_factory=asyncio.Queue)

    async def __call__(self, exchange: Exchange) -> None:
        self.came.put_nowait(exchange.request.target)
        await self.doors.get()
        await exchange.send(reply(200, (), b"hello"))

    async def next(self) -> str:
        return await asyncio.wait_for(self.came.get(), 20)

    def open(self, calls: int = 1) -> None:
        for _ in range(calls):
            self.doors.put_nowait(None)


@dataclass
class Place:
    """The server, the provider's double, and what a tenant's caller shows."""

    up: Running
    origin: Origin
    tokens: dict[str, str]

    async def call(
        self, path: str, *headers: tuple[str, str], tenant: str = "noisy", options: str = ""
    ) -> Answered:
        target = f"/proxy?server={self.origin.url}{path}&service=openai&{options or 'invalidate'}"
        return await call(self.up.url, "GET", target, self.token(tenant), *headers)

    async def load(self) -> tuple[int, int]:
        """Calls that hold a slot and calls that wait for one, as the metrics have it."""
        told = await call(self.up.url, "GET", "/metrics", self.token("reader"))
        found = dict(re.findall(rb"^keyrelay_(upstream_calls|queued) ([0-9.]+)$", told.body, re.M))
        return int(float(found[b"upstream_calls"])), int(float(found[b"queued"]))

    async def until(self, in_flight: int, waiting: int) -> None:
        """Until so many hold a slot, and so many wait."""
        async with asyncio.timeout(20):
            while await self.load() != (in_flight, waiting):
                await asyncio.sleep(0.01)

    def token(self, tenant: str = "noisy") -> tuple[str, str]:
        return ("Authorization", f"Bearer {self.tokens[tenant]}")


@asynccontextmanager
async def place(folder: Path, limits: str, origin: Origin) -> AsyncIterator[Place]:
    async with origin, running_relay(folder / "data", None, f"limits: {{{limits}}}") as up:
        tokens = {"reader": await up.issue("reader", role="read")}
        for tenant in ("noisy", "quiet"):
            await up.add_key("openai", tenant, key=KEY)
            await up.add_backend("openai", origin.url, tenant)
            tokens[tenant] = await up.issue(tenant, tenant)
        yield Place(up, origin, tokens)


async def test_hundreds_of_calls_of_one_tenant_do_not_delay_another_s_first(tmp_path: Path) -> None:
    """Whoever was served longest ago is next; the wait stands in Server-Timing."""
    gate = Gate()
    async with place(tmp_path, "concurrency: {total: 2}", Origin(gate)) as here:
        noisy = [asyncio.create_task(here.call(f"/v1/noisy/{n}")) for n in range(300)]
        first = {await gate.next(), await gate.next()}
        assert all(path.startswith("/v1/noisy/") for path in first)
        await here.until(2, 298)
        quiet = asyncio.create_task(here.call("/v1/quiet", tenant="quiet"))
        await here.until(2, 299)
        gate.open()
        assert await gate.next() == "/v1/quiet"
        gate.open(300)
        answer = await quiet
        assert (answer.status, answer.body) == (200, b"hello")
        assert "queue;dur=" in (answer.header("server-timing") or "")
        assert {one.status for one in await asyncio.gather(*noisy)} == {200}
        await here.until(0, 0)


async def test_a_hit_and_a_follower_take_no_slot(tmp_path: Path) -> None:
    """They pass while the only slot is held."""
    gate = Gate()
    async with place(tmp_path, "concurrency: {per_tenant: 1}", Origin(gate)) as here:
        gate.open()
        assert (await here.call("/v1/kept", options=LONG)).status == 200
        await gate.next()
        leader = asyncio.create_task(here.call("/v1/held", options=LONG))
        await gate.next()
        follower = asyncio.create_task(here.call("/v1/held", options=LONG))
        hit = await here.call("/v1/kept", options=LONG)
        assert (hit.header("cache-status") or "").startswith("keyrelay; hit")
        assert await here.load() == (1, 0)
        gate.open()
        assert [(await one).body for one in (leader, follower)] == [b"hello", b"hello"]
        assert gate.came.empty()


@pytest.mark.parametrize(
    "limits", ["queue_timeout: 0.05, queue_length: 1", "queue_timeout: 1h, queue_length: 0"]
)
async def test_beyond_the_queue_is_a_503_that_says_when(tmp_path: Path, limits: str) -> None:
    """With Retry-After and our error name; the call that had room is unharmed."""
    gate = Gate()
    settings = f"concurrency: {{total: 1}}, {limits}"
    async with place(tmp_path, settings, Origin(gate)) as here:
        held = asyncio.create_task(here.call("/v1/held"))
        await gate.next()
        answer = await here.call("/v1/over")
        assert (answer.status, answer.json()["error"]["code"]) == (503, "overloaded")
        assert answer.header("retry-after") == "5"
        assert answer.header("proxy-status") == "keyrelay; error=connection_limit_reached"
        gate.open()
        assert (await held).status == 200
        assert gate.came.empty()


async def test_a_caller_who_hangs_up_leaves_the_queue_and_the_slot(tmp_path: Path) -> None:
    """Both are there for the next one."""
    gate = Gate()
    async with place(tmp_path, "concurrency: {total: 1}", Origin(gate)) as here:
        holder, waiter = [await Caller.connect(here.up.url) for _ in range(2)]
        target = f"/proxy?server={here.origin.url}/v1/x&service=openai"
        await holder.request("GET", target, here.token())
        await gate.next()
        await waiter.request("GET", target, here.token())
        await here.until(1, 1)
        await waiter.close()
        await here.until(1, 0)
        await holder.close()
        gate.open(2)
        assert (await here.call("/v1/next")).status == 200
        assert await gate.next() == "/v1/next"
        await here.until(0, 0)


async def test_a_call_that_will_be_kept_waits_on_when_its_caller_has_gone(tmp_path: Path) -> None:
    """It belongs to the cache, which answers the next one with it."""
    gate = Gate()
    async with place(tmp_path, "concurrency: {total: 1}", Origin(gate)) as here:
        held = asyncio.create_task(here.call("/v1/held"))
        assert await gate.next() == "/v1/held"
        async with await Caller.connect(here.up.url) as waiter:
            target = f"/proxy?server={here.origin.url}/v1/kept&service=openai&{LONG}"
            await waiter.request("GET", target, here.token())
            await here.until(1, 1)
        gate.open()
        assert (await held).status == 200
        assert await gate.next() == "/v1/kept"
        gate.open()
        await here.until(0, 0)
        answer = await here.call("/v1/kept", options=LONG)
        assert "hit" in (answer.header("cache-status") or "")
        assert gate.came.empty()


async def test_a_caller_s_own_deadline_ends_its_own_waiting_alone(tmp_path: Path) -> None:
    """Who joined the same call gets the answer; the field is part of no key and goes nowhere."""
    gate = Gate()
    async with place(tmp_path, "", Origin(gate)) as here:
        hasty = asyncio.create_task(
            here.call("/v1/x", ("X-Relay-Timeout", "0.3"), options=LONG),
        )
        await gate.next()
        patient = asyncio.create_task(here.call("/v1/x", options=LONG))
        answer = await hasty
        assert (answer.status, answer.json()["error"]["code"]) == (504, "call_timeout")
        gate.open()
        assert (await patient).body == b"hello"
        assert here.origin.last.header("x-relay-timeout") is None
        assert len(here.origin.requests) == 1


async def test_a_caller_s_own_deadline_cuts_an_answer_that_goes_on(tmp_path: Path) -> None:
    """The transfer is broken, so that it does not look whole, and so is the upstream's."""
    hung_up = asyncio.Event()

    async def endless(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.chunk(b"a")
        await exchange.hung_up()
        hung_up.set()

    async with place(tmp_path, "concurrency: {total: 1}", Origin(endless)) as here:
        answer = await here.call("/v1/x", ("X-Relay-Timeout", "0.3"))
        assert (answer.status, answer.body, answer.complete) == (200, b"a", False)
        await asyncio.wait_for(hung_up.wait(), 20)
        await here.until(0, 0)


async def test_a_deadline_that_can_not_be_read_is_for_known_callers_to_hear(
    tmp_path: Path,
) -> None:
    """401 comes before 400."""
    wrong = ("X-Relay-Timeout", "soon")
    async with place(tmp_path, "", Origin()) as here:
        answer = await here.call("/v1/x", wrong)
        assert (answer.status, answer.json()["error"]["code"]) == (400, "bad_request")
        target = f"/proxy?server={here.origin.url}/v1/x&service=openai"
        assert (await call(here.up.url, "GET", target, wrong)).status == 401
        assert here.origin.requests == []


@pytest.mark.parametrize("transport", ["wire", "httpx"])
async def test_a_service_has_deadlines_of_its_own(tmp_path: Path, transport: str) -> None:
    """Whatever sends: the whole call is over when the service's bound is."""

    async def endless(exchange: Exchange) -> None:
        await exchange.start()
        for _ in range(10_000):
            await exchange.chunk(b"a")
            await asyncio.sleep(0.01)

    limits = "services: {openai: {total_timeout: 0.3}}"
    settings = f"{limits}}}\nserver: {{upstream_transport: {transport}"
    async with place(tmp_path, settings, Origin(endless)) as here:
        answer = await here.call("/v1/x")
        assert (answer.status, answer.complete) == (200, False)


@pytest.mark.parametrize("options", ["", LONG])
async def test_a_body_that_is_too_large_is_refused_before_it_is_read(
    tmp_path: Path, options: str
) -> None:
    """413, by its length at once and without one where it grows; nothing reaches the provider."""
    async with place(tmp_path, "max_request_bytes: 10", Origin()) as here:
        target = f"/proxy?server={here.origin.url}/v1/x&service=openai&{options or 'invalidate'}"
        async with await Caller.connect(here.up.url) as caller:
            await caller.request("POST", target, here.token(), ("Content-Length", "11"))
            answer = await caller.answer()
        assert (answer.status, answer.json()["error"]["code"]) == (413, "body_too_large")
        assert here.origin.requests == []
        async with await Caller.connect(here.up.url) as caller:
            await caller.request("POST", target, here.token(), ("Transfer-Encoding", "chunked"))
            await caller.send(b"b\r\nhello world\r\n")
            assert (await caller.answer()).status == 413
        fits = await call(here.up.url, "POST", target, here.token(), body=b"0123456789")
        assert fits.status == 200


@pytest.mark.parametrize("options", ["", LONG])
async def test_an_answer_that_is_too_large_never_looks_whole(tmp_path: Path, options: str) -> None:
    """502 where it says its length; else it is cut. It is kept in no case."""
    announced = reply(200, (), b"hello world")
    streamed = reply(
        200, [("Transfer-Encoding", "chunked")], b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    )
    async with place(
        tmp_path, "max_response_bytes: 10", Origin([announced, streamed, streamed])
    ) as here:
        answer = await here.call("/v1/x", options=options)
        assert (answer.status, answer.json()["error"]["code"]) == (502, "answer_too_large")
        for _ in range(2):
            cut = await here.call("/v1/x", options=options)
            assert cut.status == 502 or not cut.complete
        assert len(here.origin.requests) == 3
