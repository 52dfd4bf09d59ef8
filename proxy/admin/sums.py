"""The shapes of what the admin API tells of usage and health."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Literal, Self

from pydantic import Field

from proxy.admin.given import Given
from proxy.health.watch import Fares, Standing


class SecondsGiven(Given):
    """How long calls took; null: there were none."""

    average: float | None
    p50: float | None
    p90: float | None
    p99: float | None
    longest: float | None


class UnitsGiven(Given):
    """Tokens, as models count them."""

    input: int
    output: int
    cached: int
    saved: int


class SumsGiven(Given):
    """What calls come to. `cost` and `saved` null: none of the calls has a price."""

    calls: int
    successful: int
    errors: int
    success_rate: float | None
    hits: int
    joined: int
    calls_saved: int
    upstream_calls: int
    bytes_in: int
    bytes_out: int
    seconds: SecondsGiven
    tokens: UnitsGiven
    cost: float | None
    saved: float | None


class ServiceSums(SumsGiven):
    """Those of one service."""

    service: str


class DaySums(SumsGiven):
    """Those of one day, in UTC."""

    day: date


class TokenSums(SumsGiven):
    """Those of one token."""

    token: str
    token_id: str


class UsageGiven(Given):
    """What the tenant's tokens have used."""

    scope: Literal["tenant"]
    tenant: str
    since: date = Field(alias="from")
    until: date = Field(alias="to")
    total: SumsGiven
    services: list[ServiceSums]
    days: list[DaySums]
    tokens: list[TokenSums]


class PlaceGiven(Given):
    """One host of a service. `consecutive_failures`, `consecutive_refusals`: without a success."""

    host: str
    kind: Literal["provider", "backend"]
    state: Literal["unknown", "healthy", "unhealthy", "key_refused"]
    last_check: datetime
    consecutive_failures: int
    consecutive_refusals: int
    last_error: str | None
    latency_seconds: float | None
    calls: int
    errors: int
    probes: int


class ServiceHealth(Given):
    """How one service fares. `healthy` null: nothing is known."""

    service: str
    healthy: bool | None
    state: Literal["unknown", "healthy", "unhealthy", "key_refused"]
    last_check: datetime | None
    places: list[PlaceGiven]

    @classmethod
    def of(cls, standing: Standing) -> Self:
        """From what real calls showed."""
        return cls(
            service=standing.service,
            healthy=standing.healthy,
            state=standing.state,
            last_check=datetime.fromtimestamp(standing.heard, UTC) if standing.heard else None,
            places=[_place(place) for place in standing.places],
        )


class HealthGiven(Given):
    """How the tenant's services fare: those with a key, and those that were called."""

    services: list[ServiceHealth]


def _place(place: Fares) -> PlaceGiven:
    tally = place.tally
    return PlaceGiven(
        host=tally.host,
        kind="provider" if place.own else "backend",
        state=tally.state,
        last_check=datetime.fromtimestamp(tally.checked, UTC),
        consecutive_failures=tally.failures,
        consecutive_refusals=tally.refusals,
        last_error=tally.trouble or None,
        latency_seconds=tally.average,
        calls=tally.calls,
        errors=tally.errors,
        probes=tally.probes,
    )
