"""The settings of usage: how long it is kept, and what tokens of models cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictInt

from proxy.config.section import Section
from proxy.config.units import Seconds

_MODEL: Final = re.compile(r"[^\s\x00-\x1f]{1,256}")


def _amount(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise ValueError("expected a number, the price of a million tokens")


def _models(value: object) -> object:
    """A name of digits is a number to YAML."""
    if isinstance(value, dict):
        return {str(name): price for name, price in value.items()}
    return value


def _plain(prices: Mapping[str, Any]) -> Mapping[str, Any]:
    if all(map(_MODEL.fullmatch, prices)):
        return prices
    raise ValueError("expected names of models without white space; * stands for any characters")


Amount = Annotated[float, BeforeValidator(_amount), Field(ge=0, le=1e9, allow_inf_nan=False)]


class Usage(Section):
    """Whether calls are counted, and how long what is counted is kept."""

    enabled: StrictBool = True
    keep: Seconds = 7 * 86400.0
    keep_hours: Seconds = 60 * 86400.0
    keep_days: Seconds = 400 * 86400.0
    max_calls: Annotated[StrictInt, Field(gt=0)] = 5_000_000


class PriceEntry(Section):
    """What a million tokens of a model cost; `cached` None: as much as `input`."""

    input: Amount = 0.0
    output: Amount = 0.0
    cached: Amount | None = None


PriceTable = Annotated[Mapping[str, PriceEntry], BeforeValidator(_models), AfterValidator(_plain)]
