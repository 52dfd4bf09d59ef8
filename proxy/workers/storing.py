"""The coordinator's store for all workers: what they ask of it, and what is told the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import suppress
from functools import partial
from itertools import count, starmap
from typing import Any, Final, NamedTuple, Protocol

from proxy.cache.commons import Overtaken
from proxy.cache.entry import Entry, Found, Miss, SchemaTooNew, Store, StoredBody, StoreError
from proxy.cache.key import Select
from proxy.cache.purges import Purges
from proxy.workers.link import Link, Verb
from proxy.workers.store import UNASKED, UNKNOWN, What, given_of
from vault import Purge

PATIENCE: Final = 10.0
"""So long the next piece of a large answer may take: others wait to be written behind it."""

Spread = Callable[..., None]


class Leases(Protocol):
    """Who makes which call, as far as the store has to know."""

    def holds(self, link: Link, number: int, key: bytes) -> bool:
        """Whether a worker still has a lease, by its number, for a key."""
        ...

    def outdate(self, key: bytes, at: float) -> None:
        """Ends the lease of a call that began before."""
        ...


class _UnknownVary(Exception):
    """An entry varies by names that the worker has not told."""

    def __init__(self, vary: bytes) -> None:
        super().__init__("unknown")
        self.vary = vary


class _Reading(NamedTuple):
    link: Link
    found: Found
    octets: AsyncIterator[bytes]


class Storing:
    """An Office over a Store. `spread`: tells the other workers."""

    def __init__(self, store: Store, spread: Spread, leases: Leases) -> None:
        self._store = store
        self._spread = spread
        self._leases = leases
        self._numbers = count(1)
        self._purged = Purges()
        self._purging = asyncio.Lock()
        self._reading: dict[int, _Reading] = {}
        self._uploads: dict[int, Upload] = {}

    @property
    def verbs(self) -> dict[str, Verb]:
        """What workers may ask."""
        return {
            "store_check": self._check,
            "store_get": self._get,
            "store_more": self._more,
            "store_close": self._close,
            "store_touch": self._touch,
            "store_stats": self._stats,
            "store_put": self._put,
            "store_put_begin": self._begin,
            "store_put_more": self._add,
            "store_put_end": self._end,
            "store_put_abort": self._abort,
            "store_purge": self._purge,
        }

    def forget(self, link: Link) -> None:
        """A worker has gone: what it reads is closed, what it writes comes to nothing."""
        for number, reading in list(self._reading.items()):
            if reading.link is link:
                self._close(link, number)
        for number, upload in list(self._uploads.items()):
            if upload.link is link:
                self._abort(link, number)

    # Reading.

    async def _check(self, _link: Link) -> str:
        try:
            await self._store.start()
        except SchemaTooNew as error:
            return str(error)
        return ""

    async def _get(self, link: Link, key: bytes, sent: dict[bytes, bytes], now: float) -> Any:
        try:
            found = await self._store.get(key, _knowing(sent), now)
        except _UnknownVary as error:
            return UNKNOWN, error.vary
        if isinstance(found, Miss):
            return "miss", found.value
        if isinstance(found.body, bytes):
            return "found", given_of(found.entry), found.body, None
        octets = aiter(found.octets())
        first = await anext(octets)
        number = next(self._numbers)
        self._reading[number] = _Reading(link, found, octets)
        return "found", given_of(found.entry), first, number

    async def _more(self, _link: Link, number: int) -> bytes:
        return await anext(self._reading[number].octets, b"")

    def _close(self, _link: Link, number: int) -> None:
        reading = self._reading.pop(number, None)
        if reading is not None:
            reading.found.close()

    def _touch(self, _link: Link, uses: dict[bytes, float]) -> None:
        for key, now in uses.items():
            self._store.touch(key, now)

    async def _stats(self, _link: Link) -> Any:
        found = await self._store.stats()
        rows = [(*whose, (held.entries, held.octets)) for whose, held in found.holdings.items()]
        return rows, found.evicted

    # Writing.

    async def _put(
        self, link: Link, what: What, sent: dict[bytes, bytes], octets: bytes
    ) -> list[bytes] | None:
        """Names that the worker has still to tell; none: it is written. None: it comes too late."""
        entry, may = Entry(*what[0]), self._may(link, what)
        unknown = await self._unknown(entry, sent)
        if not unknown:
            if await self._is_late(what, sent) or not may():
                return None
            await self._write(link, entry, sent, _Whole(octets))
        return unknown

    def _may(self, link: Link, what: What) -> Callable[[], bool]:
        """Whether it may be kept: asked right before it waits in the order in which answers are
        written, so that a later one is written later. A refresh without a lease ends older ones."""
        entry, lease = Entry(*what[0]), what[1]

        def may() -> bool:
            if lease == UNASKED:
                self._leases.outdate(entry.key, entry.requested_at)
            return lease <= 0 or self._leases.holds(link, lease, entry.key)

        return may

    async def _is_late(self, what: What, sent: dict[bytes, bytes]) -> bool:
        """Whether an answer without a lease would replace one that was asked for later."""
        if what[1] > 0:
            return False
        entry = Entry(*what[0])
        found = await self._store.get(entry.key, _knowing(sent), entry.made_at)
        if isinstance(found, Miss):
            return False
        found.close()
        return found.entry.requested_at > entry.requested_at

    async def _write(
        self, link: Link, entry: Entry, sent: dict[bytes, bytes], body: StoredBody
    ) -> None:
        await self._store.put(entry, lambda vary: sent.get(vary, b"?") if vary else b"", body)
        self._spread(link, "over", entry.key)

    async def _unknown(self, entry: Entry, sent: dict[bytes, bytes]) -> list[bytes]:
        met: dict[bytes, None] = {}

        def meet(vary: bytes) -> bytes:
            if vary and vary not in sent:
                met[vary] = None
            return b"?"  # no entry suits: all are looked at

        await self._store.get(entry.key, meet, entry.made_at)
        return list(met)

    async def _begin(self, link: Link, what: What, sent: dict[bytes, bytes]) -> Any:
        entry, may = Entry(*what[0]), self._may(link, what)
        unknown = await self._unknown(entry, sent)
        if unknown:
            return 0, unknown
        if await self._is_late(what, sent):
            may = bool  # which says no
        number = next(self._numbers)
        self._uploads[number] = Upload(link, may, partial(self._write, link, entry, sent))
        return number, []

    async def _add(self, _link: Link, number: int, octets: bytes) -> None:
        await self._uploads[number].add(octets)

    async def _end(self, _link: Link, number: int) -> bool:
        """Whether it is written."""
        upload = self._uploads.pop(number)
        await upload.add(b"")
        try:
            await upload.writing
        except Overtaken:
            return False
        return True

    def _abort(self, _link: Link, number: int) -> None:
        upload = self._uploads.pop(number, None)
        if upload is not None:
            upload.abort()

    async def _purge(self, _link: Link, given: list[tuple[Any, ...]]) -> None:
        """Every worker asks for every purge; who comes later waits until the first one is done."""
        async with self._purging:
            purges = [purge for purge in starmap(Purge, given) if not self._purged.know(purge)]
            if purges:
                await self._store.purge(*purges)
            for purge in purges:
                self._purged.add(purge)


class Upload:
    """A large body on its way from a worker: a piece is taken when the one before is written."""

    def __init__(
        self,
        link: Link,
        may: Callable[[], bool],
        write: Callable[[Upload], Coroutine[Any, Any, None]],
    ) -> None:
        self.link = link
        self._may = may
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self.writing = asyncio.create_task(write(self))
        self.writing.add_done_callback(_noticed)

    async def add(self, octets: bytes) -> None:
        """One piece more; the empty one is the end. Raises StoreError when nobody takes it."""
        putting = asyncio.ensure_future(self._pieces.put(octets))
        await asyncio.wait({putting, self.writing}, return_when=asyncio.FIRST_COMPLETED)
        if not putting.done():
            putting.cancel()
            raise StoreError("the answer was not written")

    def abort(self) -> None:
        """Nothing more comes: whoever writes it has to give up."""
        with suppress(asyncio.QueueEmpty):
            self._pieces.get_nowait()
        self._pieces.put_nowait(None)

    async def blocks(self, _size: int) -> AsyncGenerator[bytes, None]:
        """The pieces as they come: the worker cuts them to the store's size."""
        while True:
            try:
                async with asyncio.timeout(PATIENCE):
                    octets = await self._pieces.get()
            except TimeoutError as error:
                raise StoreError("the worker that sends the answer is silent") from error
            if octets is None:
                raise StoreError("the worker has given the answer up")
            if not octets:
                break
            yield octets
        if not self._may():
            raise Overtaken


class _Whole(NamedTuple):
    """A small body."""

    octets: bytes

    async def blocks(self, _size: int) -> AsyncGenerator[bytes, None]:
        """All of it."""
        if self.octets:
            yield self.octets


def _knowing(sent: dict[bytes, bytes]) -> Select:
    def select(vary: bytes) -> bytes:
        if not vary:
            return b""
        if vary not in sent:
            raise _UnknownVary(vary)
        return sent[vary]

    return select


def _noticed(writing: asyncio.Task[None]) -> None:
    """Who asks for the end is told the error; where nobody does, it is nobody's."""
    if not writing.cancelled():
        writing.exception()
