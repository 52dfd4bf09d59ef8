"""The composition root: the only file that knows every room."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from proxy.admin import api, usage_page
from proxy.admin.acts import Acts
from proxy.admin.door import Administration
from proxy.admin.exchange import Exchange, Terms, Witnessed
from proxy.admin.origin import OwnOrigin
from proxy.admin.pages.board import Board
from proxy.admin.pages.routes import routes as admin_pages
from proxy.admin.reports import Reports
from proxy.admin.seen import Seen, share
from proxy.admin.session import Sessions
from proxy.admin.spread import SpreadSessions
from proxy.asgi import ProxyEndpoint, Watching, raw_target
from proxy.cache.cache import Cache
from proxy.carrying import Carrying
from proxy.causes import frames, lineage
from proxy.clock import Clock
from proxy.config import Config
from proxy.destinations import parse_destination
from proxy.health import pages as health_pages
from proxy.health.pages import Ward
from proxy.health.probing import Prober, Rounds
from proxy.health.readiness import Readiness, writes_to
from proxy.health.watch import Health
from proxy.metrics import Sources, Tallies, TeamMetrics, listener_app
from proxy.metrics import routes as metrics_routes
from proxy.outage import Outage
from proxy.pages import REFUSALS, ROUTES
from proxy.record import Observer, unmetered
from proxy.reload import Live, Reloading, names
from proxy.remembered import RememberedGrants
from proxy.reply import Writer
from proxy.services import CurrentServices, Services
from proxy.traces import Tracing
from proxy.upstream.leaves import Transport
from proxy.upstream.transport import trust
from proxy.usage import Metering, Price, Prices, Usage, UsageSettings, usage_store
from proxy.way import Surroundings, Way, make_way
from vault import StoreUnavailable, Vault, VaultError

__all__ = ["Relay", "Surroundings", "assemble"]

REFRESH_SECONDS = 0.25
"""How often a running server looks for changes that the command line made."""

_log = logging.getLogger("keyrelay")


class Changes:
    """What changes while a server runs: the vault, the purges, the configuration's files."""

    def __init__(self, vault: Vault, way: Way, files: Reloading, outage: Outage) -> None:
        self._vault = vault
        self._outage = outage
        self._cache = way.cache
        self._forwarder = way.forwarder
        self._files = files
        self._taken = -1

    async def follow(self) -> None:
        """Looks again and again, until cancelled. The files by themselves: one that takes its time
        to be read keeps no revoked token alive."""
        async with asyncio.TaskGroup() as both:
            both.create_task(_again(self.look))
            both.create_task(_again(self._files.look))
            both.create_task(_again(self._outage.look))

    async def look(self) -> None:
        """Takes up what has changed in the vault since the last time."""
        await self._refresh()
        self._outage.lag(await self._vault.catch_up())
        if self._vault.generation != self._taken:  # by another process, or by an admin in this one
            self._forwarder.forget()
            await self.take_purges()
            self._files.ask_if_refused()

    async def _refresh(self) -> None:
        self._outage.begin()
        try:
            await self._vault.refresh()
        except StoreUnavailable as error:
            self._outage.fail(error)
            raise
        self._outage.end()

    @property
    def live(self) -> frozenset[str]:
        """The settings of the files that are taken up."""
        return self._files.live

    def read_files(self) -> None:
        """Reads the configuration again with the next look, whether it seems changed or not."""
        self._files.ask()

    async def take_purges(self) -> None:
        """Ends the kept answers that were purged, also while no server ran."""
        generation = self._vault.generation
        self._cache.apply_purges(await self._vault.purges())
        self._taken = generation


