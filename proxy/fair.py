"""Whose call begins next where many are ready at once: a few in each turn of the event loop, and
address by address, so that nobody waits behind the whole of a crowd."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

AT_ONCE: Final = 4
"""How many calls begin in one turn. Whoever finds an answer kept is through with its first step, so
that these are most of what a turn takes; docs/performance.md has the measurement."""


class Waiting(Protocol):
    """A call that is ready. `whose`: the address, or the network, that it takes turns with."""

    whose: str

    def on_gone(self, told: Callable[[], None] | None) -> None:
        """Whom to tell, once, when the caller hangs up; None: nobody."""
        ...


class FairTurns:
    """Those of one server. A call that may begin at once `take`s a place, one that may not `wait`s;
    each that has begun says so, once: `ran`, in its first step.

    While anybody waits all places are taken, and each that is given back goes to the address that
    has waited longest: so there is never a turn to be asked for.
    """

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._left = at_once
        self._queues: OrderedDict[str, OrderedDict[Waiting, Callable[[], None]]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many do."""
        return sum(map(len, self._queues.values()))

    def take(self) -> bool:
        """Whether a call may begin at once."""
        if self._left:
            self._left -= 1
            return True
        return False

    def wait(self, call: Waiting, begin: Callable[[], None]) -> None:
        """It may not: `begin` is called when its turn has come, unless its caller hangs up."""
        queue = self._queues.get(call.whose)
        if queue is None:
            queue = self._queues[call.whose] = OrderedDict()
        queue[call] = begin
        call.on_gone(partial(self._forget, call))

    def ran(self) -> None:
        """A call has begun: the next one may."""
        if self._queues:
            self._begin_next()
        else:
            self._left += 1

    def give_up(self) -> None:
        """Nobody who waits is called any more."""
        self._queues.clear()

    def _begin_next(self) -> None:
        whose, queue = self._queues.popitem(last=False)
        call, begin = queue.popitem(last=False)
        if queue:
            self._queues[whose] = queue  # behind all others
        call.on_gone(None)
        begin()

    def _forget(self, call: Waiting) -> None:
        queue = self._queues.get(call.whose, OrderedDict())
        queue.pop(call, None)
        if not queue:
            self._queues.pop(call.whose, None)
