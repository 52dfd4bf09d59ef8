"""The composition root: the only file that knows every room."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from proxy.admin import api, door, usage_page
from proxy.admin.acts import Acts
from proxy.admin.door import Administration
from proxy.admin.origin import OwnOrigin
from proxy.admin.session import Sessions
from proxy.asgi import ProxyEndpoint, Watching, raw_target
from proxy.authentication import Authenticator, HandedOut
from proxy.authorization import Authorizer
from proxy.bounds import Bounded
from proxy.cache.cache import STORES, Cache
from proxy.cache.key import Forwarded, Keyer
from proxy.cache.policy import CacheSettings
from proxy.clock import Clock
from proxy.config import Config, ConfigError
from proxy.destinations import parse_destination
from proxy.gateway import Gateway
from proxy.limits.budgets import Budgets
from proxy.limits.ledger import SqliteLedger
from proxy.limits.limits import Limits
from proxy.limits.rules import Rule
from proxy.metrics import Sources, Tallies, listener_app
from proxy.metrics import routes as metrics_routes
from proxy.network import Dialler, Resolver, SystemResolver, as_literal
from proxy.pages import REFUSALS, ROUTES
from proxy.record import Observer
from proxy.remembered import RememberedGrants
from proxy.reply import Writer
from proxy.routing import Router
from proxy.services import CurrentServices, Services
from proxy.upstream import settings
from proxy.upstream.admission import Admission
from proxy.upstream.forwarder import Forwarder
from proxy.upstream.leaves import TRANSPORTS, Transport
from proxy.upstream.quota import Quota
from proxy.upstream.redirects import Redirects
from proxy.upstream.seam import Upstream
from proxy.upstream.sizes import Sized
from proxy.upstream.slots import Slots
from proxy.usage import Price, Prices, SqliteUsage, Usage, UsageSettings
from proxy.usage.meter import metering
from vault import Vault, VaultError

REFRESH_SECONDS = 0.25
"""How often a running server looks for changes that the command line made."""

_log = logging.getLogger("keyrelay")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What lies around a server: its files, its listeners, how it tells time and names.

    `listening`: (host, port) of our own listeners. `newer_services` is asked again and again: the
    registry, where it has changed since; raises ConfigError. `observers`: who hears of every call.
    `lost_lines`: how many lines the log could not write.
    """

    data: Path
    clock: Clock
    listening: frozenset[tuple[str, int]] = frozenset()
    resolver: Resolver | None = None
    newer_services: Callable[[], Services | None] = lambda: None
    observers: tuple[Observer, ...] = ()
    lost_lines: Callable[[], int] = lambda: 0


class Changes:
    """What the command line changes while a server runs: the vault, the purges, the services."""

    def __init__(
        self, vault: Vault, cache: Cache, known: CurrentServices, around: Surroundings
    ) -> None:
        self._vault = vault
        self._cache = cache
        self._known = known
        self._newer_services = around.newer_services
        self._taken = -1

    async def follow(self) -> None:
        """Looks again and again, until cancelled; what can't be read now is tried again."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self.look()
            except (VaultError, ConfigError) as error:
                _log.warning("a change could not be read: %s", error)

    async def look(self) -> None:
        """Takes up what has changed since the last time."""
        await self._vault.refresh()
        if self._vault.generation != self._taken:  # by another process, or by an admin in this one
            await self.take_purges()
        services = self._newer_services()
        if services is not None:
            self._known.become(services)

    async def take_purges(self) -> None:
        """Ends the kept answers that were purged, also while no server ran."""
        self._taken = self._vault.generation
        await self._cache.apply_purges(await self._vault.purges())


class Lasting(Protocol):
    """What has something to do before the first call and after the last."""

    async def start(self) -> None:
        """Before the first call."""
        ...

    async def stop(self) -> None:
        """After the last call."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What a server opens and closes. `apart`: what listeners of their own serve, by name;
    `lasting`: further parts, in the order of their start."""

    cache: Cache
    transport: Transport
    changes: Changes
    apart: Mapping[str, ASGIApp]
    lasting: tuple[Lasting, ...] = ()


class Relay:
    """Everything that runs, as one ASGI application; `start` before the first call, then `stop`."""

    def __init__(self, endpoint: ASGIApp, pages: ASGIApp, parts: Parts) -> None:
        self._endpoint = endpoint
        self._pages = pages
        self._parts = parts
        self.apart = parts.apart
        self._following: asyncio.Task[None] | None = None

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Calls go to the endpoint by their raw target, everything else to the pages."""
        is_call = scope["method"] == "CONNECT" or _is_call(raw_target(scope))
        app = self._endpoint if is_call else self._pages
        await app(scope, receive, send)

    async def start(self) -> None:
        """Opens the stores and begins to follow changes."""
        parts = self._parts
        await parts.cache.start()
        await parts.changes.take_purges()
        for part in parts.lasting:
            await part.start()
        self._following = asyncio.create_task(parts.changes.follow())

    async def stop(self) -> None:
        """Ends what `start` began."""
        if self._following is not None:
            self._following.cancel()
            with suppress(asyncio.CancelledError):
                await self._following
        await self._parts.cache.aclose()
        for part in reversed(self._parts.lasting):
            await part.stop()
        await self._parts.transport.aclose()


