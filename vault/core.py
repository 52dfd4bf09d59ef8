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


class Moment:
    """What everybody who works on one open vault sees, whoever they are."""

    __slots__ = ("declared", "generation", "seen")

    def __init__(self) -> None:
        self.generation = 0
        self.seen = Lookups()
        self.declared = Declarations()


class Core:
    """One open vault, without its verbs, as one actor works on it."""

    def __init__(
        self,
        store: Store,
        data_keys: DataKeys,
        clock: Clock,
        actor: str,
        moment: Moment | None = None,
    ) -> None:
        self.store = store
        self.data_keys = data_keys
        self.clock = clock
        self.actor = actor
        self._moment = moment or Moment()

    def acting_as(self, actor: str) -> Core:
        """The same vault, for changes that somebody else makes."""
        return Core(self.store, self.data_keys, self.clock, actor, self._moment)

    @property
    def generation(self) -> int:
        """How often the vault was changed, as far as this process knows."""
        return self._moment.generation

    @generation.setter
    def generation(self, generation: int) -> None:
        self._moment.generation = generation

    @property
    def seen(self) -> Lookups:
        """What was looked up since the last change."""
        return self._moment.seen

    @property
    def declared(self) -> Declarations:
        """What the configuration file owns."""
        return self._moment.declared

    @declared.setter
    def declared(self, declared: Declarations) -> None:
        self._moment.declared = declared

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
        self._moment.seen = Lookups()

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
