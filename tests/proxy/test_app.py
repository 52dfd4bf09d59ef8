"""What a running server takes up: no fault of one thing keeps another from it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from proxy.app import Changes
from proxy.outage import Outage
from proxy.reload import Reloading
from tests.support.clock import FakeClock
from tests.support.vaults import begin
from vault import NewToken, Purge, Vault, VaultError, open_vault


class Files:
    """A configuration that can't be looked at. `looked`: how often that was tried."""

    live: frozenset[str] = frozenset()

    def __init__(self, trouble: Exception | None) -> None:
        self.trouble = trouble
        self.looks: asyncio.Queue[None] = asyncio.Queue()

    def ask_if_refused(self) -> None:
        """Nothing was."""

    async def look(self) -> None:
        self.looks.put_nowait(None)
        if self.trouble is None:
            await asyncio.Event().wait()  # for ever
        raise cast(Exception, self.trouble)


class Cache:
    """What is told to end answers. The first time it can't."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[int] = asyncio.Queue()
        self.works = False

    def apply_purges(self, purges: tuple[Purge, ...]) -> None:
        if not self.works:
            self.works = True
            raise VaultError("not now")
        self.told.put_nowait(len(purges))


@asynccontextmanager
async def following(vault: Vault, files: Files, cache: Cache) -> AsyncIterator[None]:
    forwarder = SimpleNamespace(forget=lambda: None)
    way: Any = SimpleNamespace(cache=cache, forwarder=forwarder)
    outage = Outage(FakeClock(), 300, vault.lapse)
    changes = Changes(vault, way, cast(Reloading, files), outage)
    task = asyncio.create_task(changes.follow())
    yield
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.fixture
async def vault(tmp_path: Path) -> AsyncIterator[Vault]:
    begin(tmp_path / "data")
    vault = await open_vault(tmp_path / "data", {}, FakeClock(), actor="test")
    yield vault
    await vault.close()


@pytest.mark.parametrize("trouble", [RecursionError("CANARY"), None])
async def test_no_fault_of_the_files_keeps_a_change_of_the_vault(
    vault: Vault, trouble: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it is, even one that never ends; and a purge that failed is tried again."""
    files, cache = Files(trouble), Cache()
    await vault.issue_token(NewToken("default", "one"))
    async with asyncio.timeout(20), following(vault, files, cache):
        await files.looks.get()
        assert await cache.told.get() == 0
        await vault.purge(Purge(1.0, "default", None))
        assert await cache.told.get() == 1


async def test_a_fault_is_told_once_until_it_changes(
    vault: Vault, caplog: pytest.LogCaptureFixture
) -> None:
    """By its kind and its place: its text may hold anything."""
    files = Files(RecursionError("CANARY"))
    async with asyncio.timeout(20), following(vault, files, Cache()):
        for _ in range(4):
            await files.looks.get()
        files.trouble = KeyError("CANARY")
        for _ in range(3):
            await files.looks.get()
    told = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert [one.rpartition(" ")[2] for one in told if "unexpected" in one] == [
        "RecursionError",
        "KeyError",
    ]
    assert "CANARY" not in caplog.text
