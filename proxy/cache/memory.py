"""Small answers in memory, above the store: bounded by octets, the longest unused goes first.

When there is no room, the tenant that holds the most loses its longest unused answer, so that
nobody pushes the others out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from proxy.cache.entry import OVERHEAD, Entry, Found, Holding, Miss
from proxy.cache.key import Select
from vault import Purge

SHARE = 8
"""One answer takes at most this fraction of the memory."""


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    found: Found
    cost: int

    @property
    def entry(self) -> Entry:
        return self.found.entry


class Memory:
    """Answers by key; of one key the newest first. `evicted`: how many had to make room."""

    def __init__(self, octets: int) -> None:
        self._limit = octets
        self._by_key: dict[bytes, list[_Kept]] = {}
        self._by_tenant: dict[str, OrderedDict[_Kept, None]] = {}
        self._used: dict[str, int] = {}
        self._total = 0
        self.evicted = 0
        self.closed = False  # takes nothing now

    @property
    def holding(self) -> Holding:
        """How much is kept."""
        return Holding(sum(map(len, self._by_tenant.values())), self._total)

    def get(self, key: bytes, select: Select, now: float) -> Found | Miss:
        """The newest answer that suits the call and whose own time is ahead."""
        miss = Miss.ABSENT
        for kept in self._by_key.get(key, ()):
            entry = kept.entry
            if entry.vary and select(entry.vary) != entry.variant:
                miss = Miss.VARIES if miss is Miss.ABSENT else miss
            elif now >= entry.expires_at:
                miss = Miss.OVER
            else:
                self._by_tenant[entry.tenant].move_to_end(kept)
                return kept.found
        return miss

    def takes(self, size: int) -> bool:
        """Whether a body of this size is small enough."""
        return not self.closed and size + OVERHEAD <= self._limit // SHARE

    def put(self, entry: Entry, select: Select, body: bytes) -> None:
        """Keeps an answer in place of those that would have answered its request."""
        self.forget(entry.key, select)
        kept = _Kept(Found(entry, body), entry.cost)
        self._by_key.setdefault(entry.key, []).insert(0, kept)
        self._by_tenant.setdefault(entry.tenant, OrderedDict())[kept] = None
        self._used[entry.tenant] = self._used.get(entry.tenant, 0) + kept.cost
        self._total += kept.cost
        while self._total > self._limit:
            self.evicted += 1
            largest = max(self._used, key=self._used.__getitem__)
            self._drop(next(iter(self._by_tenant[largest])))

    def forget(self, key: bytes, select: Select) -> None:
        """Drops what would answer a request."""
        self._drop_all(
            kept
            for kept in self._by_key.get(key, ())
            if select(kept.entry.vary) == kept.entry.variant
        )

    def clear(self, key: bytes | None = None) -> None:
        """Drops what is kept under a key, or all."""
        self._drop_all(self._everything() if key is None else self._by_key.get(key, ()))

    def purge(self, purge: Purge, now: float) -> None:
        """Drops what a purge covers, and what a clock that ran ahead says is still to come."""
        self._drop_all(
            kept
            for kept in self._everything()
            if purge.tenant in (None, kept.entry.tenant)
            and purge.service in (None, kept.entry.service)
            and not purge.at < kept.entry.requested_at <= now
        )

    def sweep(self, now: float) -> None:
        """Drops what is over."""
        self._drop_all(kept for kept in self._everything() if now >= kept.entry.expires_at)

    def _everything(self) -> Iterable[_Kept]:
        return (kept for answers in self._by_tenant.values() for kept in answers)

    def _drop_all(self, doomed: Iterable[_Kept]) -> None:
        for kept in list(doomed):
            self._drop(kept)

    def _drop(self, kept: _Kept) -> None:
        entry = kept.entry
        same_key, same_tenant = self._by_key[entry.key], self._by_tenant[entry.tenant]
        same_key.remove(kept)
        del same_tenant[kept]
        self._used[entry.tenant] -= kept.cost
        self._total -= kept.cost
        if not same_key:
            del self._by_key[entry.key]
        if not same_tenant:
            del self._by_tenant[entry.tenant], self._used[entry.tenant]
