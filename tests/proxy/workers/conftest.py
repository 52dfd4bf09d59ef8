"""A coordinator over a real socket, and as many ends of workers as a test wants."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from proxy.cache.policy import CacheSettings
from proxy.cache.sqlite import SqliteStore
from proxy.limits.budgets import Budgets
from proxy.limits.counts import LocalCounts
from proxy.limits.ledger import SqliteLedger
from proxy.workers import companion
from proxy.workers.boarding import Boarding
from proxy.workers.companion import Companion, Meeting
from proxy.workers.coordinator import Coordinator
from proxy.workers.counting import Counting
from proxy.workers.passing import Passing
from proxy.workers.reporting import Reporting
from proxy.workers.storing import Storing
from tests.proxy.cache.conftest import a_sealer
from tests.support.clock import FakeClock


@dataclass
class Office:
    """The coordinator, which can be taken away and come back with the same socket."""

    data: Path
    meeting: Meeting
    listener: socket.socket
    clock: FakeClock = field(default_factory=FakeClock)
    companions: list[Companion] = field(default_factory=list)

    async def open(self) -> None:
        settings = CacheSettings(disk_bytes=1 << 26)
        self.store = SqliteStore(self.data / "cache.db", a_sealer(), self.clock, settings)
        await self.store.start()
        budgets = Budgets(SqliteLedger(self.data / "usage.db"), self.clock)
        self.counts = LocalCounts("sliding", budgets, self.clock)
        await self.counts.start()
        self.coordinator = Coordinator(self.meeting)
        self.boarding = Boarding()
        self.reporting = Reporting(self.coordinator.spread)
        for one in (
            Storing(self.store, self.coordinator.spread, self.boarding),
            Counting(self.counts, self.clock),
            Passing(self.coordinator.spread),
            self.boarding,
            self.reporting,
        ):
            self.coordinator.add(one)
        await self.coordinator.serve(self.listener.dup())

    async def close(self) -> None:
        await self.coordinator.stop()
        await self.counts.stop()
        await self.store.close()

    def worker(self) -> Companion:
        """One more, not yet connected."""
        self.companions.append(Companion(self.meeting, len(self.companions) + 1))
        return self.companions[-1]

    async def gone(self) -> None:
        """Takes the coordinator away, until everybody knows."""
        await self.close()
        await until(lambda: not any(one.there for one in self.companions))

    async def back(self) -> None:
        """Brings another one, until everybody is connected."""
        await self.open()
        await until(lambda: all(one.there for one in self.companions))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Office]:
    monkeypatch.setattr(companion, "AGAIN_SECONDS", 0.005)
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        path = tmp_path / "s"
        listener.bind(str(path))
        listener.listen()
        made = Office(tmp_path, Meeting(path, b"s" * 32, 2), listener)
        await made.open()
        try:
            yield made
        finally:
            for one in made.companions:
                await one.stop()
            await made.close()
