"""Several processes that serve as one: `serve --workers 2` in processes of its own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.caller import Answered, Caller
from tests.support.origin import Exchange, Origin, reply
from tests.support.team import Team, team
from vault import NewToken

KEPT = "&cache=1893456000"
LARGE = os.urandom(700_000)
QUOTAS = """
server: {metrics_listen: '127.0.0.1:0', shutdown_grace: 20s}
limits: {quotas: [{token: caller, upstream_calls: 30/hour, budget: 40}]}
"""


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with Origin(reply(200, [], b"answer")) as one:
        yield one


@pytest.fixture
def data(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    return data


def is_hit(answer: Answered) -> bool:
    return "; hit" in (answer.header("cache-status") or "")


async def hit(up: Team, caller: Caller, path: str) -> Answered:
    """The answer once it is written; the test's own time bounds that."""
    while not is_hit(answer := await up.ask(caller, up.target(path, KEPT))):
        await asyncio.sleep(0.01)
    return answer


async def test_workers_share_one_cache_and_one_vault(data: Path, origin: Origin) -> None:
    """What one has kept the other answers, large and small; equal calls are one upstream call; what
    one has renewed the other forgets; a revoked token ends at each of them."""
    release = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await release.wait()
        await exchange.send(reply(200, [], b"late"))

    async with team(data, origin) as up:
        one, other = await up.meet(2)
        assert (await up.ask(one, up.target("/v1/x", KEPT))).status == 200
        await hit(up, other, "/v1/x")
        origin.answer_with(slow)
        calls = len(origin.requests)
        target = up.target("/v1/slow", KEPT)
        asked = [asyncio.create_task(up.ask(caller, target)) for caller in (one, other)]
        await up.until(lambda: len(origin.requests) > calls)
        release.set()
        assert [(await task).body for task in asked] == [b"late", b"late"]
        assert len(origin.requests) == calls + 1
        origin.answer_with(reply(200, [], LARGE))
        await up.ask(one, up.target("/v1/large", KEPT))
        assert (await hit(up, other, "/v1/large")).body == LARGE
        origin.answer_with(reply(200, [("Vary", "User-Agent")], b"varies"))
        await up.ask(one, up.target("/v1/vary", KEPT), **{"User-Agent": "a"})
        calls = len(origin.requests)
        while not is_hit(await up.ask(other, up.target("/v1/vary", KEPT), **{"User-Agent": "a"})):
            await asyncio.sleep(0.01)
        told = await up.ask(other, up.target("/v1/vary", KEPT), **{"User-Agent": "b"})
        assert not is_hit(told)
        assert len(origin.requests) > calls
        origin.answer_with(reply(200, [], b"newer"))
        renewed = await up.ask(one, up.target("/v1/x", f"{KEPT}&invalidate"))
        assert renewed.body == b"newer"
        while (await hit(up, other, "/v1/x")).body != b"newer":
            await asyncio.sleep(0.01)
        await up.vault.revoke_token("default", "caller")
        target = up.target("/v1/x", KEPT)
        for caller in (one, other):
            while (await up.ask(caller, target)).status != 401:
                await asyncio.sleep(0.05)


async def test_workers_count_together(data: Path, origin: Origin) -> None:
    """A window holds for all workers, to the call, and so do the calls of a short-lived token; what
    metrics tell is the sum, also with a worker that was killed."""
    async with team(data, origin, QUOTAS) as up:
        callers = await up.meet(2)
        before = len(origin.requests)
        rounds = [
            await asyncio.gather(
                *(up.ask(caller, up.target(f"/v1/{number}")) for caller in callers)
            )
            for number in range(20)
        ]
        statuses = [answer.status for answers in rounds for answer in answers]
        assert (statuses.count(200), statuses.count(429)) == (30, 10)
        assert len(origin.requests) - before == 30
        await short_lived(up)
        found = await metrics(up)
        assert found["keyrelay_requests_total"] >= 40
        up.kill(up.pids()[-1])
        await up.until(lambda: len(up.pids()) == 3)
        again = await metrics(up)
        assert again["keyrelay_requests_total"] >= found["keyrelay_requests_total"]


