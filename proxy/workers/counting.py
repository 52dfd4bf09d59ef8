"""Limits that hold for all workers together: the coordinator counts, and each worker asks it.

While it is away a worker goes on with its share of every window, and of what was left of budgets
and of short-lived tokens' calls. The next coordinator is told of those two.
"""

from __future__ import annotations

from math import inf
from typing import Any, Final, cast

from proxy.clock import Clock
from proxy.grant import Allowance
from proxy.limits.counters import State
from proxy.limits.counts import Kind, Lack, LocalCounts
from proxy.limits.limiter import LIMITERS, States, Windows
from proxy.limits.rules import Bill, Budget, Window
from proxy.memo import bounded_put
from proxy.workers.companion import Companion
from proxy.workers.link import Away, Link, Refused, Verb

KNOWN: Final = 65_536
"""Bills of which it is remembered how they stood last, and totals."""

TOGETHER: Final = 10.0
"""Seconds within which workers find a new coordinator."""

_FULL: Final = "windows"


class Counting:
    """An Office over the counts of one process."""

    def __init__(self, counts: LocalCounts, clock: Clock) -> None:
        self._counts = counts
        self._clock = clock
        self._recalled: dict[Bill, _Recalled] = {}

    @property
    def verbs(self) -> dict[str, Verb]:
        """What workers may ask."""
        return {
            "counts_take": self._take,
            "counts_back": self._back,
            "counts_become": self._become,
            "counts_recall": self._recall,
        }

    def forget(self, link: Link) -> None:
        """What a worker took stays taken: its calls may have been made."""

    async def _take(self, _link: Link, given: Any) -> Any:
        bill = _bill(given)
        lack = await self._counts.take(bill)
        if lack is None:
            return None, _plain(self._counts.look(bill))
        return lack.what, _plain(lack.states)

    def _back(self, _link: Link, given: list[Any]) -> None:
        bill, taken = given
        self._counts.give_back(_bill(bill), taken)

    def _become(self, _link: Link, kind: Kind) -> None:
        self._counts.become(kind)

    def _recall(self, _link: Link, totals: list[Any]) -> None:
        """What workers know of totals: how many calls were made, the most that anybody knows, and
        how many more each has made apart."""
        now = self._clock.monotonic()
        for given, made, more in totals:
            bill = _bill(given)
            known = self._recalled.get(bill)
            if known is None or now >= known.until:
                here = _calls(bill) - self._counts.look(bill)[-1].left
                known = _Recalled(now + TOGETHER, here)
                bounded_put(self._recalled, bill, known, KNOWN)
            self._counts.recall(bill, known.learn(made, more))


class _Recalled:
    """A total as workers tell of it one after the other, until they all have."""

    __slots__ = ("_apart", "_made", "until")

    def __init__(self, until: float, made: int) -> None:
        self.until = until
        self._made = made
        self._apart = 0

    def learn(self, made: int, more: int) -> int:
        """How many calls are to be counted that were not."""
        before = self._made + self._apart
        self._made, self._apart = max(self._made, made), self._apart + more
        return self._made + self._apart - before


