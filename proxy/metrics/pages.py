"""GET /metrics: for tokens that read or administer, or open on a listener of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from proxy.admin.answers import answering, fields_of, peer_of
from proxy.errors import Forbidden
from proxy.messages import Fields
from proxy.metrics.state import Look, Sources
from proxy.metrics.sums import process_of, state_of, tallies_of
from proxy.metrics.team import TeamMetrics
from vault import DEFAULT_TENANT, Token

PATH: Final = "/metrics"
ROLES: Final = frozenset({"read", "admin"})
_NOT_YOURS: Final = (
    "The metrics tell of every tenant: use a token of the tenant default with the role read or"
    " admin, or the listener of server.metrics_listen."
)


class Holders(Protocol):
    """Who knows tokens."""

    async def holder(self, fields: Fields, peer: str) -> Token:
        """Whose token a page is asked with; raises Unauthorized, Unavailable."""
        ...


def routes(
    sources: Sources, holders: Holders, team: TeamMetrics | None = None
) -> Sequence[BaseRoute]:
    """The page beside `/proxy`; `team`: of one worker among several."""
    look = Look(sources)

    async def page(request: Request) -> Response:
        token = await holders.holder(fields_of(request), peer_of(request))
        if token.role not in ROLES or token.tenant != DEFAULT_TENANT or token.services is not None:
            raise Forbidden(_NOT_YOURS)
        return await _scraped(look, team, request)

    return (Route(PATH, answering(page)),)


def listener_app(sources: Sources, team: TeamMetrics | None = None) -> Starlette:
    """What the listener for metrics serves to everybody who reaches it."""
    look = Look(sources)

    async def page(request: Request) -> Response:
        return await _scraped(look, team, request)

    return Starlette(routes=(Route(PATH, answering(page)),))


async def _scraped(look: Look, team: TeamMetrics | None, request: Request) -> Response:
    # Loaded by the first scrape: no start waits for it.
    from proxy.metrics.families import exposition  # noqa: PLC0415

    state, tallies, process = await look.state(), look.sources.tallies.copy(), None
    if team is not None:
        found = await team.gather()
        state, tallies = state_of(found, state), tallies_of(found, tallies)
        process = process_of(found)
    accept = request.headers.get("accept", "")
    octets, media_type = await asyncio.to_thread(exposition, tallies, state, accept, process)
    return Response(octets, headers={"Content-Type": media_type})
