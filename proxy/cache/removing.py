"""Takes out of the store what purges cover, one purge after the other, while calls go on.

Nobody is answered with it any more: the cache knows its purges. What a stop leaves is taken out
after the next start, which is told of all purges again.
"""

from __future__ import annotations

import asyncio
from collections import deque

from proxy.cache.entry import Store
from proxy.cache.trouble import Trouble
from vault import Purge


class Removing:
    """The purges whose answers are still to go."""

    def __init__(self, store: Store, trouble: Trouble) -> None:
        self._store = store
        self._trouble = trouble
        self._waiting: deque[Purge] = deque()
        self._task: asyncio.Task[None] | None = None

    def add(self, purge: Purge) -> None:
        """One more."""
        self._waiting.append(purge)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="keyrelay-cache-purges")

    async def done(self) -> None:
        """Waits until nothing is left to go."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def aclose(self) -> None:
        """Gives up what is left."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._remove(self._waiting.popleft())
        finally:
            self._task = None

    async def _remove(self, purge: Purge) -> None:
        try:
            await self._store.purge(purge)
        except Exception as error:  # whatever it is, the next one may succeed
            self._trouble.tell("purge its store", error)
