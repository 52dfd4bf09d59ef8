"""One SQLite connection in a thread of its own; opens late, rests after a failure, opens again."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from proxy.cache.entry import SchemaTooNew, StoreError
from proxy.clock import Clock
from vault import VaultError

Result = TypeVar("Result")

REST_SECONDS = 5.0
"""How long a database that is locked, gone or full is left alone, so that no call waits for it."""


class Lane:
    """Runs functions on the connection, one after the other; each raises StoreError only."""

    def __init__(self, name: str, connect: Callable[[], sqlite3.Connection], clock: Clock) -> None:
        self._connect = connect
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._rests_until = 0.0
        self._closed = False
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(
        self,
        work: Callable[[sqlite3.Connection], Result],
        unwanted: Callable[[Result], None] | None = None,
    ) -> Result:
        """What `work` returns; `unwanted` takes it when the caller has gone meanwhile."""
        if self._closed or self._clock.monotonic() < self._rests_until:
            raise StoreError("the cache's database is closed, or rests after a failure")
        doing = asyncio.get_running_loop().run_in_executor(self._executor, self._do, work)
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            doing.add_done_callback(partial(_hand_back, unwanted))
            raise
        except (sqlite3.Error, OSError, SchemaTooNew) as error:
            self._rests_until = self._clock.monotonic() + REST_SECONDS
            raise StoreError(f"{type(error).__name__}: {error}") from error
        except VaultError as error:
            raise StoreError(f"{type(error).__name__}: {error}") from error

    def post(self, work: Callable[[], None]) -> None:
        """Runs `work` in the thread, after what waits there; nobody waits for it."""
        if not self._closed:
            self._executor.submit(work)

    async def drop(self) -> None:
        """Closes the connection; the next work opens it again, at once."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self._drop)
        self._rests_until = 0.0

    async def close(self) -> None:
        """Closes the connection and ends the thread."""
        if not self._closed:
            self._closed = True
            await self.drop()
            self._executor.shutdown()

    def _do(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        if self._connection is None:
            self._connection = self._connect()
        return work(self._connection)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _hand_back(unwanted: Callable[[Result], None] | None, done: asyncio.Future[Result]) -> None:
    if not done.cancelled() and done.exception() is None and unwanted is not None:
        unwanted(done.result())