async def assemble(config: Config, services: Services, vault: Vault, around: Surroundings) -> Relay:
    """The server's parts, joined; nothing is opened or listening yet."""
    clock = around.clock
    known = CurrentServices(services)
    pseudonym = b"keyrelay-" + (await vault.hasher("pseudonym")).digest(b"via")[:6].hex().encode()
    own = frozenset((ip, port) for host, port in around.listening if (ip := as_literal(host)))
    dialler = Dialler(around.resolver or SystemResolver(), own)
    server = config.server
    transport = TRANSPORTS[server.upstream_transport](
        dialler, clock, upstream_ca=server.upstream_ca
    )
    forwarder = Forwarder(
        transport=transport,
        keys=vault,
        services=known,
        redirects=Redirects(config.server.public_url),
        pseudonym=pseudonym,
        deadlines=settings.deadlines(config.limits),
    )
    slots = Slots(settings.slot_limits(config.limits))
    sized = Sized(forwarder, settings.response_octets(config.limits))
    limits = _limits(config, around)
    upstream = Quota(Admission(sized, slots, clock), limits)
    cache = await _cache(config, upstream, forwarder.forwarded, vault, around)
    authenticator = Authenticator(vault, known, clock, _handed_out(config))
    gateway = Gateway(
        authenticator=authenticator,
        router=Router(pseudonym),
        authorizer=Authorizer(known, _own_places(config, around)),
        cache=Bounded(cache, settings.request_octets(config.limits)),
        remembered=RememberedGrants(clock, lambda: (vault.generation, known.now)),
        limits=limits,
    )
    origins = frozenset(config.server.cors_origins)
    writer = Writer(clock, pseudonym)
    tallies = Tallies(lambda name: known.get(name) is not None)
    usage = _usage(config, around)
    watching = _watching((*around.observers, tallies.observe), usage)
    endpoint = ProxyEndpoint(gateway, known, writer, origins, watching)
    sources = Sources(
        tallies=tallies,
        cache=cache,
        vault=vault,
        slots=slots,
        connections=transport.load,
        in_flight=lambda: endpoint.in_flight,
        health=lambda: (),
        lost_lines=around.lost_lines,
        data=around.data,
        clock=clock,
    )
    admin = Administration(
        acts=Acts(vault, known, cache, clock),
        sessions=Sessions(vault, clock),
        origin=OwnOrigin(config.server.public_url),
    )
    administering = _admin_routes(admin, authenticator)
    routes: list[BaseRoute] = [*ROUTES]
    routes += administering if config.server.admin_listen is None else ()
    routes += metrics_routes(sources, authenticator)
    routes += usage_page.routes(usage, authenticator, clock)
    changes = Changes(vault, cache, known, around)
    lasting = (limits,) if usage is None else (limits, usage)
    apart = {"metrics": listener_app(sources), "admin": _pages((*ROUTES, *administering))}
    parts = Parts(cache, transport, changes, apart, lasting)
    return Relay(endpoint, _pages(routes), parts)


def _admin_routes(admin: Administration, authenticator: Authenticator) -> tuple[BaseRoute, ...]:
    """What a listener of its own serves, where server.admin_listen says so."""
    return (*door.routes(admin), *api.routes(admin, authenticator))


def _pages(routes: Iterable[BaseRoute]) -> Starlette:
    """What is served beside `/proxy`."""
    pages = Starlette(routes=list(routes), exception_handlers=REFUSALS)
    pages.router.redirect_slashes = False  # it would lead to whatever Host says
    return pages


async def _cache(
    config: Config, upstream: Upstream, forwarded: Forwarded, vault: Vault, around: Surroundings
) -> Cache:
    kept = _cache_settings(config)
    keyer = Keyer(
        await vault.hasher("cache-keys"),
        forwarded,
        kept.ignore_fields,
        kept.json_whitespace == "ignore",
    )
    sealer = await vault.sealer("cache-bodies")
    store = STORES["sqlite"](around.data / "cache.db", sealer, around.clock, kept)
    return Cache(upstream, keyer, store, around.clock, kept)


def _limits(config: Config, around: Surroundings) -> Limits:
    said = [Rule(**dict(entry)) for entry in config.limits.quotas]
    budgets = Budgets(SqliteLedger(around.data / "usage.db"), around.clock)
    return Limits(said, config.limits.window, budgets, around.clock)


def _usage(config: Config, around: Surroundings) -> Usage | None:
    kept = config.usage.model_dump()
    if not kept.pop("enabled"):
        return None
    prices = Prices({name: Price(**price.model_dump()) for name, price in config.prices.items()})
    store = SqliteUsage(around.data / "usage.db")
    return Usage(store, prices, around.clock, UsageSettings(**kept))


def _watching(observers: tuple[Observer, ...], usage: Usage | None) -> Watching:
    """Answers are metered only where somebody writes it down."""
    return Watching(observers) if usage is None else Watching((*observers, usage.note), metering)


def _cache_settings(config: Config) -> CacheSettings:
    return CacheSettings(**config.cache.model_dump())


def _handed_out(config: Config) -> HandedOut:
    return HandedOut(config.server.accept_handed_out, config.server.handed_out_grace)


def _own_places(config: Config, around: Surroundings) -> frozenset[tuple[str, int]]:
    if config.server.public_url is None:
        return around.listening
    public = parse_destination(config.server.public_url)
    return around.listening | {(public.host, public.port)}


def _is_call(target: bytes) -> bool:
    if target.startswith(b"/proxy?"):
        return True
    if not target.startswith(b"/"):  # absolute-form (RFC 9112 section 3.2.2)
        target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
    return target.startswith(b"/proxy") and target[6:7] in (b"", b"/", b"?")
