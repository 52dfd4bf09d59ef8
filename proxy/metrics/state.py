"""The state of the rooms at the moment of a scrape: asked for then, and never kept up meanwhile."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from proxy.cache.entry import CacheError, CacheStats
from proxy.clock import Clock
from proxy.door import Arrivals
from proxy.metrics.tallies import Tallies
from proxy.outage import Gap
from vault import KeyRecord, VaultError

STORE_SECONDS: Final = 30.0
"""How old the count of what is stored may be: it reads the whole index."""


class Cache(Protocol):
    """What is asked of the cache."""

    @property
    def in_memory(self) -> CacheStats:
        """How much is in memory."""
        ...

    @property
    def ails(self) -> bool:
        """Whether its store refuses."""
        ...

    async def stats(self) -> CacheStats:
        """How much is stored."""
        ...


class Keys(Protocol):
    """What is asked of the vault."""

    async def list_keys(self, tenant: str | None = None) -> list[KeyRecord]:
        """Every key, without its value."""
        ...


class Slots(Protocol):
    """What is asked of the queue for upstream calls."""

    in_flight: int
    waiting: int


class Redis(Protocol):
    """What is asked of the engine that processes share."""

    failures: int

    @property
    def serves(self) -> bool:
        """Whether it answers, and takes what it is given."""
        ...


class Load(Protocol):
    """Connections to upstreams."""

    @property
    def open(self) -> int:
        """All that are open."""
        ...

    @property
    def idle(self) -> int:
        """Those that no call uses."""
        ...

    @property
    def waiting(self) -> int:
        """Calls that wait for one."""
        ...


@dataclass(frozen=True, slots=True)
class Sources:
    """Whom to ask. `in_flight`: calls that are being answered; `health`: (service, whether it is
    well) where that is known; `lost_lines`: what the log could not write; `outage`: of the vault;
    `arrivals`: connections of callers; `redis`: where there is one."""

    tallies: Tallies
    cache: Cache
    vault: Keys
    slots: Slots
    connections: Callable[[], Load]
    in_flight: Callable[[], int]
    health: Callable[[], Iterable[tuple[str, bool]]]
    lost_lines: Callable[[], int]
    outage: Callable[[], Gap]
    arrivals: Callable[[], Arrivals]
    data: Path
    clock: Clock
    redis: Redis | None = None


@dataclass(frozen=True, slots=True)
class KeyState:
    """One key of the vault, by name; `age` in seconds since it was added or rotated."""

    tenant: str
    service: str
    alias: str
    age: float


@dataclass(frozen=True, slots=True)
class State:
    """What was found. `disk`: octets that are free for the data directory, and all there are;
    `redis`: whether it serves, and how many commands it has not."""

    in_flight: int
    upstream_calls: int
    waiting: int
    connections: tuple[int, int, int]
    memory: CacheStats
    stored: CacheStats | None
    store_works: bool
    keys: tuple[KeyState, ...] | None
    health: tuple[tuple[str, bool], ...]
    disk: tuple[int, int] | None
    lost_lines: int
    outage: Gap
    arrivals: Arrivals
    redis: tuple[bool, int] | None


@dataclass(slots=True)
class Look:
    """Asks the sources; what can't be said now is left out of the answer."""

    sources: Sources
    _stored: CacheStats | None = None
    _stored_at: float = field(default=float("-inf"))

    async def state(self) -> State:
        """How things are."""
        ask = self.sources
        load = ask.connections()
        return State(
            in_flight=ask.in_flight(),
            upstream_calls=ask.slots.in_flight,
            waiting=ask.slots.waiting,
            connections=(load.open, load.idle, load.waiting),
            memory=ask.cache.in_memory,
            stored=await self._store(),
            store_works=not ask.cache.ails,
            keys=await self._keys(),
            health=tuple(ask.health()),
            disk=await asyncio.to_thread(_disk, ask.data),
            lost_lines=ask.lost_lines(),
            outage=ask.outage(),
            arrivals=ask.arrivals(),
            redis=None if ask.redis is None else (ask.redis.serves, ask.redis.failures),
        )

    async def _store(self) -> CacheStats | None:
        now = self.sources.clock.monotonic()
        if now >= self._stored_at + STORE_SECONDS:
            self._stored_at = now
            try:
                self._stored = await self.sources.cache.stats()
            except CacheError:
                self._stored = None
        return self._stored

    async def _keys(self) -> tuple[KeyState, ...] | None:
        try:
            records = await self.sources.vault.list_keys(None)
        except VaultError:
            return None
        now = self.sources.clock.now()
        return tuple(_key_state(one, now) for one in records)


def _key_state(record: KeyRecord, now: float) -> KeyState:
    ref = record.ref
    since = record.created_at if record.rotated_at is None else record.rotated_at
    return KeyState(ref.tenant, ref.service, ref.alias, max(now - since, 0.0))


def _disk(data: Path) -> tuple[int, int] | None:
    try:
        found = shutil.disk_usage(data)
    except OSError:
        return None
    return found.free, found.total