async def _again(look: Callable[[], Awaitable[None]]) -> None:
    """Whatever goes wrong, the next look comes; the log has it once until it changes."""
    told = ""
    while True:
        await asyncio.sleep(REFRESH_SECONDS)
        words, place = "", {}
        try:
            await look()
        except VaultError as error:
            words = f"a change could not be read: {error}"
        except Exception as error:
            words = f"a change could not be taken up: unexpected {lineage(error)}"
            place = {"at": frames(error)}
        if words and words != told:
            _log.error(words, extra=place)
        told = words


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
    readiness: Readiness
    seen: Seen
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

    @property
    def live(self) -> frozenset[str]:
        """The settings that are taken up without a restart, by their names in the file."""
        return self._parts.changes.live

    def reload(self) -> None:
        """Reads the configuration again, soon."""
        self._parts.changes.read_files()

    def go_down(self) -> None:
        """From now on this server is not ready: it is about to stop."""
        self._parts.readiness.stop()
        self._parts.seen.live.end()

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
    clock, known = around.clock, CurrentServices(services)
    way = await make_way(config, vault, known, around)
    tallies = Tallies(lambda name: known.get(name) is not None)
    prices, tracing = Prices(_prices(config)), _tracing(config)
    usage = _usage(config, prices, around)
    health = Health(known)
    rounds = Rounds(health, Prober(way.authorizer, way.forwarder), vault, known, clock)
    rounds.become(config.health.probe_every)
    seen = Seen.of(way.trail, health, around.companion)
    sign_in = way.sign_in
    remembered = RememberedGrants(clock, lambda: (vault.generation, known.now, sign_in.generation))
    endpoint = ProxyEndpoint(
        way.gateway(remembered),
        known,
        Writer(clock, way.pseudonym),
        _origins(config),
        _watching((*around.observers, *seen.observers, tallies.observe), usage, tracing),
    )
    outage = Outage(clock, config.server.vault_grace, vault.lapse)
    asked = (way.authenticator, vault, known, clock, lambda: endpoint.in_flight, outage.gap)
    ward = Ward(health, _readiness(vault, way, around), *asked, way.without)
    sources = _sources(way, vault, ward, tallies, around)
    team = None if around.companion is None else TeamMetrics(around.companion, sources)
    admin = await _administration(config, way, vault, known, Reports(usage, ward, clock))
    share(around.companion, admin.sessions, way.guesses, rounds)
    board = Board(admin, seen.live, seen.last_use, usage, ward.standings)
    administering = (*admin_pages(board), *api.routes(admin, way.authenticator))
    here = administering if config.server.admin_listen is None else ()
    exchange = _exchange(config, way, vault, known, clock)
    routes: list[BaseRoute] = [*ROUTES, *here, *health_pages.routes(ward), *exchange.routes()]
    routes += metrics_routes(sources, way.authenticator, team)
    routes += usage_page.routes(usage, way.authenticator, clock)
    apart = {"metrics": listener_app(sources, team), "admin": _pages((*ROUTES, *administering))}
    reloading = Reloading(around.files, config, vault, known, notes=around.leads)
    reloading.serve((*_live(endpoint, rounds, prices, exchange, outage), *way.live, *around.live))
    others = (one for one in (usage, tracing, team, seen.passed) if one is not None)
    lasting = (*way.lasting, *_leading(config, rounds, around), *others)
    changes = Changes(vault, way, reloading, outage)
    parts = Parts(way.cache, way.transport, changes, ward.readiness, seen, apart, lasting)
    return Relay(endpoint, _pages(routes), parts)


async def _administration(
    config: Config, way: Way, vault: Vault, known: CurrentServices, reports: Reports
) -> Administration:
    sessions = Sessions(vault, reports.clock, way.guesses, way.trail)
    if way.engine is not None:
        sealer = await vault.sealer("sessions")
        sessions.share(SpreadSessions(way.engine, sealer, reports.clock))
    return Administration(
        acts=Acts(vault, known, way.cache, reports.clock),
        sessions=sessions,
        origin=OwnOrigin(config.server.public_url),
        reports=reports,
    )


