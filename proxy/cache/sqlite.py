"""Answers on disk, in a SQLite file of their own: sealed, bounded, whole or not there.

An entry is a row and its chunks. The row is complete only in the transaction that ends it, so a
crash leaves either the whole answer or rows that the next start deletes. One connection writes,
another reads, both in this process: SQLite releases are about that damage a WAL file which two
processes write.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from proxy.cache.batches import Batches, Waiting
from proxy.cache.commons import Fence
from proxy.cache.entry import (
    CacheStats,
    Entry,
    Found,
    Miss,
    SchemaTooNew,
    StoredBody,
    StoreError,
)
from proxy.cache.key import Select
from proxy.cache.lane import Lane
from proxy.cache.pins import Pins
from proxy.cache.policy import CacheSettings
from proxy.cache.purges import Purges
from proxy.cache.row import CHUNK, COLUMNS, Row
from proxy.cache.schema import (
    holdings,
    is_broken,
    move_aside,
    open_for_reading,
    open_for_writing,
    transaction,
)
from proxy.cache.writer import Writer, delete
from proxy.clock import Clock
from proxy.errors import UpstreamIncomplete
from vault import Purge, Sealer, VaultError

Result = TypeVar("Result")


READS = 16
"""Answers that are looked up in one go at most: how long the first of them waits for the last."""

SHRINKS = 64
"""Transactions of one sweep that give free pages back at most: the next one goes on."""


class SqliteStore:
    """The store on disk; see `Store` for what its methods promise."""

    def __init__(self, path: Path, sealer: Sealer, clock: Clock, settings: CacheSettings) -> None:
        self._path = path
        self._sealer = sealer
        self._clock = clock
        self._writes = Lane("keyrelay-cache-writes", self._open, clock)
        self._reads = Lane("keyrelay-cache-reads", self._open_second, clock, READS)
        self._lock_file: BinaryIO | None = None
        self._pins = Pins()
        self._writer = Writer(sealer, clock, settings, self._pins)
        self._batches = Batches(self._put)

    # Opening and closing.

    async def start(self) -> None:
        """Opens the file; raises SchemaTooNew, else StoreError."""
        try:
            await self._write(lambda _connection: None)
        except StoreError as error:
            if isinstance(error.__cause__, SchemaTooNew):
                await self.close()
                raise error.__cause__ from None
            raise

    async def close(self) -> None:
        """Writes what waits and what is noted, and closes."""
        await self._batches.close()
        with contextlib.suppress(StoreError):
            await self._write(self._writer.note_uses)
        await self._reads.close()
        await self._writes.close()
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def _open(self) -> sqlite3.Connection:
        if self._lock_file is None:
            self._lock_file = _locked(self._path.with_name(self._path.name + ".lock"))
        connection = open_for_writing(self._path)
        self._writer.opened(connection)
        return connection

    def _open_second(self) -> sqlite3.Connection:
        if self._lock_file is None:
            raise OSError("the cache's database is not open")
        return open_for_reading(self._path)

    async def _write(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        return await self._surely(lambda: self._writes.run(partial(self._transact, work)))

    async def _surely(self, run: Callable[[], Awaitable[Result]]) -> Result:
        """Once more, on new connections, where the file seems broken: to SQLite it is that too when
        one read of it has failed. Broken still, it is moved aside."""
        try:
            return await run()
        except StoreError as error:
            if not is_broken(error.__cause__):
                raise
        await self._drop()
        try:
            return await run()
        except StoreError as error:
            await self._heal(error)
            raise

    def _transact(
        self, work: Callable[[sqlite3.Connection], Result], connection: sqlite3.Connection
    ) -> Result:
        try:
            with self._pins.lock, transaction(connection):
                result = work(connection)
        except BaseException:
            self._writer.forget()
            raise
        self._writer.settle()
        return result

    async def _heal(self, error: StoreError) -> None:
        """Moves a file aside that turned out broken, and makes a new one."""
        if is_broken(error.__cause__):
            await self._drop()
            with contextlib.suppress(OSError, StoreError):
                await asyncio.to_thread(move_aside, self._path)
                await self._writes.run(lambda _connection: None)

    async def _drop(self) -> None:
        await self._reads.drop()
        await self._writes.drop()

    # Reading.

    async def get(self, key: bytes, select: Select, now: float) -> Found | Miss:
        """The newest entry of the key that suits the call and whose own time is ahead."""
        if not self._writer.presence.may_hold(key):
            return Miss.ABSENT
        find = partial(self._find, key, select, now)
        found = await self._surely(lambda: self._reads.run(find, _let_go))
        if isinstance(found, Found):
            self.touch(key, now)
        return found

    def touch(self, key: bytes, now: float) -> None:
        """Notes that an entry of this key was used; written later, with others."""
        self._writer.touch(key, now)

    async def stats(self) -> CacheStats:
        """How much is stored."""
        return replace(await self._reads.run(holdings), evicted=self._writer.evicted)

    def _find(
        self, key: bytes, select: Select, now: float, connection: sqlite3.Connection
    ) -> Found | Miss:
        miss = Miss.ABSENT
        rows = connection.execute(
            f"SELECT {COLUMNS} FROM entries WHERE key = ? AND state = 1 ORDER BY id DESC",  # noqa: S608
            (key,),
        ).fetchall()
        for row in (Row(*columns) for columns in rows):
            if select(row.vary) != row.variant:
                miss = Miss.VARIES if miss is Miss.ABSENT else miss
            elif now >= row.expires_at:
                miss = Miss.OVER
            else:
                return self._found(row, connection) or Miss.ABSENT
        return miss

    def _found(self, row: Row, connection: sqlite3.Connection) -> Found | None:
        entry = row.open(self._sealer)
        if entry.size == 0:
            return Found(entry, b"")
        first = self._chunk(row, 0, connection)
        if first is None or entry.size <= CHUNK:
            return None if first is None else Found(entry, first)
        pinned = self._pins.take(row.id, partial(_is_there, row.id, connection))
        return Found(entry, PinnedBody(self, row, entry.size, first)) if pinned else None

    def _chunk(self, row: Row, number: int, connection: sqlite3.Connection) -> bytes | None:
        found = connection.execute(
            "SELECT sealed FROM chunks WHERE entry = ? AND number = ?", (row.id, number)
        ).fetchone()
        return found and row.open_chunk(number, found[0], self._sealer)

    async def read_chunk(self, row: Row, number: int) -> bytes:
        """A later piece of a pinned body; one that does not open ends its entry."""
        try:
            octets = await self._reads.run(partial(self._chunk, row, number))
        except StoreError as error:
            if isinstance(error.__cause__, VaultError):
                with contextlib.suppress(StoreError):
                    await self._write(partial(self._writer.remove, [row.id]))
            raise UpstreamIncomplete("the stored answer can't be read; try again") from error
        if octets is None:
            raise UpstreamIncomplete("the stored answer can't be read; try again")
        return octets

    def unpin(self, number: int) -> None:
        """A body of this row is read no more."""
        self._reads.post(partial(self._pins.give_back, number))

    # Writing.

    async def put(
        self,
        entry: Entry,
        select: Select,
        body: StoredBody,
        fence: Fence | None = None,  # noqa: ARG002 - no lease lies in a file
    ) -> None:
        """Keeps an entry in place of those that would have answered its request."""
        octets = await _whole(body) if entry.size <= CHUNK else None
        await self._batches.put(Waiting(entry, select, body, octets))

    async def _put(self, batch: Sequence[Waiting]) -> None:
        if batch[0].octets is None:
            await self._put_large(batch[0])
        else:
            await self._write(partial(self._writer.insert, batch))

    async def _put_large(self, waiting: Waiting) -> None:
        row = await self._write(partial(self._writer.begin, waiting.entry))
        number = 0
        try:
            async with contextlib.aclosing(waiting.body.blocks(CHUNK)) as blocks:
                async for block in blocks:
                    await self._write(partial(self._writer.add_chunk, row, number, block))
                    number += 1
            complete = partial(self._writer.complete, row, waiting.entry, waiting.select)
            await self._write(complete)
        except BaseException:
            with contextlib.suppress(StoreError):
                await self._write(partial(delete, [row.id]))
            raise

    # Removing.

    async def purge(self, *purges: Purge) -> None:
        """Removes what any of them covers, also of what waits to be written; and what a clock that
        ran ahead says is still to come. However many they are, it looks at each row once."""
        covering = Purges()
        last: int | None = 0
        for purge in purges:
            self._writer.purge(purge)
            covering.add(purge)
        while last is not None:
            last = await self._write(partial(self._writer.remove_covered, covering, last))
        await self._shrink()

    async def sweep(self, now: float) -> None:
        """Removes what is over or beyond the limits, notes uses, and gives free pages back to the
        file system."""
        await self._write(self._writer.note_uses)
        while await self._write(partial(self._writer.remove_over, now)):
            pass
        while await self._write(self._writer.remove_surplus):
            pass
        await self._shrink()

    async def _shrink(self) -> None:
        before = -1
        for _ in range(SHRINKS):
            left = await self._write(self._writer.shrink)
            if left in (0, before):  # of a file that can't shrink the number stays
                return
            before = left


class PinnedBody:
    """A body of several chunks; the first has been read and opened before anything is answered."""

    def __init__(self, store: SqliteStore, row: Row, size: int, first: bytes) -> None:
        self._store = store
        self._row = row
        self._count = -(-size // CHUNK)
        self._first = first
        self._open = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._first
        for number in range(1, self._count):
            yield await self._store.read_chunk(self._row, number)

    def close(self) -> None:
        """Lets the row go."""
        if self._open:
            self._open = False
            self._store.unpin(self._row.id)


def _let_go(found: Found | Miss) -> None:
    if isinstance(found, Found) and isinstance(found.body, PinnedBody):
        found.body.close()


def _is_there(number: int, connection: sqlite3.Connection) -> bool:
    query = "SELECT 1 FROM entries WHERE id = ? AND state = 1"
    return connection.execute(query, (number,)).fetchone() is not None


async def _whole(body: StoredBody) -> bytes:
    """A small body."""
    async with contextlib.aclosing(body.blocks(CHUNK)) as blocks:
        return await anext(blocks, b"")


def _locked(path: Path) -> BinaryIO:
    """A lock that only one process holds, and that ends with it; raises OSError."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise OSError("another keyrelay has these data open; give each its own") from None
    return file
