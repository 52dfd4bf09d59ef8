"""One SQLite connection in a thread of its own; opens late, rests after a failure, opens again."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

from proxy.cache.entry import SchemaTooNew, StoreError
from proxy.clock import Clock
from vault import VaultError

Result = TypeVar("Result")

REST_SECONDS = 5.0
"""How long a database that is locked, gone or full is left alone, so that no call waits for it."""

TRIP_SECONDS = 0.00025
"""After so long a load comes back with what is done: large pieces fill a turn of the loop."""


class _Work(NamedTuple):
    """What is to be done, who waits for it, and who takes a result that nobody waits for."""

    do: Callable[[], Any]
    answer: asyncio.Future[Any]
    unwanted: Callable[[Any], None] | None


class _Done(NamedTuple):
    result: Any
    error: Exception | None


class Lane:
    """Runs functions on the connection, one after the other; each raises StoreError only.

    Up to `most` that wait go into the thread together, if they are short: each way there and back
    makes two threads wrangle for the interpreter, which takes longer than to read a small answer.
    """

    def __init__(
        self, name: str, connect: Callable[[], sqlite3.Connection], clock: Clock, most: int = 1
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._most = most
        self._connection: sqlite3.Connection | None = None
        self._rests_until = 0.0
        self._closed = False
        self._waiting: deque[_Work] = deque()
        self._busy = False
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(
        self,
        work: Callable[[sqlite3.Connection], Result],
        unwanted: Callable[[Result], None] | None = None,
    ) -> Result:
        """What `work` returns; `unwanted` takes it when the caller has gone meanwhile."""
        if self._closed or self._clock.monotonic() < self._rests_until:
            raise StoreError("the cache's database is closed, or rests after a failure")
        try:
            return cast(Result, await self._soon(partial(self._do, work), unwanted))
        except (sqlite3.Error, OSError, SchemaTooNew) as error:
            self._rests_until = self._clock.monotonic() + REST_SECONDS
            raise StoreError(f"{type(error).__name__}: {error}") from error
        except VaultError as error:
            raise StoreError(f"{type(error).__name__}: {error}") from error

    def post(self, work: Callable[[], None]) -> None:
        """Runs `work` in the thread, after what waits there; nobody waits for it."""
        if not self._closed:
            self._soon(work)

    async def drop(self) -> None:
        """Closes the connection; the next work opens it again, at once."""
        await self._soon(self._drop)
        self._rests_until = 0.0

    async def close(self) -> None:
        """Closes the connection and ends the thread."""
        if not self._closed:
            self._closed = True
            await self.drop()
            self._executor.shutdown()

    # To the thread and back.

    def _soon(
        self, do: Callable[[], Any], unwanted: Callable[[Any], None] | None = None
    ) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        work = _Work(do, loop.create_future(), unwanted)
        self._waiting.append(work)
        if not self._busy:
            self._send(loop)
        return work.answer

    def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        load = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
        self._busy = bool(load)
        if load:
            self._executor.submit(self._carry_out, load, loop)

    def _carry_out(self, load: Sequence[_Work], loop: asyncio.AbstractEventLoop) -> None:
        """In the thread."""
        done: list[_Done] = []
        until = self._clock.monotonic() + TRIP_SECONDS
        for work in load:
            done.append(_done(work))
            if self._clock.monotonic() >= until:
                break
        loop.call_soon_threadsafe(self._came_back, load, done, loop)

    def _came_back(
        self, load: Sequence[_Work], done: Sequence[_Done], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._waiting.extendleft(reversed(load[len(done) :]))
        try:
            for work, outcome in zip(load, done, strict=False):
                _tell(work, outcome)
        finally:
            self._send(loop)

    def _do(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        if self._connection is None:
            self._connection = self._connect()
        return work(self._connection)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _done(work: _Work) -> _Done:
    try:
        return _Done(work.do(), None)
    except Exception as error:  # theirs who asked, not the thread's
        return _Done(None, error)


def _tell(work: _Work, done: _Done) -> None:
    if not work.answer.done():
        if done.error is None:
            work.answer.set_result(done.result)
        else:
            work.answer.set_exception(done.error)
    elif done.error is None and work.unwanted is not None:
        work.unwanted(done.result)
