"""The parameters that say how many calls there may be. A refusal never repeats what was typed."""

from __future__ import annotations

from enum import Enum
from typing import Any, Final, Literal

import click

from proxy.limits.grammar import Limit, parse_limit

_MOST_BUDGET: Final = 2**31 - 1
_MOST_CALLS: Final = 10**15


class Nothing(Enum):
    """The word `none`: what was set before is to go."""

    NONE = "none"


NONE: Final = Nothing.NONE
Said = Limit | Literal[Nothing.NONE]


class _Rate(click.ParamType):  # type: ignore[type-arg]  # no argument in click 8.1
    """`60/minute`, `openai=10/minute` or `none`."""

    name = "limit"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Limit | Nothing:
        """The limit."""
        if value == NONE.value:
            return NONE
        try:
            return parse_limit(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Number(click.ParamType):  # type: ignore[type-arg]  # no argument in click 8.1
    """A number of calls, or `none`."""

    name = "calls"

    def __init__(self, least: int, most: int) -> None:
        self._least, self._most = least, most

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | Nothing:
        """The number."""
        text = str(value)
        if text == NONE.value:
            return NONE
        number = int(text) if text.isascii() and text.isdigit() and len(text) <= 16 else -1
        if not self._least <= number <= self._most:
            self.fail("expected a number of calls such as 5000, or none", param, ctx)
        return number


RATE: Final = _Rate()
BUDGET: Final = _Number(0, _MOST_BUDGET)
CALLS: Final = _Number(1, _MOST_CALLS)
