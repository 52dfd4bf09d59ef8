"""What was looked up since the last change: bounded, and dropped as a whole at the next one."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from vault.records import Holdings, Purge, Recognised, Token
from vault.secret import Credential

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_TOKENS: Final = 65536
_REFUSED: Final = 16384
_TENANTS: Final = 8192
_OPENED: Final = 8192
_RECOGNISED: Final = 16384


class Bounded(Generic[K, V]):
    """A mapping that forgets what was not asked for longest."""

    __slots__ = ("_items", "_most")

    def __init__(self, most: int) -> None:
        self._items: OrderedDict[K, V] = OrderedDict()
        self._most = most

    def get(self, key: K) -> V | None:
        """The value, now the newest, or None."""
        value = self._items.get(key)
        if value is not None:
            self._items.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        """Remembers a value; the oldest goes when there are too many."""
        self._items[key] = value
        if len(self._items) > self._most:
            self._items.popitem(last=False)

    def __len__(self) -> int:
        return len(self._items)


class Lookups:
    """The look-ups of one generation.

    A change replaces the whole object. Who looks something up keeps the object that was current
    when the look-up began and puts the answer there: an answer that a change overtook is lost with
    it.
    """

    __slots__ = (
        "data_keys", "holdings", "looking", "opened", "purges", "recognised", "refused", "tokens",
    )  # fmt: skip

    def __init__(self) -> None:
        # A token's digest beside it; an id that nobody has is remembered with None for the token.
        self.tokens: Bounded[str, tuple[Token | None, bytes]] = Bounded(_TOKENS)
        # Digests of texts that are no token, whether somebody has their id or not.
        self.refused: Bounded[bytes, bool] = Bounded(_REFUSED)
        self.holdings: Bounded[str, Holdings] = Bounded(_TENANTS)
        self.looking: dict[str, asyncio.Task[Holdings]] = {}  # for what a tenant holds
        self.opened: Bounded[tuple[str, str, str, int], Credential] = Bounded(_OPENED)
        self.recognised: Bounded[bytes, tuple[Recognised, ...]] = Bounded(_RECOGNISED)
        self.purges: tuple[Purge, ...] | None = None
        self.data_keys = False  # whether they were read again, which others may have renewed
