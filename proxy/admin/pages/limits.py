"""Limits, budget, calls and bounds of a token: as a form says them, and as the list shows them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from proxy.admin.pages.formats import count
from proxy.errors import Unacceptable
from vault import Narrowing, Token, TokenChange

LONGEST: Final = 128
LONGEST_BOUND: Final = 1024
_BETWEEN: Final = re.compile(r"[,;\n]")


class Limits(NamedTuple):
    """What a token has of its own."""

    limits: tuple[str, ...]
    upstream_limits: tuple[str, ...]
    budget: int | None
    calls: int | None
    narrowing: Narrowing

    @classmethod
    def of(cls, token: Token) -> Limits:
        """As they are now."""
        counted = (token.limits, token.upstream_limits, token.budget, token.calls)
        return cls(*counted, token.narrowing)

    @classmethod
    def said(cls, form: Mapping[str, str]) -> Limits:
        """As somebody typed them, not yet canonical; raises Unacceptable."""
        return cls(
            _texts(form.get("limits", "")),
            _texts(form.get("upstream_limits", "")),
            _number("budget", form),
            _number("calls", form),
            Narrowing(*(_bounds(form.get(name, "")) for name in Narrowing._fields)),
        )

    @property
    def fields(self) -> dict[str, str]:
        """As a form holds them."""
        return {
            "limits": ", ".join(self.limits),
            "upstream_limits": ", ".join(self.upstream_limits),
            "budget": "" if self.budget is None else str(self.budget),
            "calls": "" if self.calls is None else str(self.calls),
            **{name: ", ".join(texts) for name, texts in self.narrowing._asdict().items()},
        }

    @property
    def words(self) -> tuple[str, ...]:
        """One line for each."""
        upstream = (f"{rule} upstream" for rule in self.upstream_limits)
        month, ever = _words(self.budget, "upstream "), _words(self.calls)
        budget = [f"{words} a month" for words in month]
        calls = [f"{words} in all" for words in ever]
        only = (f"only {texts}" for texts in map(", ".join, self.narrowing) if texts)
        return (*self.limits, *upstream, *budget, *calls, *only)

    def change(self, now: Limits) -> TokenChange:
        """What is different from what holds now; what is not named stays."""
        change: TokenChange = {}
        if self.limits != now.limits:
            change["limits"] = self.limits
        if self.upstream_limits != now.upstream_limits:
            change["upstream_limits"] = self.upstream_limits
        if self.budget != now.budget:
            change["budget"] = self.budget
        if self.calls != now.calls:
            change["calls"] = self.calls
        if self.narrowing.hosts != now.narrowing.hosts:
            change["hosts"] = self.narrowing.hosts
        if self.narrowing.paths != now.narrowing.paths:
            change["paths"] = self.narrowing.paths
        if self.narrowing.methods != now.narrowing.methods:
            change["methods"] = self.narrowing.methods
        if self.narrowing.origins != now.narrowing.origins:
            change["origins"] = self.narrowing.origins
        return change


def _texts(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in _BETWEEN.split(text) if part.strip())
    if any(len(part) > LONGEST for part in found):
        raise Unacceptable("Write limits such as 60/minute, with commas between them.")
    return found


def _bounds(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in _BETWEEN.split(text) if part.strip())
    if any(len(part) > LONGEST_BOUND for part in found):
        raise Unacceptable("Write hosts, paths, methods and origins with commas between them.")
    return found


def _number(name: str, form: Mapping[str, str]) -> int | None:
    text = form.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise Unacceptable(f"Write the {name} as a number such as 5000, or leave it empty.")
    return int(text)


def _words(number: int | None, kind: str = "") -> list[str]:
    if number is None:
        return []
    return [f"{count(number)} {kind}{'call' if number == 1 else 'calls'}"]
