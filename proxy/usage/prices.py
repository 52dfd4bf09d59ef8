"""What tokens cost, by the price table of the configuration. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from proxy.memo import bounded_put
from proxy.record import Tokens

_REMEMBERED = 1024


class Price(NamedTuple):
    """For a million tokens, in whatever currency the admin counts; `cached` None: as `input`."""

    input: float
    output: float
    cached: float | None = None


class Prices:
    """Prices by model, where `*` stands for any characters; the longest pattern that fits counts,
    and a name without a star before all."""

    def __init__(self, table: Mapping[str, Price]) -> None:
        self.become(table)

    def become(self, table: Mapping[str, Price]) -> None:
        """Other prices for calls that end from now on."""
        order = sorted(table, key=lambda name: ("*" in name, -len(name), name))
        self._rows = [(_pattern(name), table[name]) for name in order]
        self._known: dict[str, Price | None] = {}

    def cost(self, tokens: Tokens) -> float | None:
        """What a call costs that used so many; None: its model has no price."""
        price = self._price(tokens.model)
        if price is None:
            return None
        cached = price.input if price.cached is None else price.cached
        millions = (
            (tokens.input - tokens.cached) * price.input
            + tokens.cached * cached
            + tokens.output * price.output
        )
        return millions / 1_000_000

    def _price(self, model: str) -> Price | None:
        if model not in self._known:
            fits = (price for pattern, price in self._rows if pattern.fullmatch(model))
            bounded_put(self._known, model, next(fits, None), _REMEMBERED)
        return self._known[model]


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, name.split("*"))), re.DOTALL)
