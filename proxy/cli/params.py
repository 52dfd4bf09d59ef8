"""The kinds of parameters that several commands share. A refusal never repeats what was typed."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final

import click

from proxy.cli.desk import Desk, desk_of
from proxy.config import parse_seconds

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
_YEAR_10000: Final = 253_402_300_800
_TOKEN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", re.ASCII)
_CALLER: Final = re.compile(
    rf"{_TOKEN_NAME.pattern}|(?:key:)?{_NAME.pattern}/[!-~]{{1,255}}", re.ASCII
)


class Pattern(click.ParamType):  # type: ignore[type-arg]  # no argument in click 8.1
    """Text of one shape."""

    def __init__(self, name: str, pattern: re.Pattern[str], expected: str) -> None:
        self.name = name
        self._pattern = pattern
        self._expected = expected

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text, unchanged."""
        text = str(value)
        if not self._pattern.fullmatch(text):
            self.fail(f"expected {self._expected}", param, ctx)
        return text


class Expiry(click.ParamType):  # type: ignore[type-arg]  # no argument in click 8.1
    """`30d`, `12h` from now, or an ISO date; Unix seconds."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Unix seconds, later than now."""
        now = (desk_of(ctx) if ctx else Desk()).clock.now()
        try:
            when = _of_date(value)
            if when is None:
                when = now + parse_seconds(value)
        except (ValueError, OverflowError):
            self.fail("expected 30d, 12h or a date such as 2030-01-31", param, ctx)
        if not now < when < _YEAR_10000:
            self.fail("expected a time in the future, before the year 10000", param, ctx)
        return when


class Moment(click.ParamType):  # type: ignore[type-arg]  # no argument in click 8.1
    """`30d`, `12h` ago, or an ISO date; Unix seconds."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Unix seconds."""
        now = (desk_of(ctx) if ctx else Desk()).clock.now()
        try:
            when = _of_date(value)
            if when is None:
                when = now - parse_seconds(value)
        except (ValueError, OverflowError):
            self.fail("expected 30d, 12h or a date such as 2030-01-31", param, ctx)
        if not 0 <= when < _YEAR_10000:
            self.fail("expected a time after 1970 and before the year 10000", param, ctx)
        return when


def _of_date(text: str) -> float | None:
    """A date (its first second) or a date and time, in UTC without an offset; None for neither."""
    if "-" not in text:
        return None
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


NAME: Final = Pattern(
    "name", _NAME, "up to 64 of a-z, 0-9, _ and -, beginning with a letter or digit"
)
TOKEN_NAME: Final = Pattern(
    "name", _TOKEN_NAME, "up to 64 letters, digits, '.', '_', '@' and '-', a letter or digit first"
)
CALLER: Final = Pattern(
    "name", _CALLER, "the name or id of a token, key:SERVICE/ALIAS or ISSUER/SUBJECT"
)

Decorator = Callable[[Any], Any]
tenant_option: Decorator = click.option(
    "--tenant", type=NAME, default="default", show_default=True, help="who owns it"
)
alias_option: Decorator = click.option(
    "--alias", type=NAME, default="default", show_default=True, help="which of several keys"
)
all_option: Decorator = click.option(
    "--all", "every_tenant", is_flag=True, help="those of every tenant"
)
yes_option: Decorator = click.option("--yes", is_flag=True, help="don't ask")
service_argument: Decorator = click.argument("service", type=NAME)


@dataclass(frozen=True, slots=True)
class Which:
    """Which key is meant."""

    service: str
    alias: str
    tenant: str


def bundled(name: str, kind: type[Any], *options: Decorator) -> Decorator:
    """Adds options, and gives what they say to the command as one record called `name`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**said: Any) -> None:
            record = kind(**{one.name: said.pop(one.name) for one in fields(kind)})
            command(**{name: record}, **said)

        for option in reversed(options):
            run = option(run)
        return run

    return decorate


def confirm(question: str, yes: bool) -> None:
    """Asks on a terminal before something is lost; a script has decided already."""
    if not yes and sys.stdin.isatty():
        click.confirm(question, abort=True, err=True)


class Pair(click.ParamType):  # type: ignore[type-arg]  # no argument in click 8.1
    """`SERVICE=ALIAS`."""

    name = "service=alias"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """The service and the alias."""
        service, equals, alias = str(value).partition("=")
        if not (equals and _NAME.fullmatch(service) and _NAME.fullmatch(alias)):
            self.fail("expected SERVICE=ALIAS, such as openai=work", param, ctx)
        return service, alias


which_key: Decorator = bundled("which", Which, service_argument, alias_option, tenant_option)
