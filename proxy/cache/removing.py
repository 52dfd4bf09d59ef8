"""Takes out of the store what purges cover, all that wait in one go, while calls go on.

Nobody is answered with it any more: the cache knows its purges. What the store refuses is tried
again; what a stop leaves is taken out after the next start, which is told of all purges again.
"""

from __future__ import annotations

import asyncio

from proxy.cache.entry import Store
from proxy.cache.purges import Purges
from proxy.cache.trouble import Trouble
from vault import Purge


class Removing:
    """The purges whose answers are still to go."""

    def __init__(self, store: Store, trouble: Trouble) -> None:
        self._store = store
        self._trouble = trouble
        self._waiting = Purges()
        self._refused = Purges()
        self._task: asyncio.Task[None] | None = None

    def add(self, *purges: Purge) -> None:
        """More of them."""
        for purge in purges:
            self._waiting.add(purge)
        if purges and self._task is None:
            self._task = asyncio.create_task(self._run(), name="keyrelay-cache-purges")

    def try_again(self) -> None:
        """Those that the store has refused."""
        self.add(*self._refused.take())

    async def done(self) -> None:
        """Waits until nothing is left to go but what the store has refused."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def aclose(self) -> None:
        """Gives up what is left."""
        self._waiting.take()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while purges := self._waiting.take():
                await self._remove(purges)
        finally:
            self._task = None

    async def _remove(self, purges: tuple[Purge, ...]) -> None:
        try:
            await self._store.purge(*purges)
        except Exception as error:  # whatever it is, the next one may succeed
            for purge in purges:
                self._refused.add(purge)
            self._trouble.tell("purge its store", error)
