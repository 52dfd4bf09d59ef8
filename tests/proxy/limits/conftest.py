"""A relay's limits without the relay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.destinations import parse_destination
from proxy.grant import Grant, OwnLimits, Place
from proxy.limits.budgets import Budgets
from proxy.limits.counts import Kind, LocalCounts
from proxy.limits.limits import Limits
from proxy.limits.rules import Rule
from proxy.reach import Reach
from proxy.record import Account
from proxy.services import load_services
from tests.support.clock import FakeClock

OPENAI = load_services().get("openai")


class Book:
    """A ledger in memory. `readable`: whether it can be read now."""

    def __init__(self, counts: Mapping[tuple[str, str], int] | None = None) -> None:
        self.counts = dict(counts or {})
        self.noted: dict[tuple[str, str], int] = {}
        self.readable = True

    async def spent(self, month: str) -> Mapping[str, int] | None:
        if not self.readable:
            return None
        return {who: count for (who, when), count in self.counts.items() if when == month}

    def note(self, subject: str, month: str, calls: int) -> None:
        self.noted[subject, month] = self.noted.get((subject, month), 0) + calls

    async def flush(self) -> Mapping[tuple[str, str], int]:
        noted, self.noted = self.noted, {}
        for which, calls in noted.items():
            self.counts[which] = self.counts.get(which, 0) + calls
        return {which: self.counts[which] for which in noted}

    async def aclose(self) -> None:
        """Nothing was opened."""


def limits_of(clock: FakeClock, *rules: Rule, kind: Kind = "sliding") -> Limits:
    return Limits(rules, LocalCounts(kind, Budgets(Book(), clock), clock), clock)


def granted(token: str = "ann", tenant: str = "default", **own: Any) -> Grant:
    """A grant for openai. `token`: its name and its id; key:... is one without an id."""
    return Grant(
        tenant=tenant,
        client=token,
        service=OPENAI,
        key=None,
        target=parse_destination("https://api.openai.com/v1"),
        place=Place.PROVIDER,
        reach=Reach.PUBLIC,
        token_id="" if token.startswith("key:") else f"id-{token}",
        limits=OwnLimits(**own) if own else None,
    )


def standing(account: Account) -> dict[str, str]:
    """The fields that an answer would have."""
    lines = account.standing.decode().splitlines()
    return dict(line.split(": ", 1) for line in lines)
