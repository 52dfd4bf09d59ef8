"""One cheap authenticated call to a provider, sent as a caller's would be; on request, or where no
caller has called for a while."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from proxy.call import Call, Directions
from proxy.causes import frames, lineage
from proxy.clock import Clock
from proxy.destinations import parse_destination
from proxy.errors import RelayError
from proxy.grant import Client, Grant, Route
from proxy.health.watch import FAILURES, Health, Probed
from proxy.messages import NoBody
from proxy.services.model import Probe, Service
from proxy.upstream.seam import Upstream
from vault import Holdings, KeyRef, VaultError

PATIENCE: Final = 10.0
"""Seconds after which a probe is given up: others shall not wait for a provider that hangs."""

_LOOK_SECONDS: Final = 5.0
"""How often is looked for services that are due."""

_FIELDS: Final = ((b"accept", b"*/*"), (b"user-agent", b"keyrelay"))

_log = logging.getLogger("keyrelay.health")


class Authorizes(Protocol):
    """What decides where a key may go."""

    def authorize(self, client: Client, call: Call, route: Route) -> Grant:
        """The grant; raises RelayError."""
        ...


class Owned(Protocol):
    """What is asked of the vault."""

    async def list_tenants(self) -> list[str]:
        """Every tenant that has anything."""
        ...

    async def holdings(self, tenant: str) -> Holdings:
        """What a tenant holds."""
        ...


class KnownServices(Protocol):
    """What is asked of the services."""

    def get(self, name: str) -> Service | None:
        """The service of a name or alias."""
        ...


class Errand(NamedTuple):
    """One probe to send: its call and URL, with the key of a tenant."""

    service: Service
    probe: Probe
    url: str
    ref: KeyRef


def errand(service: Service | None, ref: KeyRef) -> Errand | None:
    """The probe of a service with this key; None where none is known."""
    if service is None or service.probe is None:
        return None
    if service.origin is not None:
        base: str | None = service.origin.rstrip("/")
    else:
        base = f"https://{ref.hosts[0]}" if ref.hosts else service.base
    return None if base is None else Errand(service, service.probe, base + service.probe.path, ref)


@dataclass(frozen=True, slots=True)
class Prober:
    """Sends probes by the same rules and the same way out as any call."""

    authorizer: Authorizes
    upstream: Upstream

    async def send(self, errand: Errand, holdings: Holdings, name: str) -> int:
        """The status of the answer; raises RelayError. `name`: who asks."""
        service, probe, url, ref = errand
        directions = Directions(url, service.name)
        call = Call(probe.method, directions, _FIELDS, NoBody(), name)
        client = Client(name, holdings, key_aliases={service.name: ref.alias})
        route = Route(directions, parse_destination(url))
        grant = self.authorizer.authorize(client, call, route)
        async with self.upstream.send(call, grant, call.body) as answer:
            return answer.status


class Rounds:
    """Looks after services with a key that nobody has called for `every` seconds."""

    def __init__(
        self, health: Health, prober: Prober, owned: Owned, services: KnownServices, clock: Clock
    ) -> None:
        self._health = health
        self._prober = prober
        self._owned = owned
        self._services = services
        self._clock = clock
        self._every: float | None = None
        self.tell: Callable[[str, str, str, float, int | str], None] | None = None
        """Who tells other processes what `hear` takes there; only one of them goes round."""
        self._going: asyncio.Task[None] | None = None

    def become(self, every: float | None) -> None:
        """Another interval from now on, in seconds; None: no rounds."""
        self._every = every

    async def start(self) -> None:
        """Begins to go round."""
        self._going = asyncio.create_task(self._follow(), name="keyrelay-probes")

    async def stop(self) -> None:
        """Ends, also amid a round."""
        if self._going is not None:
            self._going.cancel()
            await asyncio.wait([self._going])

    async def _follow(self) -> None:
        while True:
            every = self._every
            await asyncio.sleep(_LOOK_SECONDS if every is None else min(every, _LOOK_SECONDS))
            try:
                if every is not None:
                    await self.go(every)
            except VaultError as error:
                _log.warning("no round of probes: %s", error)

    async def go(self, every: float) -> None:
        """One round, one probe at a time: it costs providers and quotas as little as may be."""
        for tenant in await self._owned.list_tenants():
            holdings = await self._owned.holdings(tenant)
            for one in self._due(holdings, self._clock.now() - every):
                await self._probe(one, holdings)

    def _due(self, holdings: Holdings, since: float) -> Iterator[Errand]:
        for name, refs in holdings.keys.items():
            one = errand(self._services.get(name), refs[0])
            heard = self._health.standing(holdings.tenant, name).heard_of_provider
            if one is not None and heard <= since:
                yield one

    async def _probe(self, one: Errand, holdings: Holdings) -> None:
        outcome: int | str
        try:
            async with asyncio.timeout(PATIENCE):
                outcome = await self._prober.send(one, holdings, "health")
        except TimeoutError:
            outcome = "upstream_timeout"
        except RelayError as error:
            _log.debug("a probe of %s fails: %s", one.service.name, lineage(error))
            outcome = error.code
        except Exception as error:  # one that nobody expected ends no other's rounds
            words, more = f"unexpected {lineage(error)}", {"at": frames(error)}
            _log.error("a probe of %s: %s", one.service.name, words, extra=more)
            return
        if isinstance(outcome, str) and outcome not in FAILURES:
            return  # it says nothing of the provider
        host = parse_destination(one.url).host
        found = holdings.tenant, one.service.name, host, self._clock.now(), outcome
        self.hear(*found)
        if self.tell is not None:
            self.tell(*found)

    def hear(self, tenant: str, service: str, host: str, at: float, outcome: int | str) -> None:
        """What a probe has found, here or in another process."""
        self._health.probed(tenant, service, host, Probed(at, outcome))
