"""The coordinator's process: what it opens, and its life."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import uvloop

from proxy.cache.cache import STORES
from proxy.cache.entry import SchemaTooNew, Store, StoreError
from proxy.cache.policy import CacheSettings
from proxy.cli.desk import Desk
from proxy.cli.failures import Failed
from proxy.cli.leash import STOP, Leash
from proxy.cli.session import open_vault_of
from proxy.config import Config
from proxy.limits.budgets import Budgets
from proxy.limits.counts import LocalCounts
from proxy.limits.keeping import ledger_at
from proxy.logs import LogSettings, logging_to
from proxy.workers.boarding import Boarding
from proxy.workers.companion import Meeting
from proxy.workers.coordinator import Coordinator
from proxy.workers.counting import Counting
from proxy.workers.passing import Passing
from proxy.workers.reporting import Reporting
from proxy.workers.storing import Storing
from vault import Vault, VaultError

STANDARD_ERROR: Final = 2
SWEEP_SECONDS: Final = 60.0
REFRESH_SECONDS: Final = 0.5
LAST_SECONDS: Final = 30.0
"""So long it waits for workers that still end, if the supervisor has gone before them."""

_log = logging.getLogger("keyrelay.workers")


@dataclass(frozen=True, slots=True)
class Duty:
    """What a coordinator works with; `listener`: where workers come."""

    desk: Desk
    config: Config
    meeting: Meeting
    listener: socket.socket


def coordinate(duty: Duty, leash: Leash, settings: LogSettings) -> int:
    """Until it is told to stop; the exit code."""
    with (
        logging_to(STANDARD_ERROR, settings),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_coordinate(duty, leash))
    return 0


async def _coordinate(duty: Duty, leash: Leash) -> None:
    stopping = asyncio.Event()
    leash.follow({STOP: stopping.set})
    coordinator = Coordinator(duty.meeting)
    coordinator.add(Reporting(coordinator.spread))
    coordinator.add(Passing(coordinator.spread))
    async with contextlib.AsyncExitStack() as stack:
        if duty.config.cache.url is None:  # else workers share all of it there
            await _keep(duty, coordinator, stack)
        await coordinator.serve(duty.listener)
        leash.ready()
        await _until(stopping, coordinator)
        await coordinator.stop()


async def _keep(duty: Duty, coordinator: Coordinator, stack: contextlib.AsyncExitStack) -> None:
    """Opens the cache and begins to count."""
    desk, config = duty.desk, duty.config
    vault = await open_vault_of(desk, config, actor="serve")
    stack.push_async_callback(vault.close)
    store = await stack.enter_async_context(_store(desk, config, vault))
    url = config.vault.url
    ledger = ledger_at(desk.data, None if url is None else url.text)
    counts = LocalCounts(config.limits.window, Budgets(ledger, desk.clock), desk.clock)
    await counts.start()
    stack.push_async_callback(counts.stop)
    boarding = Boarding()
    coordinator.add(boarding)
    coordinator.add(Storing(store, coordinator.spread, boarding))
    coordinator.add(Counting(counts, desk.clock))


@contextlib.asynccontextmanager
async def _store(desk: Desk, config: Config, vault: Vault) -> AsyncIterator[Store]:
    """The one store on disk, swept as long as the context lasts; one that can't be opened is tried
    again when somebody asks."""
    settings = CacheSettings(**config.cache.model_dump())
    sealer = await vault.sealer("cache-bodies")
    store = STORES["sqlite"](desk.data / "cache.db", sealer, desk.clock, settings)
    try:
        await store.start()
    except SchemaTooNew as error:
        raise Failed(str(error)) from error
    except StoreError as error:
        _log.warning("cache can't open its store; calls go on without it: %s", error)
    tasks = [asyncio.create_task(_sweep(desk, store)), asyncio.create_task(_refresh(vault))]
    try:
        yield store
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await store.close()


async def _sweep(desk: Desk, store: Store) -> None:
    while True:
        with contextlib.suppress(StoreError):
            await store.sweep(desk.clock.now())
        await asyncio.sleep(SWEEP_SECONDS)


async def _refresh(vault: Vault) -> None:
    """A master key that was rotated, a data key that another process made."""
    while True:
        await asyncio.sleep(REFRESH_SECONDS)
        with contextlib.suppress(VaultError):
            await vault.refresh()


async def _until(stopping: asyncio.Event, coordinator: Coordinator) -> None:
    """It goes after the last worker."""
    await stopping.wait()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_SECONDS):
            await coordinator.left_alone()
