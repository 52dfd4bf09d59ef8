"""What is asked about health: `/health/ready` and `/version` by anybody, the rest with a token."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from proxy import __version__
from proxy.admin.answers import answering, fields_of, peer_of
from proxy.clock import Clock
from proxy.errors import Unavailable, UnknownService
from proxy.health.readiness import Readiness
from proxy.health.watch import Fares, Health, Standing
from proxy.messages import Fields
from proxy.outage import Gap
from vault import DEFAULT_TENANT, Holdings, Token, VaultError

_CALLER = "call"


class Holders(Protocol):
    """Who knows tokens."""

    async def holder(self, fields: Fields, peer: str) -> Token:
        """Whose token a page is asked with; raises Unauthorized, Unavailable."""
        ...


class Owned(Protocol):
    """What is asked of the vault."""

    async def holdings(self, tenant: str) -> Holdings:
        """What a tenant holds."""
        ...


class KnownNames(Protocol):
    """What is asked of the services."""

    def canonical(self, name: str) -> str | None:
        """The name that a name or an alias stands for."""
        ...


@dataclass(frozen=True, slots=True)
class Ward:
    """What the pages tell of. `in_flight`: how many calls are being answered; `outage`: whether the
    vault can be read; `without`: the names of what is missed, and not needed to answer."""

    health: Health
    readiness: Readiness
    holders: Holders
    owned: Owned
    names: KnownNames
    clock: Clock
    in_flight: Callable[[], int]
    outage: Callable[[], Gap]
    without: Callable[[], Sequence[str]] = tuple

    async def standings(self, token: Token) -> list[Standing]:
        """Every service that the token may ask about: those with a key, and those called."""
        try:
            held = (await self.owned.holdings(token.tenant)).keys
        except VaultError as error:
            raise Unavailable("The key store does not answer; try again.", retry_after=5) from error
        names = sorted(self.health.called(token.tenant) | set(held))
        return [self.health.standing(token.tenant, name) for name in names if _sees(token, name)]


class Pages:
    """What each path answers."""

    def __init__(self, ward: Ward) -> None:
        self._ward = ward
        self._began = ward.clock.monotonic()

    async def ready(self, _: Request) -> Response:
        """Whether calls should come here; what fails, or is done without, by its name alone."""
        found = await self._ward.readiness.look()
        told = {"failing": found.failing, "without": self._ward.without()}
        answer: dict[str, object] = {"status": "ready" if found.ready else found.word}
        answer |= {name: names for name, names in told.items() if names}
        return JSONResponse(answer, 200 if found.ready else 503)

    async def version(self, _: Request) -> Response:
        """The release."""
        return JSONResponse({"version": __version__})

    async def status(self, request: Request) -> Response:
        """The whole in a few numbers."""
        token, standings = await self._asked(request)
        return JSONResponse(await self._summary(token, standings))

    async def everything(self, request: Request) -> Response:
        """The same, and every service."""
        token, standings = await self._asked(request)
        services = [_shown(standing) for standing in standings]
        return JSONResponse({**await self._summary(token, standings), "services": services})

    async def one(self, request: Request) -> Response:
        """One service, by its name or an alias of it."""
        _, standings = await self._asked(request)
        asked = request.path_params["service"]
        name = self._ward.names.canonical(asked) or asked
        for standing in standings:
            if standing.service == name:
                return JSONResponse(_shown(standing))
        raise UnknownService("This token has no service of that name with a key; see /health")

    async def _asked(self, request: Request) -> tuple[Token, list[Standing]]:
        token = await self._ward.holders.holder(fields_of(request), peer_of(request))
        return token, await self._ward.standings(token)

    async def _summary(self, token: Token, standings: Collection[Standing]) -> dict[str, Any]:
        found = await self._ward.readiness.look()
        gap = self._ward.outage()
        of_all = token.tenant == DEFAULT_TENANT  # how busy others are is not each tenant's to know
        return {
            "status": "ok" if found.ready else found.word,
            "failing": found.failing,
            "without": self._ward.without(),
            "version": __version__,
            "uptime_seconds": round(self._ward.clock.monotonic() - self._began, 1),
            "calls_in_flight": self._ward.in_flight() if of_all else None,
            "vault_unread_seconds": round(gap.seconds, 1),
            "vault_grace_left_seconds": _rounded(gap.left),
            "services_healthy": sum(standing.healthy is True for standing in standings),
            "services_unhealthy": sum(standing.healthy is False for standing in standings),
            "services_unknown": sum(standing.healthy is None for standing in standings),
        }


def routes(ward: Ward) -> Sequence[BaseRoute]:
    """The paths."""
    pages = Pages(ward)
    paths = {
        "/health/ready": pages.ready,
        "/version": pages.version,
        "/status": pages.status,
        "/health": pages.everything,
        "/health/{service}": pages.one,
    }
    return [Route(path, answering(page)) for path, page in paths.items()]


def _sees(token: Token, service: str) -> bool:
    """A caller sees what it may use; who reads or administers, its whole tenant."""
    return token.role != _CALLER or token.services is None or service in token.services


def _shown(standing: Standing) -> dict[str, Any]:
    """A service, with what all its places show together."""
    tallies = [place.tally for place in standing.places]
    newest = max(tallies, key=lambda tally: tally.checked, default=None)
    return {
        "service": standing.service,
        "healthy": standing.healthy,
        "state": standing.state,
        "last_check": standing.heard or None,
        "consecutive_failures": max(
            (tally.failures + tally.refusals for tally in tallies), default=0
        ),
        "latency_seconds": _rounded(newest.average if newest else None),
        "calls": sum(tally.calls for tally in tallies),
        "errors": sum(tally.errors for tally in tallies),
        "places": [_place(place) for place in standing.places],
    }


def _place(place: Fares) -> dict[str, Any]:
    tally = place.tally
    return {
        "host": tally.host,
        "kind": "provider" if place.own else "backend",
        "state": tally.state,
        "last_check": tally.checked,
        "consecutive_failures": tally.failures,
        "consecutive_refusals": tally.refusals,
        "last_error": tally.trouble or None,
        "latency_seconds": _rounded(tally.average),
        "last_latency_seconds": _rounded(tally.latency),
        "calls": tally.calls,
        "errors": tally.errors,
        "probes": tally.probes,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
