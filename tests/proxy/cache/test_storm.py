"""Callers who come, leave and fail by chance; whatever happens, certain things hold."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import RelayError, UpstreamIncomplete, UpstreamTimeout
from proxy.messages import Response, value
from tests.proxy.cache.conftest import HOUR, NOW, Body, a_call, until
from tests.proxy.cache.instances import instances, patiently

AGENTS = (b"one", b"two")


class MoodyUpstream:
    """Answers by chance, in pieces; every answer tells what it was asked and who asked."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.count = 0
        self.open = 0

    @asynccontextmanager
    async def send(self, call: Any, grant: Any, body: Any) -> Any:
        asked = b"".join([chunk async for chunk in body])
        agent = value(call.fields, b"user-agent") or b""
        self.count += 1
        self.open += 1
        try:
            await self.pause()
            if self.chance.random() < 0.1:
                raise UpstreamTimeout("late")
            piece = b"%s by %s; " % (asked, agent)
            yield Response(
                self.chance.choice((200, 200, 200, 500)),
                ((b"vary", b"user-agent"),) if asked in (b"1", b"3") else (),
                self.pieces(piece, int(asked) ** 4),
            )
        finally:
            self.open -= 1

    async def pieces(self, piece: bytes, count: int) -> Any:
        for _ in range(count + 1):
            await self.pause()
            if self.chance.random() < 0.05 / (count + 1):
                raise UpstreamIncomplete("cut")
            yield piece * 30

    async def pause(self) -> None:
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)


async def caller(bench: Any, chance: random.Random) -> str:
    number = chance.randrange(7)
    agent = chance.choice(AGENTS)
    call = a_call(
        chance.choice((HOUR, HOUR, HOUR + 5, NOW - 1, None)),
        invalidate=chance.random() < 0.1,
        fields=((b"user-agent", agent),),
        body=Body(b"%d" % number),
    )
    try:
        answer = await bench.get(call)
    except RelayError:
        return "failed"
    piece = b"%d by %s; " % (number, agent)
    whole = piece * 30 * (number**4 + 1)
    if number not in (1, 3) and not answer.body.startswith(piece):
        whole = whole.replace(b"one", b"xxx").replace(b"two", b"one").replace(b"xxx", b"two")
    assert answer.body == whole
    assert answer.status == 200 or not answer.hit
    return "hit" if answer.hit else "whole"


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_nobody_gets_a_wrong_or_half_answer(opened: Any, seed: int) -> None:
    """And in the end nothing is left open: no call, no flight, no pinned row."""
    chance = random.Random(seed)
    bounds = {"memory_bytes": 20_000, "spool_memory_bytes": 3000, "max_entry_bytes": 300_000}
    async with opened(disk_bytes=1_000_000, **bounds) as bench:
        upstream = MoodyUpstream(chance)
        bench.cache._upstream = upstream  # type: ignore[assignment]
        outcomes: list[Any] = []
        for _ in range(15):
            tasks = [asyncio.create_task(caller(bench, chance)) for _ in range(30)]
            for task in chance.sample(tasks, 6):
                for _ in range(chance.randrange(20)):
                    await asyncio.sleep(0)
                task.cancel()
            outcomes += await asyncio.gather(*tasks, return_exceptions=True)
        assert [o for o in outcomes if isinstance(o, Exception)] == []
        assert outcomes.count("hit") > 50
        assert outcomes.count("whole") > 50
        assert upstream.count < 400
        await bench.landed()
        assert upstream.open == 0
        await bench.cache.stats()
        await until(lambda: not bench.store._pins._readers)


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_whatever_happens_between_instances_nobody_gets_a_wrong_or_half_answer(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    """And in the end nobody leads or follows, and nothing stays in Redis without an end."""
    chance = random.Random(7)
    redis = request.getfixturevalue("redis") if kind == "redis" else None
    bounds = {"memory_bytes": 20_000, "spool_memory_bytes": 3000, "max_entry_bytes": 300_000}
    async with instances(tmp_path, redis, disk_bytes=1_000_000, **bounds) as three:
        upstream = MoodyUpstream(chance)
        for one in three.all:
            object.__setattr__(one.bench.cache._shares, "upstream", upstream)
            one.bench.cache._upstream = upstream  # type: ignore[assignment]
        outcomes: list[Any] = []
        for _ in range(4):
            callers = [caller(chance.choice(three.all).bench, chance) for _ in range(40)]
            tasks = [asyncio.create_task(one) for one in callers]
            for task in chance.sample(tasks, 6):
                for _ in range(chance.randrange(20)):
                    await asyncio.sleep(0)
                task.cancel()
            outcomes += await asyncio.gather(*tasks, return_exceptions=True)
        assert [o for o in outcomes if isinstance(o, Exception)] == []
        assert outcomes.count("whole") > 20
        await three.landed()
        for one in three.all:
            shares: Any = one.bench.cache._shares
            await patiently(lambda shares=shares: not shares.tasks)  # type: ignore[misc]
        assert upstream.open == 0
        if redis is not None:
            assert [one.commons.parties for one in three.all] == [{}, {}, {}]
            names = [name for name in redis.say("keys", "*").split() if "tenants" not in name]
            # -2: it has ended since it was listed.
            assert [name for name in names if int(redis.say("pttl", name)) == -1] == []
