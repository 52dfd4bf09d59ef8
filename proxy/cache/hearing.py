"""Hears which keys other processes write to Redis, so that none is answered from memory after that.

While nobody can be heard, nothing is answered from memory: what may be old is not guessed at.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import Protocol

from proxy.cache.redis import RedisStore
from proxy.causes import lineage
from proxy.engine import PAUSE_SECONDS, Engine, Gone, Refused

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
        self._words, self._told = "", False
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
                await self._speak()  # so that somebody asks, whoever calls
                async with aclosing(self._engine.heard(self._store.channel)) as heard:
                    async for news in heard:
                        self._hear(news)
            except Exception as error:  # whatever it is, the next try may succeed
                self._tell(str(error) if isinstance(error, Gone) else lineage(error))
            finally:
                self._become(False)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _speak(self) -> None:
        """Who may not tell what he writes may not be told of it either: most likely all are one
        user, and what is in memory may be old."""
        hello = self._store.channel, self._store.me
        try:
            await self._engine.run(lambda client: client.publish(*hello))
        except Refused as error:
            raise Gone(f"{error}, such as +publish") from error

    def _hear(self, news: bytes | None) -> None:
        if news is None:
            self._become(True)
            return
        who, key = news[: len(self._store.me)], news[len(self._store.me) :]
        if key and who != self._store.me:
            self._store.outdate(key)
            self._cache.forget(key)

    def _become(self, hears: bool) -> None:
        """Whatever was missed before is not answered from memory."""
        self._told = self._told and not hears
        if hears or self.hears:
            self.hears = hears
            self._store.outdate()
            self._cache.remember(hears)

    def _tell(self, words: str) -> None:
        """Once, if it is so the second time too; an outage the engine has told of by then."""
        again, self._words = words == self._words, words
        if again and not self._told and self._engine.up:
            self._told = True
            _log.warning("what others write can't be heard, nothing stays in memory: %s", words)
