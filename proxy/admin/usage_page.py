"""GET /usage: what a token has used, for whoever holds it; or its tenant, for who may read that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from proxy.admin.acts import READING, check_role
from proxy.admin.answers import answering, fields_of, peer_of
from proxy.clock import Clock
from proxy.errors import BadRequest, NotFound, Unavailable
from proxy.messages import Fields
from proxy.usage import Part, Sums, UsageError, Which, document
from vault import Token

USUAL_DAYS: Final = 30
SCOPES: Final = ("token", "tenant")
PARAMETERS: Final = ("scope", "from", "to", "service")


class Holders(Protocol):
    """What is asked of the authentication."""

    async def holder(self, fields: Fields, peer: str) -> Token:
        """Whose token a request brings; raises Unauthorized, Unavailable."""
        ...


class Told(Protocol):
    """What is asked of usage."""

    async def sums(self, which: Which, *groupings: Sequence[Part]) -> list[list[Sums]]:
        """Calls added up, for each grouping; raises UsageError."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What the parameters ask for; `until` is the day behind the last one."""

    scope: str
    since: date
    until: date
    service: str | None


def routes(usage: Told | None, holders: Holders, clock: Clock) -> Sequence[BaseRoute]:
    """The page; `usage` None: nothing is counted here."""

    async def page(request: Request) -> Response:
        who = await holders.holder(fields_of(request), peer_of(request))
        if usage is None:
            raise NotFound("Calls are not counted here: usage.enabled is false.")
        asked = _asked(_parameters(request), clock)
        if asked.scope == "tenant":
            check_role(who, READING)
        try:
            return JSONResponse(await report(usage, who, asked))
        except UsageError as error:
            text = "Usage can't be read now; try again."
            raise Unavailable(text, retry_after=5) from error

    return (Route("/usage", answering(page)),)


async def report(usage: Told, who: Token, asked: Asked) -> dict[str, Any]:
    """The page's document; see docs/usage.md."""
    own = asked.scope == "token"
    which = Which(
        since=_midnight(asked.since),
        until=_midnight(asked.until),
        tenant=who.tenant,
        service=asked.service,
        token_id=who.id if own else None,
    )
    groupings: list[tuple[Part, ...]] = [(), ("service",), ("day",)]
    if not own:
        groupings.append(("token",))
    total, services, days, *tokens = await usage.sums(which, *groupings)
    return {
        "scope": asked.scope,
        "tenant": who.tenant,
        **({"token": who.name, "token_id": who.id} if own else {}),
        "from": asked.since.isoformat(),
        "to": (asked.until - timedelta(days=1)).isoformat(),
        "total": document(total[0] if total else Sums({})),
        "services": [document(one) for one in services],
        "days": [{**document(one), "day": _day(one.group["day"])} for one in days],
        **({} if own else {"tokens": [document(one) for one in tokens[0]]}),
    }


def _parameters(request: Request) -> Mapping[str, str]:
    pairs = request.query_params.multi_items()
    if len(pairs) != len(request.query_params):
        raise BadRequest("Send each parameter once.")
    if not request.query_params.keys() <= set(PARAMETERS):
        known = ", ".join(PARAMETERS)
        raise BadRequest(f"There is an unknown parameter; known are: {known}.")
    return request.query_params


def _asked(said: Mapping[str, str], clock: Clock) -> Asked:
    scope = said.get("scope", "token")
    if scope not in SCOPES:
        raise BadRequest("Say scope=token for the token's own calls, scope=tenant for all.")
    last = _date(said, "to") or datetime.fromtimestamp(clock.now(), UTC).date()
    first = _date(said, "from") or last - timedelta(days=USUAL_DAYS - 1)
    if first > last:
        raise BadRequest("Name a day in from that is not behind the one in to.")
    return Asked(scope, first, last + timedelta(days=1), said.get("service") or None)


def _date(said: Mapping[str, str], name: str) -> date | None:
    """A day between 1970 and 9998, so that a day more or less can be told too."""
    if name not in said:
        return None
    try:
        found = date.fromisoformat(said[name])
    except ValueError:
        found = date.min
    if not date(1971, 1, 1) <= found <= date(9998, 12, 31):
        raise BadRequest(f"Write {name} as a date such as 2030-01-31.")
    return found


def _midnight(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def _day(began: int) -> str:
    return datetime.fromtimestamp(began, UTC).date().isoformat()
