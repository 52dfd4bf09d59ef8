"""Hears which keys other processes write to Redis, so that none is answered from memory after that.

While nobody can be heard, nothing is answered from memory: what may be old is not guessed at.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, Final, Protocol

from proxy.cache.redis import RedisStore
from proxy.causes import lineage
from proxy.engine import DEADLINE_SECONDS, PAUSE_SECONDS, Engine, Gone

SILENCE_SECONDS: Final = 1.0
"""After so long without a word Redis is asked whether it is there; it has as long to say so."""

_log = logging.getLogger("keyrelay.cache")


class Remembering(Protocol):
    """What is asked of the cache."""

    def forget(self, key: bytes) -> None:
        """Another process has replaced what is stored under this key."""
        ...

    def remember(self, hears: bool) -> None:
        """Forgets all that is in memory; it stays so unless it `hears`."""
        ...


class Hearing:
    """One subscription, made again whenever it is lost."""

    def __init__(self, engine: Engine, store: RedisStore, cache: Remembering) -> None:
        self._engine = engine
        self._store = store
        self._cache = cache
        self._task: asyncio.Task[None] | None = None
        self._told = ""
        self.hears = False

    async def start(self) -> None:
        """Begins to listen; a Redis that is gone is listened to when it is back."""
        self._cache.remember(False)
        self._task = asyncio.create_task(self._listen_forever(), name="keyrelay-cache-hearing")

    async def stop(self) -> None:
        """Ends it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _listen_forever(self) -> None:
        while True:
            try:
                await self._listen()
            except Exception as error:  # whatever it is, the next try may succeed
                self._tell(error)
            finally:
                self._become(False)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _listen(self) -> None:
        subscription = self._engine.client.pubsub()
        async with contextlib.aclosing(subscription):
            async with asyncio.timeout(DEADLINE_SECONDS):
                await subscription.subscribe(self._store.channel)
                await subscription.get_message(timeout=None)
            await self._engine.run(lambda client: client.ping(), seconds=DEADLINE_SECONDS)
            self._become(True)
            while True:
                await self._next(subscription)

    async def _next(self, subscription: Any) -> None:
        message = await subscription.get_message(timeout=SILENCE_SECONDS)
        if message is None:
            if not self._engine.up:
                raise Gone("Redis does not answer others")
            await subscription.ping()
            message = await subscription.get_message(timeout=SILENCE_SECONDS)
            if message is None:
                raise Gone("Redis says nothing")
        if message["type"] == "message":
            self._hear(message["data"])

    def _hear(self, news: bytes) -> None:
        who, key = news[: len(self._store.me)], news[len(self._store.me) :]
        if who != self._store.me:
            self._store.outdate(key)
            self._cache.forget(key)

    def _become(self, hears: bool) -> None:
        if hears != self.hears:
            self.hears = hears
            self._store.outdate()
            self._cache.remember(hears)
        if hears:
            self._told = ""

    def _tell(self, error: Exception) -> None:
        """Once, until it changes."""
        words = str(error) if isinstance(error, Gone) else lineage(error)
        if words != self._told and self._engine.up:
            self._told = words
            _log.warning("what others write can't be heard, nothing stays in memory: %s", words)
