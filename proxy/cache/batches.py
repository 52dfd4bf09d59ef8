"""Answers that wait for the store: written in their order, many in one go, none of them long."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from proxy.cache.entry import Entry, StoredBody
from proxy.cache.key import Select

PACE = 0.03
"""Seconds that answers wait for others to be written with."""

MANY = 64
"""Answers that are written in one go at most; with so many, none waits any longer."""

MUCH = 2 << 20
"""Octets of their bodies that are written in one go, or little more."""


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """An answer that waits. `octets`: its body; None: it is large, and `body` is read in pieces."""

    entry: Entry
    select: Select
    body: StoredBody
    octets: bytes | None


class Batches:
    """Calls `write` with small answers together, or with one large answer; one call at a time."""

    def __init__(self, write: Callable[[Sequence[Waiting]], Awaitable[None]]) -> None:
        self._write = write
        self._waiting: deque[tuple[Waiting, asyncio.Future[None]]] = deque()
        self._octets = 0
        self._enough = asyncio.Event()
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    async def put(self, waiting: Waiting) -> None:
        """Returns when it is written; raises what `write` raised."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((waiting, done))
        self._octets += _weight(waiting)
        if self._closed or len(self._waiting) >= MANY or self._octets >= MUCH:
            self._enough.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="keyrelay-cache-batches")
        await done

    async def close(self) -> None:
        """Waits until all is written; what comes later waits for nothing else."""
        self._closed = True
        self._enough.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while self._waiting:
            await self._gather()
            batch = self._next()
            try:
                await self._write([waiting for waiting, _done in batch])
            except Exception as error:  # for those who wait to tell
                _tell(batch, error)
            else:
                _tell(batch, None)
        self._task = None

    async def _gather(self) -> None:
        timer = asyncio.get_running_loop().call_later(PACE, self._enough.set)
        await self._enough.wait()
        timer.cancel()
        if not self._closed:
            self._enough.clear()

    def _next(self) -> list[tuple[Waiting, asyncio.Future[None]]]:
        batch: list[tuple[Waiting, asyncio.Future[None]]] = []
        octets = 0
        while self._waiting and len(batch) < MANY and octets < MUCH:
            large = self._waiting[0][0].octets is None
            if large and batch:
                break
            batch.append(self._waiting.popleft())
            octets += _weight(batch[-1][0])
            if large:
                break
        self._octets -= octets
        if len(self._waiting) >= MANY or self._octets >= MUCH:
            self._enough.set()
        return batch


def _weight(waiting: Waiting) -> int:
    return MUCH if waiting.octets is None else len(waiting.octets)


def _tell(batch: list[tuple[Waiting, asyncio.Future[None]]], error: Exception | None) -> None:
    for _waiting, done in batch:
        if done.done():  # whoever put it has gone
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
