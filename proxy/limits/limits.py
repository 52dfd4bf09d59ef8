"""The limits of every call, and of those that go to an upstream; who has none pays nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from proxy.clock import Clock
from proxy.errors import RelayError
from proxy.grant import Grant
from proxy.limits.counters import State
from proxy.limits.counts import Counts, Kind, Lack
from proxy.limits.limiter import States
from proxy.limits.rules import Bill, Plan, Rule, Who, plan, who
from proxy.limits.standing import Standing, all_made, lines, spent, too_many, too_many_tokens
from proxy.memo import bounded_put
from proxy.record import Account

PLANS: Final = 16_384
"""For how many callers and services it is remembered what holds for them."""

GRANTS: Final = 4096
"""For how many grants, which are the same object for calls with the same header."""


class Limits:
    """What calls take by token and tenant, as `rules` and the tokens' own limits have it."""

    def __init__(self, rules: Sequence[Rule], counts: Counts, clock: Clock) -> None:
        self._rules = tuple(rules)
        self._counts = counts
        self._clock = clock
        self._plans: dict[Who, Plan | None] = {}
        self._of_grants: dict[int, tuple[Grant, Plan | None]] = {}

    async def start(self) -> None:
        """Takes up what was counted before."""
        await self._counts.start()

    async def stop(self) -> None:
        """Writes down what lasts."""
        await self._counts.stop()

    def become(self, rules: Sequence[Rule], kind: Kind) -> None:
        """Other rules, from now on; what is counted already goes on counting."""
        self._counts.become(kind)
        self._rules = tuple(rules)
        self._plans, self._of_grants = {}, {}

    async def check(self, grant: Grant, account: Account) -> None:
        """Counts an authorised call, or raises TooManyRequests, CallsSpent, Unavailable; notes how
        its limits stand."""
        found = self.plan(grant)
        if found is None:
            return
        account.limited = Tally(self, found)
        for at, bill in enumerate(found.calls):
            lack = await self._counts.take(bill)
            if lack is not None:
                for taken in found.calls[:at]:
                    self._counts.give_back(taken)
                raise self._refusal(bill, lack)

    def plan(self, grant: Grant) -> Plan | None:
        """What holds for a grant; None: nothing does."""
        if grant.limits is None and not self._rules:
            return None
        known = self._of_grants.get(id(grant))
        if known is None or known[0] is not grant:
            known = grant, self._plan(who(grant))
            bounded_put(self._of_grants, id(grant), known, GRANTS)
        return known[1]

    def _plan(self, whose: Who) -> Plan | None:
        try:
            return self._plans[whose]
        except KeyError:
            found = plan(whose, self._rules)
            bounded_put(self._plans, whose, found, PLANS)
            return found

    async def spend(self, bill: Bill) -> float:
        """Counts a call to an upstream; raises TooManyRequests or BudgetSpent, and counts none.

        Returns the time of that, for `give_back`.
        """
        began = self._clock.monotonic()
        lack = await self._counts.take(bill)
        if lack is not None:
            raise self._refusal(bill, lack)
        return began

    def give_back(self, bill: Bill, taken: float | None = None) -> None:
        """Takes the count of a call back that no upstream has seen; `taken`: what `spend` said."""
        self._counts.give_back(bill, taken)

    def lines(self, found: Plan) -> bytes:
        """What an answer says that is written now."""
        states: list[State] = []
        for bill in found.bills:
            states += self._counts.look(bill)
        standings = [
            Standing(*pair[0], *pair[1]) for pair in zip(found.quotas, states, strict=True)
        ]
        return lines(found, standings, self._clock.now())

    def _refusal(self, bill: Bill, lack: Lack) -> RelayError:
        if lack.what == "windows":
            return _full(bill, lack.states)
        if lack.what == "budget" and bill.budget is not None:
            return spent(bill.budget, lack.states[0].seconds, self._clock.now())
        if lack.what == "allowance" and bill.allowance is not None:
            return all_made(bill.allowance.calls)
        return too_many_tokens()


class Tally:
    """How the limits of one call stand; worked out when its answer is written."""

    __slots__ = ("_found", "_limits")

    def __init__(self, limits: Limits, found: Plan) -> None:
        self._limits = limits
        self._found = found

    def lines(self) -> bytes:
        """The lines of the answer's header."""
        return self._limits.lines(self._found)


def _full(bill: Bill, states: States) -> RelayError:
    """Of the windows without room the one that takes longest."""
    full = [pair for pair in zip(bill.windows, states, strict=True) if not pair[1].left]
    window, state = max(full, key=lambda pair: pair[1].seconds)
    return too_many(window, state.seconds)
