"""The words of `limits.quotas`: whose calls are counted, and how many there may be. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, PlainValidator

from proxy.limits.grammar import Limit, Rate, in_order, parse_rate

_NAME: Final = r"[a-z0-9][a-z0-9_-]{0,63}"
_TOKEN: Final = re.compile(
    rf"\*|key:\*|key:{_NAME}/{_NAME}|{_NAME}/[!-~]{{1,255}}|[A-Za-z0-9][A-Za-z0-9._@-]{{0,63}}",
    re.ASCII,
)
_TENANT: Final = re.compile(rf"\*|{_NAME}", re.ASCII)
DEFAULT_WRONG: Final = parse_rate("100/minute")


def _rates(value: object) -> tuple[Rate, ...]:
    """One text or a list of them, the shortest period first; raises ValueError."""
    said = value if isinstance(value, list) else [value]
    texts = [text for text in said if isinstance(text, str)]
    if texts != said:
        raise ValueError("expected a limit such as 60/minute, or a list of them")
    limits = in_order(Limit(None, parse_rate(text)) for text in texts)
    return tuple(limit.rate for limit in limits)


def _token(text: str) -> str:
    if _TOKEN.fullmatch(text):
        return text
    raise ValueError(
        "expected a token's name, key:SERVICE/ALIAS, key:*, ISSUER/SUBJECT, ISSUER/* or *"
    )


def _tenant(text: str) -> str:
    if _TENANT.fullmatch(text):
        return text
    raise ValueError("expected a tenant's name, or * for each")


def each_once(whose: Iterable[Hashable]) -> None:
    """Raises ValueError where two entries are for the same."""
    for one, times in Counter(whose).items():
        if times > 1:
            raise ValueError(f"expected one entry for {one}, found {times}")


def _rate(value: object) -> Rate:
    if not isinstance(value, str):
        raise ValueError("expected a limit such as 60/minute")
    return parse_rate(value)


OneRate = Annotated[Rate, PlainValidator(_rate)]
Rates = Annotated[tuple[Rate, ...], BeforeValidator(_rates)]
WhoseToken = Annotated[str, AfterValidator(_token)]
WhoseTenant = Annotated[str, AfterValidator(_tenant)]
