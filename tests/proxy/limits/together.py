"""Several instances over one Redis, without the relays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from proxy.engine import PAUSE_SECONDS, Engine, Place
from proxy.errors import RelayError
from proxy.limits.budgets import Budgets
from proxy.limits.census import Census, FileCensus
from proxy.limits.counts import Kind
from proxy.limits.instances import Instances
from proxy.limits.limits import Limits
from proxy.limits.rules import Bill
from proxy.limits.shared import SharedCounts
from proxy.record import Account
from tests.proxy.limits.conftest import Book, granted
from tests.support.clock import FakeClock


@dataclass
class Member:
    """One instance. `runs`: the runs that it was told of."""

    clock: FakeClock
    engine: Engine
    instances: Instances
    counts: SharedCounts
    limits: Limits
    runs: list[str]

    async def call(self, **grant: object) -> bool:
        """Whether a call comes in."""
        try:
            await self.limits.check(granted(**grant), Account())  # type: ignore[arg-type]
        except RelayError:
            return False
        return True

    async def send(self, **grant: object) -> bool:
        """Whether a call goes out."""
        try:
            await self.limits.spend(self.sending(**grant))
        except RelayError:
            return False
        return True

    def sending(self, **grant: object) -> Bill:
        """What a call takes that goes out."""
        plan = self.limits.plan(granted(**grant))  # type: ignore[arg-type]
        assert plan is not None
        assert plan.upstream_calls is not None
        return plan.upstream_calls

    def coming(self, **grant: object) -> Bill:
        """What a call takes that comes in."""
        plan = self.limits.plan(granted(**grant))  # type: ignore[arg-type]
        assert plan is not None
        [bill] = plan.calls
        return bill

    async def find_again(self) -> None:
        """Asks until Redis is there."""
        async with asyncio.timeout(30):
            while not self.engine.up:
                self.clock.advance(PAUSE_SECONDS)
                await self.instances.beat()
        await self.instances.beat()


@asynccontextmanager
async def together(
    url: str, members: int = 3, *, kind: Kind = "sliding", books: list[Book] | None = None
) -> AsyncIterator[list[Member]]:
    """So many instances, under a name of their own. `books`: their ledgers."""
    prefix = f"test-{token_hex(4)}"
    made = [
        member(url, prefix, kind, (books or [Book() for _ in range(members)])[at])
        for at in range(members)
    ]
    for one in made:
        await one.instances.start()
        await one.counts.start()
    for one in made:
        await one.instances.beat()
    try:
        yield made
    finally:
        for one in made:
            await one.counts.stop()
            await one.instances.stop()
            await one.engine.aclose()


def member(url: str, prefix: str, kind: Kind, book: Book, census: Census | None = None) -> Member:
    """One, not yet started; `census`: where it keeps how many there are."""
    clock, runs = FakeClock(), []
    engine = Engine(Place.of(url), prefix, clock)
    instances = Instances(engine, token_hex(4), census or FileCensus(Path("/nowhere")))
    instances.when_running(runs.append)
    counts = SharedCounts(engine, instances, kind, Budgets(book, clock), clock)
    return Member(clock, engine, instances, counts, Limits([], counts, clock), runs)
