"""The wire is the same wherever a caller comes in: plain, with TLS, at a worker, behind a front.

What one connection is refused for stands in `tests/proxy/test_framing.py`. Here all of it goes over
real sockets; each refused request would be a call that is granted, but for what is wrong with it.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy import patience
from proxy.certificate import Certificate
from tests.proxy.test_framing import BOUNDS, PLACES, WRONG
from tests.scenarios.conftest import KEY
from tests.support.caller import Caller
from tests.support.certificates import trusting, write_pair
from tests.support.origin import Exchange, Origin, reply
from tests.support.relay import running_relay
from tests.support.team import team

GET = b"GET /proxy HTTP/1.1\r\nHost: %b\r\n%b\r\n"
SETTINGS = "server: {hosts: [a, b], trusted_proxies: [127.0.0.2]%s}\n"
FRONT = "127.0.0.2"
NAMED = b"X-Forwarded-For: 192.0.2.%d\r\n"
AT_ONCE = 16

FOREIGN = {
    "a foreign Host": GET % (b"evil.example", b""),
    "a foreign Host with a port": GET % (b"evil.example:80", b""),
    "PROXY protocol": b"PROXY TCP4 192.0.2.1 192.0.2.2 5 80\r\n" + GET % (b"a", b""),
    "PROXY protocol 2": b"\r\n\r\n\0\r\nQUIT\n!\x11\0\x0c" + bytes(12) + GET % (b"a", b""),
}
CONTROLS = {
    f"{number} {name}": raw.replace(b"*", bytes([number]))
    for name, raw in PLACES.items()
    for number in (0, 1, 11, 127)
}
REFUSED = {**WRONG, **CONTROLS, **FOREIGN}
HEADERS = {name: both for name, both in BOUNDS.items() if name != "trailers"}


@dataclass
class Entrance:
    """Where callers come in, how, and whose call is granted. `named`: for whom a front calls."""

    url: str
    token: str
    origin: Origin
    tls: ssl.SSLContext | None = None
    named: bytes = b""

    async def come(self) -> Caller:
        """One connection; behind a front it has brought somebody else's request already."""
        caller = await Caller.connect(self.url, self.tls, FRONT if self.named else None)
        if self.named:
            await caller.send(GET.replace(b"/proxy", b"/health/live") % (b"a", self.named))
            assert (await caller.answer()).status == 200
        return caller

    def armed(self, raw: bytes) -> bytes:
        """Of a request one that would be granted: with a token, and to a place that there is."""
        line, end, rest = raw.replace(b"/proxy", b"/proxy/openai/v1/x").partition(b"\r\n")
        return line + end + b"X-Relay-Token: " + self.token.encode() + b"\r\n" + rest

    async def fate(self, raw: bytes) -> str:
        """Of one request: its status, and whether the connection ends."""
        async with await self.come() as caller:
            await caller.send(raw)
            answer = await caller.answer()
            ended = answer.header("connection") == "close" and await caller.closed()
        return f"{answer.status} and {'closed' if ended else 'open'}"

    async def fates(self, table: dict[str, bytes]) -> dict[str, str]:
        """Of all of them, some at once; with TLS all, since the end of one takes a while."""
        gate, found = asyncio.Semaphore(len(table) if self.tls else AT_ONCE), {}

        async def one(name: str, raw: bytes) -> None:
            async with gate:
                found[name] = await self.fate(raw)

        async with asyncio.timeout(50), asyncio.TaskGroup() as group:
            for name, raw in table.items():
                group.create_task(one(name, raw))
        return found


async def hold_out(here: Entrance) -> None:
    """The whole table: refused and closed, and nothing forwarded but what is in order."""
    good = here.armed(GET % (b"a", here.named))
    assert await here.fate(good) == "200 and open"
    assert len(here.origin.requests) == 1
    refused = await here.fates({name: here.armed(raw) for name, raw in REFUSED.items()})
    assert {name: how for name, how in refused.items() if how != "400 and closed"} == {}
    above = await here.fates({name: raw for name, (_, raw) in HEADERS.items()})
    assert {name: how for name, how in above.items() if how != "431 and closed"} == {}
    enough = await here.fates({name: raw for name, (raw, _) in HEADERS.items()})
    assert set(enough.values()) == {"401 and open", "404 and open"}
    async with await here.come() as caller:
        await caller.send(BOUNDS["trailers"][1])
        first = await caller.answer()
        assert first.status in (401, 431)  # as the header came alone, or with what follows
        assert await caller.closed()
    assert len(here.origin.requests) == 1
    assert await here.fate(good) == "200 and open"