class TeamCounts:
    """See `Counts` for what its methods promise."""

    def __init__(self, companion: Companion, kind: Kind, clock: Clock) -> None:
        self._companion = companion
        self._kind: Kind = kind
        self._clock = clock
        self._own = LIMITERS[kind](clock)
        self._known: dict[Bill, tuple[float, States]] = {}
        self._totals: dict[Allowance | Budget, _Total] = {}
        companion.when(self._tell, lambda: None)

    async def start(self) -> None:
        """Nothing: the coordinator has taken up what was counted."""

    async def stop(self) -> None:
        """Nothing: it writes that down."""

    def become(self, kind: Kind) -> None:
        """The same kind goes on counting; another begins anew."""
        if kind != self._kind:
            self._kind, self._own = kind, LIMITERS[kind](self._clock)
            self._companion.tell("counts_become", kind)

    async def take(self, bill: Bill) -> Lack | None:
        """As the seam has it; a round trip."""
        try:
            what, found = await self._companion.ask("counts_take", _given(bill))
        except (Away, Refused):
            return self._take_apart(bill)
        states = tuple(State(*one) for one in found)
        if what is None or what == _FULL:
            self._note(bill, states, taken=what is None)
        return None if what is None else Lack(what, states)

    def look(self, bill: Bill) -> States:
        """As the coordinator told last."""
        told, states = self._known.get(bill, (0.0, ()))
        if not states:
            return _untouched(bill)
        passed = self._clock.monotonic() - told
        return tuple([state._replace(seconds=max(0.0, state.seconds - passed)) for state in states])

    def give_back(self, bill: Bill, taken: float | None = None) -> None:
        """As the seam has it."""
        if self._companion.there:
            self._companion.tell("counts_back", [_given(bill), taken])
            return
        self._own.give_back(bill.windows, taken)
        if total := self._totals.get(_total(bill) or _NOTHING):
            total.apart -= 1

    def _note(self, bill: Bill, states: States, taken: bool) -> None:
        """How a bill stands: its windows alone, where one of them was full."""
        total = _total(bill)
        if total is not None and taken:
            made = total.calls - states[-1].left
            bounded_put(self._totals, total, _Total(_only(bill, total), made), KNOWN)
        elif total is not None:
            states = (*states, _untouched(bill)[-1])
        bounded_put(self._known, bill, (self._clock.monotonic(), states), KNOWN)

    # Apart.

    def _take_apart(self, bill: Bill) -> Lack | None:
        workers, which = self._companion.workers, _total(bill)
        total = self._totals.get(which) if which is not None else None
        if which is not None and total is None:
            total = _Total(_only(bill, which), 0)
            bounded_put(self._totals, which, total, KNOWN)
        if which is not None and total is not None and not total.has_share(which.calls, workers):
            return _spent(bill)
        taken, states = self._own.take(_shares(bill.windows, workers))
        if not taken:
            return Lack(_FULL, states)
        if total is not None:
            total.apart += 1
        return None

    def _tell(self) -> None:
        """What a new coordinator can't know."""
        self._companion.tell("counts_become", self._kind)
        known = [(_given(one.bill), one.made, one.apart) for one in self._totals.values()]
        for total in self._totals.values():
            total.made, total.apart = total.made + total.apart, 0
        if known:
            self._companion.tell("counts_recall", known)


class _Total:
    """Calls made against a budget or an allowance, as was told last; and `apart`, untold."""

    __slots__ = ("apart", "bill", "made")

    def __init__(self, bill: Bill, made: int) -> None:
        self.bill = bill
        self.made = made
        self.apart = 0

    def has_share(self, calls: int, workers: int) -> bool:
        """Whether one more is within a worker's part of what was left."""
        return self.apart < max(0, calls - self.made) // workers


_NOTHING: Final = Budget("", 0)


def _total(bill: Bill) -> Allowance | Budget | None:
    return bill.budget if bill.allowance is None else bill.allowance


def _calls(bill: Bill) -> int:
    total = _total(bill)
    return 0 if total is None else total.calls


def _only(bill: Bill, total: Allowance | Budget) -> Bill:
    """The bill without its windows."""
    if isinstance(total, Budget):
        return Bill(bill.tenant, (), None, total)
    return Bill(bill.tenant, (), total)


def _spent(bill: Bill) -> Lack:
    if bill.allowance is not None:
        return Lack("allowance")
    return Lack("budget", (State(0, _seconds(bill.budget, 60.0)),))


def _seconds(total: Allowance | Budget | None, else_: float) -> float:
    """Until there is room again, as far as is known here: never, of what is counted in all."""
    return inf if isinstance(total, Budget) and total.ever else else_


def _untouched(bill: Bill) -> States:
    """How it stands before the first call."""
    states = [State(window.amount, float(window.seconds)) for window in bill.windows]
    total = _total(bill)
    if total is not None:
        states.append(State(total.calls, _seconds(total, 0.0)))
    return tuple(states)


def _shares(windows: Windows, workers: int) -> Windows:
    return tuple([one._replace(amount=max(1, one.amount // workers)) for one in windows])


# On the wire: plain tuples.


def _given(bill: Bill) -> tuple[Any, ...]:
    windows = tuple([tuple(window) for window in bill.windows])
    allowance = None if bill.allowance is None else tuple(bill.allowance)
    return bill.tenant, windows, allowance, None if bill.budget is None else tuple(bill.budget)


def _bill(given: Any) -> Bill:
    tenant, windows, allowance, budget = given
    return Bill(
        tenant,
        tuple([Window(*one) for one in windows]),
        None if allowance is None else Allowance(*allowance),
        None if budget is None else Budget(*budget),
    )


def _plain(states: States) -> list[tuple[int, float]]:
    return [cast(tuple[int, float], tuple(state)) for state in states]
