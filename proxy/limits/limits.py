"""The limits of every call, and of those that go to an upstream; who has none pays nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from proxy.clock import Clock
from proxy.errors import TooManyRequests
from proxy.grant import Grant
from proxy.limits.allowances import Allowances
from proxy.limits.budgets import Budgets
from proxy.limits.limiter import LIMITERS, States
from proxy.limits.rules import Plan, Rule, Who, Window, plan, who
from proxy.limits.standing import Standing, lines, spent, too_many
from proxy.memo import bounded_put
from proxy.record import Account

PLANS: Final = 16_384
"""For how many callers and services it is remembered what holds for them."""

GRANTS: Final = 4096
"""For how many grants, which are the same object for calls with the same header."""

Kind = Literal["sliding", "moving"]


class Limits:
    """Counts calls by token and tenant, as `rules` and the tokens' own limits have it."""

    def __init__(self, rules: Sequence[Rule], kind: Kind, budgets: Budgets, clock: Clock) -> None:
        self._rules = tuple(rules)
        self._kind = kind
        self._budgets = budgets
        self._clock = clock
        self._plans: dict[Who, Plan] = {}
        self._of_grants: dict[int, tuple[Grant, Plan | None]] = {}
        self._limiter = LIMITERS[kind](clock)
        self._allowances = Allowances(clock)

    async def start(self) -> None:
        """Takes up this month's counts."""
        await self._budgets.start()

    async def stop(self) -> None:
        """Writes this month's counts down."""
        await self._budgets.stop()

    def become(self, rules: Sequence[Rule], kind: Kind) -> None:
        """Other rules, from now on; what is counted already goes on counting."""
        if kind != self._kind:
            self._kind, self._limiter = kind, LIMITERS[kind](self._clock)
        self._rules = tuple(rules)
        self._plans, self._of_grants = {}, {}

    async def check(self, grant: Grant, account: Account) -> None:
        """Counts an authorised call, or raises TooManyRequests; notes how its limits stand."""
        found = self.plan(grant)
        if found is None:
            return
        account.limited = Tally(self, found)
        if found.allowance is not None:
            self._allowances.take(found.allowance)
        if found.calls:
            taken, states = await self._limiter.take(found.calls)
            if not taken:
                if found.allowance is not None:
                    self._allowances.give_back(found.allowance)
                raise _refusal(found.calls, states)

    def plan(self, grant: Grant) -> Plan | None:
        """What holds for a grant; None: nothing does."""
        if grant.limits is None and not self._rules:
            return None
        known = self._of_grants.get(id(grant))
        if known is None or known[0] is not grant:
            found = self._plan(who(grant))
            known = grant, found if found.limits else None
            bounded_put(self._of_grants, id(grant), known, GRANTS)
        return known[1]

    def _plan(self, whose: Who) -> Plan:
        found = self._plans.get(whose)
        if found is None:
            found = plan(whose, self._rules)
            bounded_put(self._plans, whose, found, PLANS)
        return found

    async def spend(self, found: Plan) -> None:
        """Counts a call to an upstream; raises TooManyRequests or BudgetSpent, and counts none."""
        budgets, budget, windows = self._budgets, found.budget, found.upstream_calls
        if budget is not None and budgets.spent(found.subject) >= budget:
            raise spent(budget, budgets.left(), self._clock.now())
        if windows:
            taken, states = await self._limiter.take(windows)
            if not taken:
                raise _refusal(windows, states)
        if budget is not None:
            budgets.count(found.subject)

    def give_back(self, found: Plan) -> None:
        """Takes the count of a call back that no upstream has seen."""
        if found.upstream_calls:
            self._limiter.give_back(found.upstream_calls)
        if found.budget is not None:
            self._budgets.count(found.subject, -1)

    def lines(self, found: Plan) -> bytes:
        """What an answer says that is written now."""
        windows = found.calls + found.upstream_calls
        standings = _standings(windows, self._limiter.look(windows)) if windows else []
        if found.budget is not None:
            left = max(0, found.budget - self._budgets.spent(found.subject))
            standings.append(Standing("budget", found.budget, left, self._budgets.left()))
        now, allowance = self._clock.now(), found.allowance
        if allowance is not None:
            left = self._allowances.left(allowance)
            standings.append(Standing("short-lived", allowance.calls, left, allowance.until - now))
        return lines(found, standings, now)


class Tally:
    """How the limits of one call stand; worked out when its answer is written."""

    __slots__ = ("_found", "_limits")

    def __init__(self, limits: Limits, found: Plan) -> None:
        self._limits = limits
        self._found = found

    def lines(self) -> bytes:
        """The lines of the answer's header."""
        return self._limits.lines(self._found)


def _standings(windows: tuple[Window, ...], states: States) -> list[Standing]:
    return [Standing(w.policy, w.amount, *s) for w, s in zip(windows, states, strict=True)]


def _refusal(windows: tuple[Window, ...], states: States) -> TooManyRequests:
    """Of the windows without room the one that takes longest."""
    full = [pair for pair in zip(windows, states, strict=True) if not pair[1].left]
    window, state = max(full, key=lambda pair: pair[1].seconds)
    return too_many(window, state.seconds)
