"""What counts calls and says no: the library's strategies over counters in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from limits import RateLimitItemPerSecond
from limits.strategies import (
    MovingWindowRateLimiter,
    RateLimiter,
    SlidingWindowCounterRateLimiter,
)

from proxy.clock import Clock
from proxy.limits.counters import Counters
from proxy.limits.rules import Window
from proxy.memo import bounded_put

Windows = tuple[Window, ...]
ITEMS = 32_768
"""How many windows are remembered as the library takes them."""


class State(NamedTuple):
    """How a window stands: calls that are left, and seconds until there is room for one more."""

    left: int
    seconds: float


States = tuple[State, ...]


class Limiter(Protocol):
    """Counts calls, in one process or for several.

    Where none is refused, none is counted in vain: a call takes its slot in every window, or in
    none. No two calls get the same slot.
    """

    async def take(self, windows: Windows) -> tuple[bool, States]:
        """Whether there was room in every window; where there was none, how they stand."""
        ...

    def look(self, windows: Windows) -> States:
        """How windows stand, as far as is known without waiting."""
        ...

    def give_back(self, windows: Windows) -> None:
        """Takes back a slot in each: the call was not made."""
        ...


class Item(RateLimitItemPerSecond):
    """A window as the library takes it; its key is worked out once."""

    __slots__ = ["key"]

    def __init__(self, window: Window) -> None:
        super().__init__(window.amount, window.seconds)
        self.key = window.key

    def key_for(self, *_identifiers: bytes | str | float) -> str:
        """The window's own key."""
        return self.key


Look = Callable[[Counters, Window], State]


class MemoryLimiter:
    """Counts in this process. Nothing is awaited between looking and taking."""

    def __init__(self, strategy: type[RateLimiter], look: Look, clock: Clock) -> None:
        self.counters = Counters(clock)
        self._strategy = strategy(self.counters)
        self._look = look
        self._items: dict[Window, Item] = {}

    async def take(self, windows: Windows) -> tuple[bool, States]:
        """A slot in every window, or in none."""
        strategy = self._strategy
        items = [self._items.get(window) or self._item(window) for window in windows]
        room = len(items) == 1 or all(map(strategy.test, items))
        taken = room and all(map(strategy.hit, items))
        return taken, () if taken else self.look(windows)

    def _item(self, window: Window) -> Item:
        item = Item(window)
        bounded_put(self._items, window, item, ITEMS)
        return item

    def look(self, windows: Windows) -> States:
        """How windows stand."""
        counters = self.counters
        return tuple([self._look(counters, window) for window in windows])

    def give_back(self, windows: Windows) -> None:
        """A slot in each."""
        for window in windows:
            self.counters.give_back(window.key)


def _sliding(counters: Counters, window: Window) -> State:
    """This window's calls, and as many of the one before as the last `seconds` still hold of it."""
    before, weighs, now, until = counters.get_sliding_window(window.key, window.seconds)
    left = window.amount - int(before * weighs / window.seconds + now)
    rest = until - window.seconds
    if left > 0:
        return State(left, rest)
    if now < window.amount:  # enough of the earlier ones will have left in this window
        return State(0, weighs - (window.amount - now) * window.seconds / before)
    return State(0, rest + window.seconds * (1 - window.amount / now))  # or of these, in the next


def _moving(counters: Counters, window: Window) -> State:
    oldest, count = counters.get_moving_window(window.key, window.amount, window.seconds)
    if count > window.amount:  # it was lowered: more than one must leave
        oldest = counters.time_of(window.key, count - window.amount)
    age = counters.now - oldest
    return State(max(0, window.amount - count), window.seconds - age)


def sliding(clock: Clock) -> MemoryLimiter:
    """Two numbers a window; about right where calls come in bursts."""
    return MemoryLimiter(SlidingWindowCounterRateLimiter, _sliding, clock)


def moving(clock: Clock) -> MemoryLimiter:
    """Exact; holds the time of every call that counts."""
    return MemoryLimiter(MovingWindowRateLimiter, _moving, clock)


LIMITERS: Mapping[str, Callable[[Clock], Limiter]] = {"sliding": sliding, "moving": moving}
"""By the name in `limits.window`."""
