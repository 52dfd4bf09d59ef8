"""Real calls decide how a service fares: counters for each (tenant, service, host), bounded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from proxy.health.tally import State, Tally, worst, worst_of
from proxy.memo import bounded_put
from proxy.record import CallRecord
from proxy.services.model import Service
from vault import Binding

PAIRS: Final = 4096
HOSTS: Final = 16
"""How many (tenant, service) are remembered, and how many hosts of each: the oldest leave first."""

FAILURES: Final = frozenset(
    {
        "upstream_error",
        "upstream_unreachable",
        "upstream_name_error",
        "upstream_tls_error",
        "upstream_incomplete",
        "upstream_timeout",
        "upstream_name_timeout",
        "upstream_connect_timeout",
    }
)
"""Codes of ours that blame the upstream. Those that blame a caller or us say nothing of it."""

_ELSEWHERE: Final = frozenset({"hit", "collapsed"})
"""Answers that cost the upstream no call of their own."""

_KEY_TROUBLE: Final = frozenset({401, 403})


class KnownServices(Protocol):
    """What is asked of the services."""

    def get(self, name: str) -> Service | None:
        """The service of a name or alias."""
        ...

    def origin_of(self, name: str) -> Binding | None:
        """The place that the admin set as the service's origin."""
        ...


class Fares(NamedTuple):
    """One host of a service. `own`: it is the provider's, not a backend of the tenant's."""

    tally: Tally
    own: bool


class Probed(NamedTuple):
    """What a call of our own found, and when (Unix seconds): a status, or the code of ours that
    there was instead of an answer."""

    at: float
    outcome: int | str


@dataclass(frozen=True, slots=True)
class Standing:
    """How one service fares for one tenant: at its own hosts if it was called there, else at the
    tenant's backends. `places`: every host that was called, the provider's first."""

    service: str
    state: State
    places: tuple[Fares, ...]

    @property
    def healthy(self) -> bool | None:
        """None: nothing is known."""
        return None if self.state == "unknown" else self.state == "healthy"

    @property
    def heard(self) -> float:
        """When anything was last heard of it, in Unix seconds; 0: never."""
        return max((place.tally.checked for place in self.places), default=0.0)

    @property
    def heard_of_provider(self) -> float:
        """The same of the provider itself, whatever the tenant's backends do."""
        return max((place.tally.checked for place in self.places if place.own), default=0.0)


class Health:
    """The observer that counts, and what its counters say."""

    def __init__(self, services: KnownServices) -> None:
        self._services = services
        self._tallies: dict[tuple[str, str], dict[str, Tally]] = {}

    def observe(self, record: CallRecord) -> None:
        """One call is over. What never reached an upstream says nothing of it."""
        if record.verdict in _ELSEWHERE or not record.service:
            return
        code = record.code
        if (code not in FAILURES) if code else not (record.status and record.verdict):
            return
        tally = self._tally(record.tenant, record.service, record.host)
        tally.calls += 1
        tally.checked = record.began + record.seconds
        if record.upstream_seconds is not None:
            tally.took(record.upstream_seconds)
        if _judged(tally, code or record.status, bool(record.key)):
            tally.errors += 1

    def probed(self, tenant: str, service: str, host: str, seen: Probed) -> None:
        """One call of our own with the tenant's key; it counts apart from those of callers."""
        tally = self._tally(tenant, service, host)
        tally.probes += 1
        tally.checked = seen.at
        _judged(tally, seen.outcome, True)

    def called(self, tenant: str) -> frozenset[str]:
        """The services that this tenant has called."""
        return frozenset(service for owner, service in self._tallies if owner == tenant)

    def standing(self, tenant: str, service: str) -> Standing:
        """How one service fares for one tenant."""
        found = self._tallies.get((tenant, service), {})
        own = {host for host in found if self._owns(service, host)}
        state = worst(tally for host, tally in found.items() if not own or host in own)
        places = [Fares(tally, host in own) for host, tally in found.items()]
        return Standing(service, state, tuple(sorted(places, key=lambda place: not place.own)))

    def gauge(self) -> Iterator[tuple[str, bool]]:
        """(service, healthy) over all tenants, for every service of which something is known."""
        states: dict[str, set[State]] = {}
        for tenant, service in self._tallies:
            states.setdefault(service, set()).add(self.standing(tenant, service).state)
        for service in sorted(states):
            state = worst_of(states[service])
            if state != "unknown":
                yield service, state == "healthy"

    def _tally(self, tenant: str, service: str, host: str) -> Tally:
        pair = tenant, service
        hosts = self._tallies.get(pair)
        if hosts is None:
            hosts = {}
            bounded_put(self._tallies, pair, hosts, PAIRS)
        tally = hosts.get(host)
        if tally is None:
            tally = Tally(host)
            bounded_put(hosts, host, tally, HOSTS)
        return tally

    def _owns(self, name: str, host: str) -> bool:
        """Whether a host is the provider's own, or that of the origin that counts as it."""
        service, origin = self._services.get(name), self._services.origin_of(name)
        return (origin is not None and origin.host == host) or (
            service is not None and service.has_host(host)
        )


def _judged(tally: Tally, outcome: int | str, keyed: bool) -> bool:
    """Takes in a status, or the code of ours that there is instead; True where it is an error.

    The caller's own mistakes (4xx) say nothing of the place; a 401 or 403 does, with a key of ours.
    """
    if isinstance(outcome, str) or outcome >= 500:
        tally.fail(str(outcome))
        return True
    if outcome < 400:
        tally.succeed()
    elif keyed and outcome in _KEY_TROUBLE:
        tally.refuse(str(outcome))
        return True
    return False
