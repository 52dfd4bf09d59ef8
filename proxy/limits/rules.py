"""What the configuration limits, and which of it holds for one grant. Pure.

The nearest word counts: what a token was given itself, else the entry that names it, else the one
for all handed-out keys, for all who sign in with one issuer, or for all tokens; and apart from that
the tenant's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from proxy.grant import Allowance, Grant, OwnLimits
from proxy.limits.grammar import Limit, Rate, parse_limit

EVERY: Final = "*"
EVERY_KEY: Final = "key:*"
Counted = Literal["calls", "upstream_calls"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of `limits.quotas`: for a token (of one tenant or any), or for a tenant as a whole.

    None: it says nothing about that; empty: no limit.
    """

    token: str | None = None
    tenant: str | None = None
    service: str | None = None
    calls: tuple[Rate, ...] | None = None
    upstream_calls: tuple[Rate, ...] | None = None
    budget: int | None = None

    def rates(self, counted: Counted) -> tuple[Rate, ...] | None:
        """What it says about one kind of call."""
        return self.calls if counted == "calls" else self.upstream_calls


class Window(NamedTuple):
    """So many calls in so long, counted under one key. `policy`: its name in the answers' fields;
    `rule`: the same in words."""

    key: str
    amount: int
    seconds: int
    policy: str
    rule: str


class Budget(NamedTuple):
    """So many calls, counted for a subject: in a calendar month (UTC), or in all, `ever`."""

    subject: str
    calls: int
    ever: bool = False


class Bill(NamedTuple):
    """What a call takes, all of it or nothing: a slot in every window, and one call of a
    short-lived token or one of a budget. `tenant`: whose all of it is."""

    tenant: str
    windows: tuple[Window, ...]
    allowance: Allowance | None = None
    budget: Budget | None = None


class Plan(NamedTuple):
    """All that holds for one grant, by when it is taken: as a call comes, and as it goes out; None:
    nothing. Of `calls` there are two where a short-lived token has a number of them, and so has the
    one that it was made of. `quotas`: the name and amount of each, in the order of `bills`;
    `policies`: all of it in the words of RateLimit-Policy."""

    calls: tuple[Bill, ...]
    upstream_calls: Bill | None
    quotas: tuple[tuple[str, int], ...]
    policies: bytes

    @property
    def bills(self) -> tuple[Bill, ...]:
        """All that there is, in the order in which it is taken."""
        return self.calls if self.upstream_calls is None else (*self.calls, self.upstream_calls)


class Who(NamedTuple):
    """Whose calls are counted: a token or a handed-out key, its tenant, and for which service."""

    tenant: str
    client: str
    token_id: str
    service: str
    own: OwnLimits | None

    @property
    def subject(self) -> str:
        """The name of the counters; one that was handed out has none but its key's."""
        return self.token_id or f"{self.tenant}/{self.client}"


def who(grant: Grant) -> Who:
    """Of a grant, what its limits depend on."""
    service = grant.service.name if grant.service is not None else ""
    return Who(grant.tenant, grant.client, grant.token_id, service, grant.limits)


def plan(whose: Who, rules: Iterable[Rule]) -> Plan | None:
    """What holds for all calls, for upstream calls, and in a month; None: nothing does."""
    own = whose.own or OwnLimits()
    tokens = _of_token(whose, rules)
    tenants = _of_tenant(whose, rules)
    calls = tuple(_windows(whose, "calls", own.calls, tokens, tenants))
    upstream = tuple(_windows(whose, "upstream_calls", own.upstream_calls, tokens, tenants))
    ever = None if own.ever is None else Budget(whose.subject, own.ever, ever=True)
    short = Bill(whose.tenant, (), own.allowance if ever else None)
    coming = Bill(whose.tenant, calls, None if ever else own.allowance, ever)
    going = Bill(whose.tenant, upstream, budget=_budget(whose, own, tokens))
    told = [*_told(short), *_told(coming), *_told(going)]
    if not told:
        return None
    return Plan(
        tuple([bill for bill in (short, coming) if any(bill[1:])]),
        going if any(going[1:]) else None,
        tuple((policy, amount) for policy, amount, _ in told),
        ", ".join(f'"{policy}";q={amount}{rest}' for policy, amount, rest in told).encode(),
    )


def _told(bill: Bill) -> Iterator[tuple[str, int, str]]:
    """Name, amount and what else is said of each part, in the order of the bill."""
    for window in bill.windows:
        yield window.policy, window.amount, f";w={window.seconds}"
    if bill.allowance is not None:
        yield "short-lived", bill.allowance.calls, ""
    if bill.budget is not None:
        yield "calls" if bill.budget.ever else "budget", bill.budget.calls, ""


def _budget(whose: Who, own: OwnLimits, tokens: list[Rule]) -> Budget | None:
    calls = own.budget
    if calls is None:
        said = (rule.budget for rule in tokens if rule.service is None)
        calls = next((one for one in said if one is not None), None)
    return None if calls is None else Budget(whose.subject, calls)


def _of_token(whose: Who, rules: Iterable[Rule]) -> list[Rule]:
    """The entries that fit, the nearest first."""
    issuer, signed_in, _ = whose.client.partition("/") if whose.token_id else ("", "", "")
    more = [f"{issuer}/*"] if signed_in else [] if whose.token_id else [EVERY_KEY]
    names = [whose.client, *more, EVERY]
    fitting = [one for one in rules if one.token in names and one.tenant in (whose.tenant, None)]
    return sorted(fitting, key=lambda one: (names.index(one.token or ""), one.tenant is None))


def _of_tenant(whose: Who, rules: Iterable[Rule]) -> list[Rule]:
    names = [whose.tenant, EVERY]
    fitting = [one for one in rules if one.token is None and one.tenant in names]
    return sorted(fitting, key=lambda one: names.index(one.tenant or ""))


def _windows(
    whose: Who, counted: Counted, own: tuple[str, ...], tokens: list[Rule], tenants: list[Rule]
) -> Iterator[Window]:
    limits = tuple(map(parse_limit, own))
    word = "token" if whose.token_id else "key"
    for service in (None, whose.service) if whose.service else (None,):
        mine = tuple(one.rate for one in limits if one.service == service)
        rates = mine or _nearest(tokens, counted, service)
        yield from (_window(word, whose.subject, counted, Limit(service, rate)) for rate in rates)
        rates = _nearest(tenants, counted, service)
        yield from (
            _window("tenant", whose.tenant, counted, Limit(service, rate)) for rate in rates
        )


def _nearest(rules: list[Rule], counted: Counted, service: str | None) -> tuple[Rate, ...]:
    said = (rule.rates(counted) for rule in rules if rule.service == service)
    return next((rates for rates in said if rates is not None), ())


def _window(word: str, subject: str, counted: Counted, limit: Limit) -> Window:
    """Its key has no amount in it: another amount goes on with what is counted already."""
    upstream = counted == "upstream_calls"
    rate, service = limit.rate, limit.service
    parts = (word, service or "", "upstream" if upstream else "", rate.period)
    kind = ("upstream call" if upstream else "call") + ("" if rate.amount == 1 else "s")
    period = rate.period if rate.period.isalpha() else f"{rate.seconds} seconds"
    return Window(
        key=f"{word}/{subject}/{service or ''}/{counted}/{rate.seconds}",
        amount=rate.amount,
        seconds=rate.seconds,
        policy="-".join(part for part in parts if part),
        rule=f"this {word} may make {rate.amount} {kind} per {period}"
        + (f" to {service}" if service else ""),
    )