@asynccontextmanager
async def entrance(folder: Path, way: str) -> AsyncIterator[Entrance]:
    """A server in this process, on this event loop."""
    pair = write_pair(folder) if way == "tls" else None
    async with Origin() as origin:
        services = {"openai": {"origin": origin.url}}
        async with running_relay(
            folder / "data",
            services,
            SETTINGS % "",
            certificate=Certificate(pair) if pair else None,
        ) as up:
            await up.add_key("openai", key=KEY)
            tls = trusting(pair) if pair else None
            yield Entrance(up.url, up.token, origin, tls, NAMED % 1 if way == "front" else b"")
            door = up.extra["door"]
            while door.arrivals.open:  # the test's own time bounds that
                await asyncio.sleep(0.01)
            assert (door.arrivals.refused, door._by_address) == ({"total": 0, "address": 0}, {})


@pytest.mark.parametrize("way", ["plain", "tls", "front"])
async def test_the_whole_table_is_refused_wherever_it_comes_in(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """400 or 431, the end of the connection, and everything that was counted given back."""
    monkeypatch.setattr(patience, "LAST_SECONDS", 1.5)
    async with entrance(tmp_path, way) as here:
        await hold_out(here)


async def crowd(here: Entrance, count: int) -> Counter[str]:
    """So many connections at once: how many are heard, and how many are not."""
    heard: Counter[str] = Counter()

    async def one(stack: AsyncExitStack) -> None:
        try:
            caller = await stack.enter_async_context(await here.come())
            await caller.send(GET.replace(b"/proxy", b"/health/live") % (b"a", b""))
            heard[str((await caller.answer()).status)] += 1
        except (OSError, asyncio.IncompleteReadError):
            heard["nothing"] += 1

    async with AsyncExitStack() as stack, asyncio.timeout(50):
        await asyncio.gather(*(one(stack) for _ in range(count)))
    return heard


async def in_flight(here: Entrance, address: str, count: int) -> int:
    """Calls at once that are said to be somebody's: how many reach the upstream."""
    go, reached, refused = asyncio.Event(), 0, 0

    async def slowly(exchange: Exchange) -> None:
        nonlocal reached
        reached += 1
        await exchange.wait(go)
        await exchange.send(reply(200, [], b"ok"))

    async def one() -> int:
        nonlocal refused
        async with await Caller.connect(here.url, here.tls, address) as caller:
            await caller.send(here.armed(GET % (b"a", NAMED % 9)))
            answer = await caller.answer()
            refused += answer.status == 503
            return answer.status

    here.origin.answer_with(slowly)
    async with asyncio.timeout(50):
        calls = [asyncio.create_task(one()) for _ in range(count)]
        while reached + refused < count:
            await asyncio.sleep(0.01)
        go.set()
        statuses = Counter(await asyncio.gather(*calls))
    here.origin.answer_with(reply(200, [], b""))
    assert statuses == Counter({200: reached, 503: refused})
    return reached


@pytest.mark.parametrize("secured", [False, True])
async def test_workers_refuse_the_same(tmp_path: Path, secured: bool) -> None:
    """Each its share of all connections, and of what a trusted front calls for one address; who is
    not listed as a front says in vain for whom it calls."""
    data, pair = tmp_path / "data", write_pair(tmp_path)
    data.mkdir(mode=0o700)
    more = ", max_connections: 64, max_connections_per_address: 2, log_format: json"
    tls = f", tls_cert: '{pair.chain}', tls_key: '{pair.key}'" if secured else ""
    async with Origin() as origin, team(data, origin, SETTINGS % (more + tls)) as up:
        here = Entrance(up.up.url, up.token, origin, trusting(pair) if secured else None)
        if not secured:  # with TLS the end of a refused connection takes seconds
            await hold_out(here)
        heard = await crowd(here, 80)
        assert 32 <= heard["200"] <= 64
        assert heard["503"] + heard["nothing"] == 80 - heard["200"]
        assert heard["503" if secured else "nothing"] == 0
        while (await crowd(here, 1))["200"] == 0:  # until the others are gone
            await asyncio.sleep(0.01)
        assert 1 <= await in_flight(here, FRONT, 6) <= 2
        assert await in_flight(here, "127.0.0.1", 6) == 6
        await up.up.stop()
    lines = [json.loads(line) for line in up.up.said if line.startswith("{")]
    spoken = {line["address"] for line in lines if line["event"] == "call"}
    assert {"192.0.2.9", "127.0.0.1"} <= spoken <= {"192.0.2.9", "127.0.0.1", FRONT}
    assert [line for line in up.up.said if "Traceback" in line or '"level":"error"' in line] == []
