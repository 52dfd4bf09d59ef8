"""Equal calls of several processes are one upstream call: the rules of flights, across them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from proxy.messages import Fields
from tests.proxy.cache.conftest import Bench, a_call, open_bench, until
from tests.support.commons import Hub, Member
from tests.support.upstream import Exchange, Reply

AGENTS: Fields = ((b"vary", b"user-agent"),)


def agent(name: bytes, **changes: Any) -> Any:
    return a_call(fields=((b"user-agent", name),), **changes)


@dataclass
class Instances:
    """Caches of several processes, each with its member of one hub."""

    hub: Hub
    benches: list[Bench]
    members: list[Member]
    all: list[Any] = field(default_factory=list)

    @property
    def sent(self) -> int:
        """Upstream calls of all."""
        return sum(len(bench.upstream.sent) for bench in self.benches)

    async def following(self, count: int) -> None:
        flights = [bench.cache._flights for bench in self.benches]
        await until(lambda: sum(f.abroad for one in flights for f in one.all()) == count)


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[Instances]:
    hub = Hub()
    async with AsyncExitStack() as stack:
        benches, members = [], []
        for name in "abc":
            (tmp_path / name).mkdir()
            member = Member(hub)
            opening = open_bench(tmp_path / name, commons=member)
            benches.append(await stack.enter_async_context(opening))
            members.append(member)
        yield Instances(hub, benches, members)


async def leading(three: Instances, call: Any = None) -> tuple[asyncio.Task[Any], Exchange]:
    """A caller of the first instance, whose call has arrived."""
    task = three.benches[0].begin(call)
    return task, await three.benches[0].upstream.next()


async def test_equal_calls_of_three_instances_are_one_upstream_call(three: Instances) -> None:
    """Each is answered with all; whoever did not make the call is told that it was shared."""
    first, exchange = await leading(three)
    others = [bench.begin() for bench in three.benches for _ in range(3)]
    await three.following(2)
    exchange.play(Reply(chunks=(b"a", b"b")))
    answers = await asyncio.gather(first, *others)
    assert {answer.body for answer in answers} == {b"ab"}
    assert three.sent == 1
    text = "keyrelay; fwd=uri-miss; fwd-status=200; stored; collapsed; ttl=3600"
    assert [answer.verdict for answer in answers].count(text) == 9
