"""Whose call begins next where many are ready at once: a few in each turn of the event loop, and
address by address, so that nobody waits behind the whole of a crowd."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

AT_ONCE: Final = 4
"""How many calls begin in one turn. Whoever finds an answer kept is through with its first step, so
that these are most of what a turn takes; docs/performance.md has the measurement."""

Begin = Callable[[], None]


def _soon(what: Begin) -> None:
    asyncio.get_running_loop().call_soon(what)


class FairTurns:
    """Those of one server. A call that may begin at once `take`s a place; one that may not `wait`s,
    and has a place when it is called. A place is given back, once, by `ran`: by a call in its first
    step. `soon`: has something done in the loop's next turn. `crowded`: who comes now has to wait.
    """

    def __init__(self, at_once: int = AT_ONCE, soon: Callable[[Begin], None] = _soon) -> None:
        self.crowded = False
        self._left = at_once
        self._soon = soon
        self._due = False
        self._queues: OrderedDict[str, OrderedDict[Hashable, Begin]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many do."""
        return sum(map(len, self._queues.values()))

    def take(self) -> bool:
        """A place, where there is one that nobody waits for."""
        if self.crowded:
            return False
        self._left -= 1
        if not self._left:
            self.crowded = True
        return True

    def ran(self) -> None:
        """A place is given back."""
        self._left += 1
        if not self._queues:
            self.crowded = False
        elif not self._due:
            self._due = True
            self._soon(self._call_next)

    def wait(self, whose: str, one: Hashable, begin: Begin) -> None:
        """While it is crowded: `begin` is called when the turn of `whose` address has come."""
        queue = self._queues.get(whose)
        if queue is None:
            queue = self._queues[whose] = OrderedDict()
        queue[one] = begin

    def forget(self, whose: str, one: Hashable) -> None:
        """Who waits has gone."""
        queue = self._queues.get(whose, OrderedDict())
        queue.pop(one, None)
        if not queue:
            self._queues.pop(whose, None)

    def give_up(self) -> None:
        """Nobody who waits is called any more."""
        self._queues.clear()
        self.crowded = not self._left

    def _call_next(self) -> None:
        self._due = False
        for _ in range(self._left):
            if not self._queues:
                break
            whose, queue = self._queues.popitem(last=False)
            _, begin = queue.popitem(last=False)
            if queue:
                self._queues[whose] = queue  # behind all others
            self._left -= 1
            begin()
        self.crowded = bool(self._queues) or not self._left