def _live(
    endpoint: ProxyEndpoint, rounds: Rounds, prices: Prices, exchange: Exchange, outage: Outage
) -> tuple[Live, ...]:
    return (
        Live(names("server", "cors_origins"), lambda new: endpoint.allow(_origins(new))),
        Live(
            names("server", "cors_origins", "short_lived_max"),
            lambda new: exchange.become(_terms(new)),
        ),
        Live(frozenset({"prices"}), lambda new: prices.become(_prices(new))),
        Live(names("server", "vault_grace"), lambda new: outage.become(new.server.vault_grace)),
        Live(names("health", "probe_every"), lambda new: rounds.become(new.health.probe_every)),
    )


def _origins(config: Config) -> frozenset[str]:
    return frozenset(config.server.cors_origins)


def _exchange(
    config: Config, way: Way, vault: Vault, known: CurrentServices, clock: Clock
) -> Exchange:
    issues = Witnessed(vault, way.trail)
    return Exchange(way.authenticator, issues, known, clock, _terms(config))


def _terms(config: Config) -> Terms:
    return Terms(_origins(config), config.server.short_lived_max)


def _readiness(vault: Vault, way: Way, around: Surroundings) -> Readiness:
    """A Redis that is gone takes no instance out: all would go, and each can do without."""
    own = {"cache": way.cache.check} if way.engine is None else {}
    storage = writes_to(around.data)
    return Readiness({"vault": vault.check, **own, "storage": storage}, around.clock)


def _sources(way: Way, vault: Vault, ward: Ward, tallies: Tallies, around: Surroundings) -> Sources:
    return Sources(
        tallies=tallies,
        cache=way.cache,
        vault=vault,
        slots=way.slots,
        connections=way.transport.load,
        in_flight=ward.in_flight,
        health=ward.health.gauge,
        lost_lines=around.lost_lines,
        outage=ward.outage,
        arrivals=around.arrivals,
        redis=way.engine,
        data=around.data,
        clock=around.clock,
    )


def _pages(routes: Iterable[BaseRoute]) -> Starlette:
    """What is served beside `/proxy`."""
    pages = Starlette(routes=list(routes), exception_handlers=REFUSALS)
    pages.router.redirect_slashes = False  # it would lead to whatever Host says
    return pages


def _prices(config: Config) -> dict[str, Price]:
    return {name: Price(**price.model_dump()) for name, price in config.prices.items()}


def _usage(config: Config, prices: Prices, around: Surroundings) -> Usage | None:
    kept = config.usage.model_dump()
    if not kept.pop("enabled"):
        return None
    url = config.vault.url
    store = usage_store(around.data, None if url is None else url.text)
    return Usage(store, prices, around.clock, UsageSettings(**kept))


def _leading(config: Config, rounds: Rounds, around: Surroundings) -> tuple[Lasting, ...]:
    """What one of several workers does for all."""
    if not around.leads:
        return ()
    url = config.vault.url
    return (rounds,) if url is None else (rounds, Carrying(around.data / "usage.db", url.text))


def _tracing(config: Config) -> Tracing | None:
    server = config.server
    if server.traces_endpoint is None:
        return None
    endpoint = parse_destination(server.traces_endpoint)
    return Tracing.to(endpoint, lambda: trust(server.upstream_ca), server.traces_ratio)


def _watching(
    observers: tuple[Observer, ...], usage: Usage | None, tracing: Tracing | None
) -> Watching:
    """Answers are metered only where somebody writes it down, and calls traced where asked."""
    metering = unmetered if usage is None else Metering()
    noting = () if usage is None else (usage.note,)
    if tracing is None:
        return Watching((*observers, *noting), metering)
    return Watching((*observers, *noting, tracing.observe), metering, tracing.begin)


def _is_call(target: bytes) -> bool:
    if target.startswith(b"/proxy?"):
        return True
    if not target.startswith(b"/"):  # absolute-form (RFC 9112 section 3.2.2)
        target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
    return target.startswith(b"/proxy") and target[6:7] in (b"", b"/", b"?")
