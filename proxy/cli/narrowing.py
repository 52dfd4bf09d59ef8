"""The options that narrow a token: to hosts, paths, methods, origins. A refusal repeats nothing."""

from __future__ import annotations

from typing import Any, Final

import click

from proxy.cli.rates import NONE, Nothing
from proxy.narrowing import PARSERS
from vault import Narrowing, Token

Texts = tuple[str | Nothing, ...]


class _Bound(click.ParamType):  # type: ignore[type-arg]  # no argument in click 8.1
    """One text of one member, or `none`."""

    def __init__(self, member: str) -> None:
        self.name = member.removesuffix("s")
        self._parse = PARSERS[member]

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | Nothing:
        """The canonical text."""
        if value == NONE.value:
            return NONE
        try:
            return self._parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _option(member: str, words: str) -> Any:
    name = member.removesuffix("s")
    help_ = f"only {words}; repeatable"
    return click.option(f"--{name}", member, type=_Bound(member), multiple=True, help=help_)


OPTIONS: Final = (
    _option("hosts", "calls to this host"),
    _option("paths", "this path and what lies below"),
    _option("methods", "calls with this method"),
    _option("origins", "calls of pages on this origin"),
)


def texts_of(member: str, said: Texts) -> tuple[str, ...]:
    """The texts, each once; `none` stands alone."""
    found = {one for one in said if not isinstance(one, Nothing)}
    if found and len(found) < len(set(said)):
        option = member.removesuffix("s")
        raise click.UsageError(f"--{option} none takes all away; leave it out to set others")
    return tuple(sorted(found))


def shown(token: Token) -> list[str]:
    """What a token is narrowed to, a line for each."""
    pairs = zip(Narrowing._fields, token.narrowing, strict=True)
    return [f"{member.removesuffix('s')} {text}" for member, texts in pairs for text in texts]
