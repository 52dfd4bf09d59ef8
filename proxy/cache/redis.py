"""Answers in Redis, for all processes together: sealed as on disk, whole or not there.

An answer is on its shelf in one step, after all of its chunks; until then these soon expire.
Whatever Redis evicts is a clean miss, or cuts a transfer. See `scripts.py` for how it lies there.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import struct
from dataclasses import dataclass, replace
from typing import Any, Final

from proxy.cache.commons import Fence, Overtaken
from proxy.cache.entry import CacheStats, Entry, Found, Miss, StoredBody, StoreError
from proxy.cache.key import Select
from proxy.cache.policy import CacheSettings
from proxy.cache.purges import Purges
from proxy.cache.registers import Registers
from proxy.cache.row import CHUNK, Row
from proxy.cache.scripts import KEEP, TOUCH
from proxy.cache.shelf import INLINE, Label, chunks_of, pack, sealed_small, tag_of, unpack
from proxy.cache.shelves import GRACE_MS, RedisBody, Shelves
from proxy.clock import Clock
from proxy.engine import Engine
from vault import Purge, Sealer, VaultError

SHELF_MS: Final = 60_000
"""How long an answer that is over is still told from one that never was."""

LARGE_AT_ONCE: Final = 4
"""Large answers that are written at once: look-ups pass between them."""

TOUCHES: Final = 1000
"""Keys that are noted as used between two sweeps."""

VARIANTS: Final = 64
"""Answers of one key, side by side; beyond it the oldest go."""


_REFUSED: Final = {
    -1: (StoreError, "Redis has dropped a part of the answer already"),
    -2: (Overtaken, "a later call has taken its place"),
}
"""Why an answer did not get onto its shelf."""


def _lease(fence: Fence | None) -> tuple[tuple[str, ...], tuple[str | int, ...]]:
    """What is said of it: 1, where one was wanted and nobody could be asked; 0, where none was."""
    if fence is None or not fence.names:
        return (), (int(fence is not None),)
    return fence.names, fence.values


@dataclass(slots=True)
class _Asking:
    """How many look up a key now, and how often it was written meanwhile."""

    many: int = 0
    outdated: int = 0


class RedisStore:
    """The store in Redis; see `Store` for what its methods promise. `me`: who writes, for those who
    hear of it."""

    def __init__(
        self, engine: Engine, sealer: Sealer, clock: Clock, settings: CacheSettings
    ) -> None:
        self._clock = clock
        self._sealer = sealer
        self._shelves = Shelves(engine, sealer, clock)
        self._registers = Registers(self._shelves, settings.quota)
        self._purges = Purges()
        self._refused = Purges()
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._purging: set[asyncio.Task[None]] = set()
        self._asking: dict[bytes, _Asking] = {}
        self._touched: set[bytes] = set()
        self.me = secrets.token_bytes(8)

    async def start(self) -> None:
        """Asks whether it is there; raises StoreError."""
        await self._shelves.ask("ping")

    async def close(self) -> None:
        """Ends what goes on; the engine is everybody's."""
        for task in self._purging:
            task.cancel()
        if self._purging:
            await asyncio.wait(self._purging)

    @property
    def channel(self) -> str:
        """Where it is told which keys were written: who wrote, then the key."""
        return self._shelves.name("cache", "news")

    # Reading.

    async def get(self, key: bytes, select: Select, now: float) -> Found | Miss:
        """The newest entry of the key that suits the call and whose own time is ahead. It was
        still the newest when this returned, as far as could be heard."""
        asking = self._asking.setdefault(key, _Asking())
        asking.many += 1
        try:
            while True:
                before = asking.outdated
                found = await self._look_up(key, select, now)
                if asking.outdated == before:
                    return found
        finally:
            asking.many -= 1
            if not asking.many:
                del self._asking[key]

    def outdate(self, key: bytes | None = None) -> None:
        """What is being looked up under a key, or under any, may be old."""
        for one, asking in self._asking.items():
            if key in (None, one):
                asking.outdated += 1

    async def _look_up(self, key: bytes, select: Select, now: float) -> Found | Miss:
        shelf = self._shelves.shelf(tag_of(key))
        answers = await self._shelves.all_of(shelf)
        miss = Miss.ABSENT
        try:
            for field in sorted(answers, reverse=True):
                label = Label.read(field)
                if select(label.vary) != label.variant:
                    miss = Miss.VARIES if miss is Miss.ABSENT else miss
                    continue
                row, sealed = unpack(key, label, answers[field])
                if now < row.expires_at:
                    return await self._found(shelf, label, row, sealed) or Miss.ABSENT
                miss = Miss.OVER
        except (VaultError, ValueError, struct.error) as error:
            raise StoreError(f"{type(error).__name__}: {error}") from error
        return miss

    async def _found(self, shelf: str, label: Label, row: Row, sealed: bytes) -> Found | None:
        entry = row.open(self._sealer)
        if label.chunks != chunks_of(entry.size):  # the label is not sealed
            raise ValueError("an answer has another size than its label tells")
        if label.chunks == 0:
            whole = row.open_chunk(0, sealed, self._sealer) if entry.size else b""
            return Found(entry, whole)
        body = RedisBody(self._shelves, f"{shelf}:{row.id:x}", row, label.chunks)
        if not await body.begin():
            await self._shelves.remove(shelf, [f"{row.id:x}"])
            return None
        return Found(entry, body.first if label.chunks == 1 else body)

    def touch(self, key: bytes, now: float) -> None:  # noqa: ARG002 - Redis has a clock
        """Notes that an entry was answered from memory: Redis, which evicts what was not read for
        longest, hears of it with others. What is read there it notes itself."""
        if len(self._touched) < TOUCHES:
            self._touched.add(key)

    async def stats(self) -> CacheStats:
        """How much is stored, by the registers."""
        try:
            return await self._registers.stats()
        except ValueError as error:
            raise StoreError("what Redis has counted can't be read") from error

    # Writing.

    async def put(
        self, entry: Entry, select: Select, body: StoredBody, fence: Fence | None = None
    ) -> None:
        """Keeps an entry in place of those that would have answered its request."""
        if entry.size <= INLINE:
            await self._put(entry, select, body, fence)
            return
        async with self._large:
            await self._put(entry, select, body, fence)

    async def _put(
        self, entry: Entry, select: Select, body: StoredBody, fence: Fence | None
    ) -> None:
        row = Row.of(secrets.randbits(63), entry)
        row = replace(row, head=row.seal_head(entry, self._sealer))
        label, shelf = Label.of(row.id, entry), self._shelves.shelf(tag_of(entry.key))
        name = f"{shelf}:{row.id:x}"
        value = await self._staged(name, row, entry, body)
        try:
            gone = await self._keep(entry.key, label, pack(row, value), select, fence)
        except BaseException:
            await self._unstage(name, label.chunks)
            raise
        with contextlib.suppress(StoreError):  # it is kept; its time ends by itself
            await self._registers.add(entry, label, gone)
        if self._purges.cover(entry.tenant, entry.service, entry.requested_at):
            await self._shelves.remove(shelf, [f"{row.id:x}"])

    async def _staged(self, name: str, row: Row, entry: Entry, body: StoredBody) -> bytes:
        """Writes the chunks of a large body; or gives a small one, sealed."""
        number = 0
        async with contextlib.aclosing(body.blocks(CHUNK)) as blocks:
            if entry.size <= INLINE:
                return sealed_small(row, await anext(blocks, b""), self._sealer)
            try:
                async for block in blocks:
                    sealed = row.seal_chunk(number, block, self._sealer)
                    await self._shelves.stage(f"{name}:{number}", sealed)
                    number += 1
            except BaseException:
                await self._unstage(name, number)
                raise
        return b""

    async def _unstage(self, name: str, count: int) -> None:
        with contextlib.suppress(StoreError):  # they expire
            if count:
                await self._shelves.ask("unlink", *(f"{name}:{one}" for one in range(count)))

    async def _keep(
        self, key: bytes, label: Label, value: bytes, select: Select, fence: Fence | None
    ) -> list[str]:
        """Puts it onto its shelf; what went from there, as a register tells it."""
        known = {b"": b"", label.vary: label.variant}
        while True:
            found = await self._kept(key, label, value, known, fence)
            if found[0] == 1:
                if fence is not None:
                    fence.followers = found[1]
                return [told.decode() for told in found[2:]]
            if found[0] < 0:
                kind, why = _REFUSED[found[0]]
                raise kind(why)
            asked = {bytes.fromhex(one.decode()) for one in found[1:]}
            if asked <= known.keys():
                raise StoreError("Redis does not know what it has asked for")
            known |= {vary: select(vary) for vary in asked}

    async def _kept(
        self,
        key: bytes,
        label: Label,
        value: bytes,
        known: dict[bytes, bytes],
        fence: Fence | None,
    ) -> list[Any]:
        now = int(self._clock.now() * 1000)
        bounds = label.ends, now, GRACE_MS, SHELF_MS, VARIANTS
        pairs = [one for vary, variant in known.items() for one in (vary.hex(), variant)]
        names, asked = _lease(fence)
        shelf = self._shelves.shelf(tag_of(key))
        values = (label.octets, value, *bounds, self.channel, self.me + key, *asked, *pairs)
        found: list[Any] = await self._shelves.run(KEEP, (shelf, *names), *values)
        return found

    # Removing.

    async def purge(self, *purges: Purge) -> None:
        """Begins to remove what any of them covers."""
        for purge in purges:
            self._purges.add(purge)
            task = asyncio.create_task(self._purge(purge), name="keyrelay-cache-purge")
            self._purging.add(task)
            task.add_done_callback(self._purging.discard)

    async def _purge(self, purge: Purge) -> None:
        try:
            await self._registers.purge(purge)
        except StoreError:  # nobody answers with it; the next sweep tries again
            self._refused.add(purge)

    async def sweep(self, now: float) -> None:
        """Notes uses; takes out of the registers what is over, and some of what was evicted; and
        what a purge could not take out."""
        await self.purge(*self._refused.take())
        touched, self._touched = self._touched, set()
        for key in touched:
            await self._shelves.run(TOUCH, (self._shelves.shelf(tag_of(key)),))
        await self._registers.sweep(now)