async def short_lived(up: Team) -> None:
    """A token that is good at every worker, and for so many calls in all."""
    one, other = await up.meet(2)
    _, wide = await up.vault.issue_token(NewToken("default", "another"))
    fields = ("Authorization", f"Bearer {wide}"), ("Content-Type", "application/json")
    status = 0
    while status != 201:  # until the new token is known there
        await one.request("POST", "/tokens", *fields, body=b'{"calls": 3}')
        status = (made := await one.answer()).status
    up.token, before = made.json()["token"], up.token
    callers = one, other, one, other
    statuses = [(await up.ask(caller, up.target())).status for caller in callers]
    assert statuses == [200, 200, 200, 429]
    up.token = before


async def metrics(up: Team) -> dict[str, float]:
    """The sums of each family."""
    [place] = re.findall(r"metrics on (http://\S+)/metrics", up.up.said[0])
    while True:
        async with await Caller.connect(place) as caller:
            await caller.request("GET", "/metrics")
            answer = await caller.answer()
        if answer.status == 200:
            break
        await asyncio.sleep(0.05)
    sums: dict[str, float] = {}
    for line in answer.body.decode().splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            family = name.partition("{")[0]
            sums[family] = sums.get(family, 0.0) + float(value)
    return sums


async def test_who_is_replaced_while_the_file_is_broken_goes_on_as_the_others(
    data: Path, origin: Origin
) -> None:
    """With what was taken up last, declared or not."""
    async with team(data, origin) as up:
        _coordinator, *workers = up.pids()
        file = data / "keys.yaml"
        first = file.read_text()
        file.write_text(f"{first}limits: {{quotas: [{{token: caller, calls: 77/hour}}]}}\n")
        await up.until(lambda: up.told("configuration taken up: limits.quotas") == 2)
        file.write_text(f"{first}limits: {{")
        await up.until(lambda: up.told("configuration not taken up") == 2)
        up.kill(workers[0])
        await up.until(lambda: up.told("configuration not taken up") == 3)
        for caller in await up.meet(2):
            answer = await up.ask(caller, up.target())
            assert '"token-hour";q=77' in (answer.header("ratelimit-policy") or "")
        assert up.told("another takes its place") == 1


async def test_who_dies_is_replaced_and_nobody_else_notices(data: Path, origin: Origin) -> None:
    """A worker that is killed takes its own calls with it; without the coordinator calls go on.
    Both come again. SIGHUP reaches every worker, and SIGTERM waits for a call in flight."""
    release = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await release.wait()
        await exchange.send(reply(200, [], b"late"))

    async with team(data, origin, QUOTAS) as up:
        one, other = await up.meet(2)
        coordinator, *workers = up.pids()
        up.kill(workers[0])
        asked = [up.ask(caller, up.target("/v1/y")) for caller in (one, other)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(a) for a in answers].count(Answered) == 1
        lasting = one if isinstance(answers[0], Answered) else other
        await up.until(lambda: len(up.pids()) == 3)
        up.kill(coordinator)
        assert (await up.ask(lasting, up.target("/v1/z", KEPT))).status == 200
        await up.until(lambda: len(up.pids()) == 3)
        await hit(up, lasting, "/v1/z")
        up.up.process.send_signal(signal.SIGHUP)
        await up.until(lambda: sum("configuration read" in line for line in up.up.said) == 2)
        origin.answer_with(slow)
        waiting = asyncio.create_task(up.ask(lasting, up.target("/v1/slow")))
        await up.until(lambda: origin.last.target.endswith("/slow"))
        up.up.process.send_signal(signal.SIGTERM)
        release.set()
        assert (await waiting).body == b"late"
        assert await up.up.stop() == 0
    words = "".join(up.up.said)
    assert "was killed by signal 9; another takes its place" in words
    assert "keyrelay has stopped" in words
