"""What lies in Redis: asked for with a deadline, taken off, and kept there while it is read."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from proxy.cache.entry import StoreError
from proxy.cache.row import Row
from proxy.cache.scripts import LINGER, REMOVE
from proxy.clock import Clock
from proxy.engine import Client, Engine, Gone, Script
from proxy.errors import UpstreamIncomplete
from vault import Sealer, VaultError

GRACE_MS: Final = 60_000
"""How long the chunks of an answer that is over or replaced stay for those who read them."""


STAGED_MS: Final = 300_000
"""How long chunks wait for the rest of their answer."""

WRITE_SECONDS: Final = 10.0
"""How long the writing of a chunk may take: many large answers at once are no outage."""


class Shelves:
    """One engine's; everything raises StoreError."""

    def __init__(self, engine: Engine, sealer: Sealer, clock: Clock) -> None:
        self._engine = engine
        self.sealer = sealer
        self.clock = clock

    async def ask(self, verb: str, *values: Any, **options: Any) -> Any:
        """What Redis answers to a command, by redis-py's name for it."""
        return await self._ask(lambda client: getattr(client, verb)(*values, **options))

    async def all_of(self, name: str) -> dict[bytes, bytes]:
        """The fields of a hash and their values; asked for together with others."""
        try:
            found: dict[bytes, bytes] = await self._engine.ask("HGETALL", name)
        except Gone as error:
            raise StoreError(str(error)) from error
        return found

    async def run(self, script: Script, names: Sequence[str], *values: bytes | str | float) -> Any:
        """What a script returns; asked together with others."""
        try:
            return await self._engine.script(script, names, *values)
        except Gone as error:
            raise StoreError(str(error)) from error

    async def stage(self, name: str, sealed: bytes) -> None:
        """Writes a chunk that nobody sees yet; no call waits for that."""
        await self._ask(
            lambda client: client.set(name, sealed, px=STAGED_MS), seconds=WRITE_SECONDS
        )

    async def _ask(self, ask: Callable[[Client], Awaitable[Any]], **patience: float) -> Any:
        try:
            return await self._engine.run(ask, **patience)
        except Gone as error:
            raise StoreError(str(error)) from error

    def name(self, room: str, tag: str, *rest: str) -> str:
        """A name in Redis."""
        return self._engine.key(room, tag, *rest)

    def shelf(self, tag: str) -> str:
        """Where the answers of a key are."""
        return self.name("cache", tag)

    async def chunk(self, name: str, row: Row, number: int) -> bytes | None:
        """A piece of a body, opened; None: it is gone. Raises VaultError too."""
        sealed = await self.ask("get", f"{name}:{number}")
        return None if sealed is None else row.open_chunk(number, sealed, self.sealer)

    async def linger(self, name: str, first: int, last: int) -> int:
        """Keeps chunks there for whoever reads them; how many there are."""
        return int(await self.run(LINGER, (name,), GRACE_MS, first, last))

    async def remove(self, shelf: str, numbers: Iterable[str]) -> None:
        """Takes answers off their shelf."""
        await self.run(REMOVE, (shelf,), *numbers)


class RedisBody:
    """A body in chunks; all were there, and the first was opened, before anything is answered."""

    def __init__(self, shelves: Shelves, name: str, row: Row, count: int) -> None:
        self._shelves = shelves
        self._name = name
        self._row = row
        self._count = count
        self._lasts_until = 0.0
        self.first = b""

    async def begin(self) -> bool:
        """Whether all of it is there."""
        last = self._count - 1
        there = self._count if last == 0 else await self._shelves.linger(self._name, 0, last)
        self._lasts_until = self._shelves.clock.monotonic() + GRACE_MS / 2000
        first = await self._shelves.chunk(self._name, self._row, 0)
        self.first = first or b""
        return there == self._count and first is not None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.first
        for number in range(1, self._count):
            yield await self._read(number)

    async def _read(self, number: int) -> bytes:
        try:
            octets = await self._shelves.chunk(self._name, self._row, number)
            if self._shelves.clock.monotonic() >= self._lasts_until:  # a slow reader
                await self._shelves.linger(self._name, number, self._count - 1)
                self._lasts_until = self._shelves.clock.monotonic() + GRACE_MS / 2000
        except (StoreError, VaultError) as error:
            await self._end(error)
            raise UpstreamIncomplete("the stored answer can't be read; try again") from error
        if octets is None:
            raise UpstreamIncomplete("the stored answer can't be read; try again")
        return octets

    async def _end(self, error: Exception) -> None:
        """What does not open is not served again."""
        if isinstance(error, VaultError):
            shelf, _, number = self._name.rpartition(":")
            with contextlib.suppress(StoreError):
                await self._shelves.remove(shelf, [number])

    def close(self) -> None:
        """There is nothing to let go of."""
