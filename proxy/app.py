"""The composition root: the only file that knows every room."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from proxy.admin import api, door
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
from proxy.upstream.redirects import Redirects
from proxy.upstream.seam import Upstream
from proxy.upstream.sizes import Sized
from proxy.upstream.slots import Slots
from vault import Vault, VaultError

REFRESH_SECONDS = 0.25
"""How often a running server looks for changes that the command line made."""

_log = logging.getLogger("keyrelay")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What lies around a server: its files, its listeners, how it tells time and names.

    `listening`: (host, port) of our own listeners. `newer_services` is asked again and again: the
    registry, where it has changed since; raises ConfigError. `observers`: who hears of every call.
    """

    data: Path
    clock: Clock
    listening: frozenset[tuple[str, int]] = frozenset()
    resolver: Resolver | None = None
    newer_services: Callable[[], Services | None] = lambda: None
    observers: tuple[Observer, ...] = ()


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


class Relay:
    """Everything that runs, as one ASGI application; `start` before the first call, then `stop`."""

    def __init__(
        self,
        endpoint: ASGIApp,
        pages: ASGIApp,
        cache: Cache,
        transport: Transport,
        changes: Changes,
    ) -> None:
        self._endpoint = endpoint
        self._pages = pages
        self._cache = cache
        self._transport = transport
        self._changes = changes
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
        await self._cache.start()
        await self._changes.take_purges()
        self._following = asyncio.create_task(self._changes.follow())

    async def stop(self) -> None:
        """Ends what `start` began."""
        if self._following is not None:
            self._following.cancel()
            with suppress(asyncio.CancelledError):
                await self._following
        await self._cache.aclose()
        await self._transport.aclose()


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
    upstream = Admission(sized, slots, clock)
    cache = await _cache(config, upstream, forwarder.forwarded, vault, around)
    authenticator = Authenticator(vault, known, clock, _handed_out(config))
    gateway = Gateway(
        authenticator=authenticator,
        router=Router(pseudonym),
        authorizer=Authorizer(known, _own_places(config, around)),
        cache=Bounded(cache, settings.request_octets(config.limits)),
        remembered=RememberedGrants(clock, lambda: (vault.generation, known.now)),
    )
    origins = frozenset(config.server.cors_origins)
    writer = Writer(clock, pseudonym)
    endpoint = ProxyEndpoint(gateway, known, writer, origins, Watching((*around.observers,)))
    admin = Administration(
        acts=Acts(vault, known, cache, clock),
        sessions=Sessions(vault, clock),
        origin=OwnOrigin(config.server.public_url),
    )
    routes: list[BaseRoute] = [*ROUTES]
    routes += door.routes(admin)
    routes += api.routes(admin, authenticator)
    return Relay(endpoint, _pages(routes), cache, transport, Changes(vault, cache, known, around))


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
