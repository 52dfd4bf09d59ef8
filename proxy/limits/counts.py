"""Where calls are counted against what they may take: in this process, or for several."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

from proxy.clock import Clock
from proxy.limits.allowances import Allowances
from proxy.limits.budgets import Budgets
from proxy.limits.counters import State
from proxy.limits.limiter import LIMITERS, States
from proxy.limits.rules import Bill, Budget

Kind = Literal["sliding", "moving"]
"""As in `limits.window`."""


class Lack(NamedTuple):
    """Why a call takes nothing: of what there was no more, and how that stands.

    `states`: of the windows, each; of a budget, it alone.
    """

    what: Literal["windows", "budget", "allowance", "memory"]
    states: States = ()


class Counts(Protocol):
    """Takes bills, in one process or for several.

    Where one is refused, nothing of it is counted; no two calls get the same slot, and the order of
    `take` and `give_back` is kept.
    """

    async def start(self) -> None:
        """Takes up what was counted before."""
        ...

    async def stop(self) -> None:
        """Writes down what lasts."""
        ...

    def become(self, kind: Kind) -> None:
        """Counts windows in another way, from now on."""
        ...

    async def take(self, bill: Bill) -> Lack | None:
        """Takes all that a call needs, or says what there is too little of."""
        ...

    def look(self, bill: Bill) -> States:
        """How each window stands and, behind them, allowance or budget; as far as is known without
        waiting."""
        ...

    def give_back(self, bill: Bill, taken: float | None = None) -> None:
        """What was taken, at that time (monotonic; None: just now): the call was not made."""
        ...


class LocalCounts:
    """In the memory of this process; budgets on disk too."""

    def __init__(self, kind: Kind, budgets: Budgets, clock: Clock) -> None:
        self._kind = kind
        self._clock = clock
        self._limiter = LIMITERS[kind](clock)
        self._budgets = budgets
        self._allowances = Allowances(clock)

    async def start(self) -> None:
        """Takes up what was spent of budgets."""
        await self._budgets.start()

    async def stop(self) -> None:
        """Writes them down."""
        await self._budgets.stop()

    def become(self, kind: Kind) -> None:
        """The same kind goes on counting; another begins anew."""
        if kind != self._kind:
            self._kind, self._limiter = kind, LIMITERS[kind](self._clock)

    async def take(self, bill: Bill) -> Lack | None:
        """As the seam has it; nothing is awaited."""
        _, windows, allowance, budget = bill
        if budget is not None and self._made(budget) >= budget.calls:
            return Lack("budget", (State(0, self._budgets.left(budget.ever)),))
        if allowance is not None:
            lacking = self._allowances.take(allowance)
            if lacking is not None:
                return Lack(lacking)
        if windows:
            taken, states = self._limiter.take(windows)
            if not taken:
                if allowance is not None:
                    self._allowances.give_back(allowance)
                return Lack("windows", states)
        if budget is not None:
            self._budgets.count(budget.subject, 1, budget.ever)
        return None

    def look(self, bill: Bill) -> States:
        """As the seam has it."""
        _, windows, allowance, budget = bill
        states = self._limiter.look(windows) if windows else ()
        if allowance is not None:
            left = self._allowances.left(allowance)
            states += (State(left, allowance.until - self._clock.now()),)
        if budget is not None:
            left = max(0, budget.calls - self._made(budget))
            states += (State(left, self._budgets.left(budget.ever)),)
        return states

    def give_back(self, bill: Bill, taken: float | None = None) -> None:
        """As the seam has it."""
        if bill.windows:
            self._limiter.give_back(bill.windows, taken)
        if bill.allowance is not None:
            self._allowances.give_back(bill.allowance)
        budget = bill.budget
        if budget is not None and self._budgets.is_of_now(taken, budget.ever):
            self._budgets.count(budget.subject, -1, budget.ever)

    def recall(self, bill: Bill, calls: int) -> None:
        """So many calls were made against a bill's allowance or budget that were not counted."""
        _, _, allowance, budget = bill
        if allowance is not None:
            self._allowances.recall(allowance, calls)
        if budget is not None and calls:
            self._budgets.count(budget.subject, calls, budget.ever)

    def _made(self, budget: Budget) -> int:
        return self._budgets.spent(budget.subject, budget.ever)
