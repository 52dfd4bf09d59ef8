"""The store as a worker has it: its owner is asked, small bodies whole, large ones in pieces.

Which answers suit a call only the worker can tell: it says what its request sent in the names that
answers vary by, as far as it has met them, and is asked for those that it has not.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import fields
from functools import partial
from operator import attrgetter
from typing import Any, Final, Protocol

from proxy.cache.commons import Fence, Overtaken
from proxy.cache.entry import (
    CacheStats,
    Entry,
    Found,
    Holding,
    Miss,
    SchemaTooNew,
    StoredBody,
    StoreError,
)
from proxy.cache.key import Select
from proxy.cache.row import CHUNK
from proxy.errors import UpstreamIncomplete
from proxy.workers.companion import Companion
from proxy.workers.link import Away, Refused
from vault import Purge

FLUSH_SECONDS: Final = 1.0
"""How often uses of entries are told."""

MET: Final = 16
"""Names of Vary that are told with every question, at most."""

UNKNOWN: Final = "unknown"
"""The answer that begins so asks for what a request sent in further names."""

given_of = attrgetter(*(field.name for field in fields(Entry)))
"""An entry as a plain tuple, to be sent."""


What = tuple[tuple[Any, ...], int]
"""An entry to be kept, and the number of its lease; 0: it needs none."""

UNASKED: Final = -1
"""The number, where nobody could be asked for a lease."""


class Remembering(Protocol):
    """Who has answers in memory, above the store."""

    def forget(self, key: bytes) -> None:
        """Another process has replaced what is stored under this key."""
        ...

    def remember(self, hears: bool) -> None:
        """Forgets all; from now on nothing is remembered unless replaced answers are heard of."""
        ...


class SharedStore:
    """See `Store` for what its methods promise."""

    def __init__(self, companion: Companion) -> None:
        self._companion = companion
        self._above: Remembering | None = None
        self._met: dict[bytes, None] = {}
        self._asked: Counter[bytes] = Counter()
        self._over: set[bytes] = set()  # replaced while somebody asks for it
        self._uses: dict[bytes, float] = {}
        self._telling: asyncio.Task[None] | None = None
        companion.on("over", self._replaced)

    def stand_under(self, above: Remembering) -> None:
        """Who is told of what other workers replaced."""
        self._above = above
        self._companion.when(lambda: above.remember(True), lambda: above.remember(False))
        above.remember(self._companion.there)

    async def start(self) -> None:
        """Whether the store opens; raises SchemaTooNew, else StoreError."""
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell_uses(), name="keyrelay-cache-uses")
        refused = await self._ask("store_check")
        if refused:
            raise SchemaTooNew(refused)

    async def close(self) -> None:
        """Tells the last uses."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait([self._telling])
        self._flush()

    # Reading.

    async def get(self, key: bytes, select: Select, now: float) -> Found | Miss:
        """The newest entry of the key that suits the call and whose own time is ahead."""
        while True:
            self._asked[key] += 1
            try:
                found = await self._find(key, select, now)
                replaced = key in self._over
            finally:
                self._asked[key] -= 1
                if not self._asked[key]:
                    del self._asked[key]
                    self._over.discard(key)
            if not replaced or not isinstance(found, Found):
                return found
            found.close()

    async def _find(self, key: bytes, select: Select, now: float) -> Found | Miss:
        sent = {vary: select(vary) for vary in self._met}
        while True:
            asking = asyncio.ensure_future(self._ask("store_get", key, sent, now))
            try:
                kind, *rest = await asyncio.shield(asking)
            except asyncio.CancelledError:
                asking.add_done_callback(self._let_go)
                raise
            if kind != UNKNOWN:
                return self._found(kind, rest)
            sent |= self._meet(select, rest)

    def _found(self, kind: str, rest: list[Any]) -> Found | Miss:
        if kind == "miss":
            return Miss(rest[0])
        given, body, number = rest
        entry = Entry(*given)
        if number is None:
            return Found(entry, body)
        return Found(entry, RemoteBody(self._companion, number, body))

    def _let_go(self, asking: asyncio.Future[Any]) -> None:
        """Nobody waits for this answer any more."""
        if not asking.cancelled() and asking.exception() is None:
            kind, *rest = asking.result()
            found = self._found(kind, rest) if kind != UNKNOWN else None
            if isinstance(found, Found):
                found.close()

    def _meet(self, select: Select, names: list[bytes]) -> dict[bytes, bytes]:
        for vary in names:
            self._met[vary] = None
            while len(self._met) > MET:
                del self._met[next(iter(self._met))]
        return {vary: select(vary) for vary in names}

    def _replaced(self, key: bytes) -> None:
        if key in self._asked:
            self._over.add(key)
        if self._above is not None:
            self._above.forget(key)

    def touch(self, key: bytes, now: float) -> None:
        """Notes that an entry of this key was used; told later, with others."""
        self._uses[key] = now

    async def _tell_uses(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self._flush()

    def _flush(self) -> None:
        uses, self._uses = self._uses, {}
        if uses:
            self._companion.tell("store_touch", uses)

    async def stats(self) -> CacheStats:
        """How much is stored."""
        rows, evicted = await self._ask("store_stats")
        holdings = {(tenant, service): Holding(*held) for tenant, service, held in rows}
        return CacheStats(holdings, evicted)

    # Writing.

    async def put(
        self,
        entry: Entry,
        select: Select,
        body: StoredBody,
        fence: Fence | None = None,
    ) -> None:
        """Keeps an entry in place of those that would have answered its request; whose lease the
        coordinator does not know any more is Overtaken."""
        what = given_of(entry), _lease(fence)
        sent = {vary: select(vary) for vary in {*self._met, entry.vary}}
        blocks = body.blocks(CHUNK)
        async with contextlib.aclosing(blocks):
            if entry.size <= CHUNK:
                kept = await self._put_small(what, select, sent, await anext(blocks, b""))
            else:
                kept = await self._put_large(what, select, sent, blocks)
        if not kept:
            raise Overtaken

    async def _put_small(
        self, what: What, select: Select, sent: dict[bytes, bytes], octets: bytes
    ) -> bool:
        while unknown := await self._ask("store_put", what, sent, octets):
            sent |= self._meet(select, unknown)
        return unknown is not None

    async def _put_large(
        self,
        what: What,
        select: Select,
        sent: dict[bytes, bytes],
        blocks: AsyncIterator[bytes],
    ) -> bool:
        number, unknown = await self._ask("store_put_begin", what, sent)
        while unknown:
            sent |= self._meet(select, unknown)
            number, unknown = await self._ask("store_put_begin", what, sent)
        try:
            async for block in blocks:
                await self._ask("store_put_more", number, block)
            return bool(await self._ask("store_put_end", number))
        except BaseException:
            self._companion.tell("store_put_abort", number)
            raise

    async def purge(self, *purges: Purge) -> None:
        """Removes what any of them covers; what another worker has asked for is removed once."""
        given = [(purge.at, purge.tenant, purge.service) for purge in purges]
        await self._ask("store_purge", given)

    async def sweep(self, now: float) -> None:
        """Nothing: who owns the file sweeps it."""

    async def _ask(self, verb: str, *given: Any) -> Any:
        try:
            return await self._companion.ask(verb, *given)
        except (Away, Refused) as error:
            raise StoreError(f"the coordinator: {error}") from error


def _lease(fence: Fence | None) -> int:
    if fence is None:
        return 0
    return int(fence.values[0]) if fence.values else UNASKED


class RemoteBody:
    """A large body that is asked for piece by piece; the first has come already."""

    def __init__(self, companion: Companion, number: int, first: bytes) -> None:
        self._more = partial(companion.ask, "store_more", number)
        self._close = partial(companion.tell, "store_close", number)
        self._first = first
        self._open = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._first
        try:
            while octets := await self._more():
                yield octets
        except (Away, Refused) as error:
            raise UpstreamIncomplete("the stored answer can't be read; try again") from error

    def close(self) -> None:
        """Lets go of it."""
        if self._open:
            self._open = False
            self._close()
