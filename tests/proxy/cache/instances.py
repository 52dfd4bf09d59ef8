"""Caches of several processes with something in common: in memory, or in a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.cache.commons import Commons
from proxy.cache.policy import CacheSettings
from proxy.cache.redis import RedisStore
from proxy.cache.redis_commons import RedisCommons
from proxy.clock import SystemClock
from proxy.engine import Engine, Gone, Place
from tests.proxy.cache.conftest import NOW, Bench, Reader, a_sealer, open_bench, until
from tests.support.clock import FakeClock
from tests.support.commons import Hub, Member
from tests.support.engines import RunningRedis
from tests.support.upstream import Exchange


class Wire(Engine):
    """The way of one process to Redis, that can be cut."""

    is_cut = False
    patience = 10.0

    async def run(self, ask: Any, seconds: float = 0.0) -> Any:
        if self.is_cut:
            raise Gone("cut")
        return await super().run(ask, self.patience)


@dataclass
class Instance:
    """One process."""

    bench: Bench
    commons: Any
    wire: Wire | None = None

    def die(self) -> None:
        """To the others it is as after kill -9."""
        if self.wire is None:
            self.commons.die()
        else:
            self.wire.is_cut = True

    async def read(self, call: Any = None) -> asyncio.Task[Reader]:
        """A caller who waits for the header."""
        task = asyncio.create_task(Reader(self.bench, call).__aenter__())
        self.bench.tasks.append(task)
        return task


@dataclass
class Instances:
    """All of them."""

    all: list[Instance]
    readers: list[Reader] = field(default_factory=list)

    def __getitem__(self, number: int) -> Instance:
        return self.all[number]

    @property
    def sent(self) -> list[int]:
        """How many upstream calls each has made."""
        return [len(one.bench.upstream.sent) for one in self.all]

    async def lead(self, call: Any = None) -> tuple[asyncio.Task[Any], Exchange]:
        """A caller of the first instance, whose call has arrived."""
        task = self[0].bench.begin(call)
        return task, await self[0].bench.upstream.next()

    async def follow(self, count: int) -> None:
        """Waits until so many flights hear another's answer."""
        flights = [one.bench.cache._flights for one in self.all]
        await patiently(lambda: sum(f.abroad for one in flights for f in one.all()) == count)

    async def followed(self, leader: int) -> None:
        """Waits until somebody follows what an instance leads."""
        flights = self[leader].bench.cache._flights
        tellers = [f.sharing._teller for f in flights.all() if f.sharing is not None]  # type: ignore
        others = [one.commons for one in self.all if one is not self[leader]]

        def is_followed(lead: Any) -> bool:
            if self[leader].wire is None:
                return bool(lead.leading.followers)
            return any(lead.id in commons.parties for commons in others)

        await patiently(lambda: any(is_followed(one.lead) for one in tellers if one is not None))

    async def next(self) -> tuple[int, Exchange]:
        """The next upstream call, whoever makes it."""
        waiting = [asyncio.create_task(one.bench.upstream.next()) for one in self.all]
        done, others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        (first,) = done
        return waiting.index(first), first.result()

    async def landed(self) -> None:
        """Nothing is in the air."""
        for one in self.all:
            await patiently(lambda one=one: not one.bench.cache._flights.all())  # type: ignore[misc]

    @property
    def apart(self) -> int:
        """How many answers two keep of one call that each has made for itself."""
        return 2 if self[0].wire is None else 1

    async def kept(self) -> int:
        """How many answers are stored, wherever."""
        stores = [one.bench.store for one in self.all if one.wire is None or one is self[0]]
        return sum([(await store.stats()).entries for store in stores])


async def patiently(condition: Any) -> None:
    """Waits for what takes its way through Redis."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def instances(
    path: Path, redis: RunningRedis | None, count: int = 3, **settings: Any
) -> AsyncIterator[Instances]:
    """So many caches, each over an upstream of its own, and a store of its own where there is no
    Redis. One whose wire is cut still has its way to the store."""
    hub, made = Hub(), []
    if redis is not None:
        redis.say("flushall")
    async with AsyncExitStack() as stack:
        for number in range(count):
            folder = path / str(number)
            folder.mkdir()
            clock = FakeClock(NOW)
            wire, store = _over(redis, stack, clock, **settings) if redis else (None, None)
            commons: Commons = RedisCommons(wire, a_sealer()) if wire else Member(hub)
            opening = open_bench(folder, commons=commons, store=store, clock=clock, **settings)
            made.append(Instance(await stack.enter_async_context(opening), commons, wire))
        yield Instances(made)


def _over(
    redis: RunningRedis, stack: AsyncExitStack, clock: FakeClock, **settings: Any
) -> tuple[Wire, RedisStore]:
    wires = [Wire(Place.of(redis.url), "keyrelay-test", SystemClock()) for _ in range(2)]
    for wire in wires:
        stack.push_async_callback(wire.aclose)
    kept = CacheSettings(**settings)
    return wires[0], RedisStore(wires[1], a_sealer(), clock, kept)


__all__ = ["Instance", "Instances", "Wire", "instances", "patiently", "until"]
