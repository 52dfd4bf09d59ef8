"""What a name in the vault may look like. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from vault.bindings import Binding
from vault.errors import Invalid
from vault.records import DEFAULT_TENANT, ROLES, Narrowing
from vault.tokens import looks_like_token

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
_LIMIT: Final = re.compile(r"[!-~]{1,128}", re.ASCII)
_MOST_LIMITS: Final = 64
_BOUND: Final = re.compile(r"[!-~]{1,1024}", re.ASCII)
_BEYOND_ANY_NUMBER: Final = 10**15 + 1
_BEYOND_ANY_BUDGET: Final = 2**31
"""What PostgreSQL's column of it holds: another type would stop releases that run beside this."""
_TOKEN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", re.ASCII)


def check_names(**names: str) -> None:
    """Tenants, services and aliases: `[a-z0-9][a-z0-9_-]{0,63}`; raises Invalid."""
    for what, name in names.items():
        if not _NAME.fullmatch(name):
            raise Invalid(
                f"{what} {name!r} is not a name; use up to 64 of a-z, 0-9, '_' and '-', "
                "beginning with a letter or digit"
            )


def check_token_name(name: str) -> None:
    """Token names may look like people's names and addresses too; raises Invalid."""
    if looks_like_token(name.encode()):
        raise Invalid("give the token a name, not a token: a name stands in lists and logs")
    if not _TOKEN_NAME.fullmatch(name):
        raise Invalid(
            f"token name {name!r} is not acceptable; use up to 64 letters, digits, '.', '_', '@' "
            "and '-', beginning with a letter or digit"
        )


def tenant_option(tenant: str) -> str:
    """What a command in a message needs to mean this tenant."""
    return "" if tenant == DEFAULT_TENANT else f" --tenant {tenant}"


def check_role(role: str) -> None:
    """One of ROLES; raises Invalid."""
    if role not in ROLES:
        raise Invalid(f"role {role!r} is unknown; use one of {', '.join(ROLES)}")


def check_limits(limits: Iterable[str], budget: int | None) -> None:
    """Only the rough form: what a limit means is for whoever counts; raises Invalid."""
    texts = tuple(limits)
    if len(texts) > _MOST_LIMITS or not all(map(_LIMIT.fullmatch, texts)):
        raise Invalid(
            f"limits are at most {_MOST_LIMITS} texts such as 60/minute, each of up to 128 "
            "printable characters without a space"
        )
    if budget is not None and not 0 <= budget < _BEYOND_ANY_BUDGET:
        raise Invalid("a budget is a number of calls below 2**31; or none")


def check_calls(calls: int | None) -> None:
    """What a token may call in all; raises Invalid."""
    if calls is not None and not 0 < calls < _BEYOND_ANY_NUMBER:
        raise Invalid("a token is for a number of calls in all from 1 to 10**15; or for any")


def check_narrowing(narrowing: Narrowing) -> None:
    """Only the rough form: what is canonical is the destination parser's; raises Invalid."""
    for what, texts in zip(Narrowing._fields, narrowing, strict=True):
        if len(texts) > _MOST_LIMITS or not all(map(_BOUND.fullmatch, texts)):
            raise Invalid(
                f"a token is narrowed to at most {_MOST_LIMITS} {what}, each of up to 1024 "
                "printable characters without a space"
            )


def check_binding(binding: Binding) -> None:
    """Only the rough form: the syntax is the destination parser's; raises Invalid."""
    ok = (
        binding.scheme in {"http", "https"}
        and binding.host not in {"", "*"}
        and 0 < binding.port < 65536
        and binding.prefix.startswith("/")
    )
    if not ok:
        raise Invalid(f"{binding} is not a place; use http or https, a host, a port and a path")
