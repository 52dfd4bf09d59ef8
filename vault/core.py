"""What the vault's verbs share: the store, the data keys, the clock, and what was looked up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from vault.audit import Change
from vault.datakeys import DataKeys
from vault.declared import Declarations
from vault.lookups import Lookups
from vault.sealing import DataKey
from vault.store import Store, bump


class Clock(Protocol):
    """The time, in seconds since the Unix epoch."""

    def now(self) -> float:
        """Seconds since the Unix epoch."""
        ...


class Core:
    """One open vault, without its verbs."""

    def __init__(self, store: Store, data_keys: DataKeys, clock: Clock, actor: str) -> None:
        self.store = store
        self.data_keys = data_keys
        self.clock = clock
        self.actor = actor
        self.generation = 0
        self.seen = Lookups()
        self.declared = Declarations()

    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A snapshot to read from; raises StoreUnavailable."""
        return self.store.reading()

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[Change]:
        """One transaction: durable and counted when it ends, the look-ups forgotten."""
        generation = self.generation
        try:
            async with self.store.writing() as connection:
                generation = await bump(connection)
                yield Change(connection, self.clock.now(), self.actor)
            self.generation = max(self.generation, generation)
        finally:
            self.forget()

    def forget(self) -> None:
        """Drops every look-up; those under way will not be remembered."""
        self.seen = Lookups()

    async def refresh(self) -> bool:
        """Drops the look-ups if another process has changed the vault; True if so."""
        generation = await self.store.generation()
        if generation == self.generation:
            return False
        self.generation = generation
        self.forget()
        return True

    async def data_key(self, purpose: str) -> DataKey:
        """The current data key of a purpose, made durably on first use."""
        key = self.data_keys.current(purpose)
        if key is not None:
            return key
        async with self.changing() as change:
            made = await self.data_keys.ensure(change, purpose)
        self.data_keys.adopt(made)
        return made

    async def reload_data_keys(self) -> None:
        """Reads the data keys again, for one that another process made."""
        async with self.reading() as connection:
            await self.data_keys.load(connection)
