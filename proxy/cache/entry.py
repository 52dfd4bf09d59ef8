"""What is stored, and what is asked of whoever stores it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from proxy.cache.commons import Fence
from proxy.cache.key import Select
from proxy.messages import Fields
from vault import Purge

OVERHEAD = 1024
"""Octets that an entry costs at least besides its body: rows, fields, indexes."""

BARE = 640
"""Octets of these without fields."""

FIELD = 144
"""Octets that a field of an entry costs besides its name and value."""


class CacheError(Exception):
    """The cache can't do what was asked; the message is one safe sentence."""


class StoreError(CacheError):
    """The store can't be read or written now; `__cause__` says why."""


class SchemaTooNew(CacheError):
    """The cache was written by a newer release; the message names the remedy."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored response without its body. Times are Unix seconds, sizes octets.

    `vary`: names that it varies by beside its key, `variant`: what its request sent in them.
    `requested_at`: when its request left; what was purged since then is over. `made_at`: when its
    header came, less the age that it already had (RFC 9111 section 4.2.3).
    """

    key: bytes
    vary: bytes
    variant: bytes
    tenant: str
    service: str
    requested_at: float
    made_at: float
    expires_at: float
    status: int
    fields: Fields
    size: int

    @property
    def cost(self) -> int:
        """Octets that it takes, body and fields and all."""
        fields = sum(FIELD + len(name) + len(text) for name, text in self.fields)
        return self.size + max(OVERHEAD, BARE + fields)


class OpenBody(Protocol):
    """A stored body that is read piece by piece, once; its taker closes it."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The octets; raises UpstreamIncomplete where they can't be read any more."""
        ...

    def close(self) -> None:
        """Lets go of it."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """A usable entry; a small body whole."""

    entry: Entry
    body: bytes | OpenBody

    async def octets(self) -> AsyncIterator[bytes]:
        """The body as it goes to a caller."""
        if not isinstance(self.body, bytes):
            async for chunk in self.body:
                yield chunk
        elif self.body:
            yield self.body

    @property
    def content(self) -> bytes | None:
        """The whole body, where it is in memory."""
        return self.body if isinstance(self.body, bytes) else None

    def close(self) -> None:
        """Lets go of the body."""
        if not isinstance(self.body, bytes):
            self.body.close()


class Miss(Enum):
    """Why there is no usable entry; the more telling reason is the higher."""

    ABSENT = 0
    VARIES = 1
    OVER = 2


@dataclass(frozen=True, slots=True)
class Holding:
    """How much is stored."""

    entries: int = 0
    octets: int = 0


@dataclass(frozen=True, slots=True)
class CacheStats:
    """How much is stored, by tenant and service; `evicted`: entries that had to make room."""

    holdings: Mapping[tuple[str, str], Holding] = field(default_factory=dict)
    evicted: int = 0

    @property
    def entries(self) -> int:
        """Entries of all tenants."""
        return sum(holding.entries for holding in self.holdings.values())

    @property
    def octets(self) -> int:
        """Octets of all tenants."""
        return sum(holding.octets for holding in self.holdings.values())


class StoredBody(Protocol):
    """A whole body, read as often as needed."""

    def blocks(self, size: int) -> AsyncGenerator[bytes, None]:
        """The octets in blocks of `size`; the last may be shorter."""
        ...


class Store(Protocol):
    """Keeps entries beyond the life of the process; what is awaited raises StoreError only.

    One that lies where the leases of flights are puts under a `fence`, too: it asks for the lease
    and closes it in the one step that makes the entry seen; Overtaken says that it was not held.
    """

    async def start(self) -> None:
        """Opens; raises SchemaTooNew, else StoreError."""
        ...

    async def get(self, key: bytes, select: Select, now: float) -> Found | Miss:
        """The newest entry of the key that suits the call and whose own time is ahead."""
        ...

    async def put(
        self, entry: Entry, select: Select, body: StoredBody, fence: Fence | None = None
    ) -> None:
        """Keeps an entry, whole or not at all, in place of those that would have answered it."""
        ...

    def touch(self, key: bytes, now: float) -> None:
        """Notes that an entry of this key was used."""
        ...

    async def purge(self, *purges: Purge) -> None:
        """Removes what any of them covers: what was requested up to its `at`."""
        ...

    async def sweep(self, now: float) -> None:
        """Removes what is over."""
        ...

    async def stats(self) -> CacheStats:
        """How much is stored."""
        ...

    async def close(self) -> None:
        """Closes; what was put is kept."""
        ...
