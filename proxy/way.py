"""The rooms that a call goes through, joined: from who calls to what is sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

from proxy.addresses import as_literal
from proxy.authentication import Authenticator, HandedOut
from proxy.authorization import Authorizer
from proxy.bounds import Bounded, ByService, Fetching
from proxy.cache.cache import STORES, Cache
from proxy.cache.entry import CacheStats
from proxy.cache.hearing import Hearing
from proxy.cache.key import Forwarded, Keyer
from proxy.cache.policy import CacheSettings
from proxy.cache.redis import RedisStore
from proxy.cache.redis_commons import RedisCommons
from proxy.clock import Clock
from proxy.config import CallLimits, Config
from proxy.destinations import parse_destination
from proxy.door import Arrivals
from proxy.engine import Engine
from proxy.gateway import Gateway
from proxy.guesses import Guesses
from proxy.limits.budgets import Budgets
from proxy.limits.counts import Counts, LocalCounts
from proxy.limits.instances import Instances
from proxy.limits.keeping import census_at, ledger_at
from proxy.limits.limits import Limits
from proxy.limits.rules import Rule
from proxy.limits.shared import SharedCounts
from proxy.network import Dialler, Resolver, SystemResolver
from proxy.record import Observer
from proxy.reload import Files, Live, NoFiles, names
from proxy.remembered import RememberedGrants
from proxy.routing import Router
from proxy.services import CurrentServices
from proxy.signin import Fetcher, SignIn
from proxy.traces import MarksLookUps, MarksUpstream
from proxy.trail import Trail
from proxy.upstream import settings
from proxy.upstream.admission import Admission
from proxy.upstream.forwarder import Forwarder
from proxy.upstream.leases import Leases
from proxy.upstream.leaves import TRANSPORTS, Transport
from proxy.upstream.quota import Quota
from proxy.upstream.redirects import Redirects
from proxy.upstream.seam import Upstream
from proxy.upstream.sizes import Sized
from proxy.upstream.slots import SlotLimits, Slots
from proxy.upstream.spanning import SpanningSlots
from proxy.upstream.transport import Deadlines
from proxy.workers.boarding import TeamCommons
from proxy.workers.companion import Companion
from proxy.workers.counting import TeamCounts
from proxy.workers.store import SharedStore
from vault import Vault


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What lies around a server: its files, its listeners, how it tells time and names.

    `listening`: (host, port) of our own listeners. `files`: where the configuration stands, looked
    at again and again. `live`: what else takes up a changed one. `observers`: who hears of every
    call. `engine`: the Redis that is shared, once it is known.
    `lost_lines`: how many lines the log could not write. `arrivals`: connections of callers.
    `companion`: of one worker among several.
    """

    data: Path
    clock: Clock
    listening: frozenset[tuple[str, int]] = frozenset()
    resolver: Resolver | None = None
    files: Files = field(default_factory=NoFiles)
    engine: Engine | None = None
    live: tuple[Live, ...] = ()
    observers: tuple[Observer, ...] = ()
    lost_lines: Callable[[], int] = lambda: 0
    arrivals: Callable[[], Arrivals] = lambda: Arrivals(0, {})
    companion: Companion | None = None

    @property
    def workers(self) -> int:
        """How many processes serve as one."""
        return 1 if self.companion is None else self.companion.workers

    @property
    def leads(self) -> bool:
        """Whether it does what one of them has to do for all."""
        return self.companion is None or self.companion.leads


class CallBounds(NamedTuple):
    """The bounds of single calls, shared with the rooms that keep them."""

    deadlines: ByService[Deadlines]
    requests: ByService[int | None]
    responses: ByService[int | None]

    @classmethod
    def of(cls, config: Config) -> CallBounds:
        """As the configuration says."""
        limits = config.limits
        octets = settings.request_octets(limits), settings.response_octets(limits)
        return cls(settings.deadlines(limits), *octets)

    def become(self, config: Config) -> None:
        """As another one says, from now on."""
        new = CallBounds.of(config)
        self.deadlines.become(new.deadlines)
        self.requests.become(new.requests)
        self.responses.become(new.responses)


Lasting = Engine | Instances | Hearing | SpanningSlots | Limits | Trail | SignIn


class Way(NamedTuple):
    """The rooms that others ask about, or change. `pseudonym`: this install in `Via`; `engine`: the
    Redis that they share with other `instances`, if there is one; `hearing`: what is heard there.
    """

    pseudonym: bytes
    workers: int
    engine: Engine | None
    instances: Instances | None
    hearing: Hearing | None
    transport: Transport
    forwarder: Forwarder
    bounds: CallBounds
    slots: Slots
    limits: Limits
    cache: Cache
    fetching: Fetching
    authenticator: Authenticator
    guesses: Guesses
    authorizer: Authorizer
    trail: Trail
    sign_in: SignIn

    @property
    def lasting(self) -> tuple[Lasting, ...]:
        """Those that have something to do before the first call and after the last; what the others
        stand on comes first, and ends last."""
        spanning = self.slots if isinstance(self.slots, SpanningSlots) else None
        shared = self.engine, self.instances, self.hearing, spanning
        first = (one for one in shared if one is not None)
        return *first, self.limits, self.trail, self.sign_in

    def without(self) -> tuple[str, ...]:
        """What is missed now, and calls go on without."""
        return () if self.engine is None or self.engine.serves else ("redis",)

    @property
    def live(self) -> tuple[Live, ...]:
        """What these rooms take up of a changed configuration."""
        return (
            Live(
                names("server", "accept_handed_out", "handed_out_grace"),
                lambda new: self.authenticator.become(handed_out(new)),
            ),
            Live(
                names("limits", "wrong_tokens"),
                lambda new: self.guesses.become(new.limits.wrong_tokens),
            ),
            Live(frozenset({"sign_in"}), lambda new: self.sign_in.become(new.sign_in)),
            Live(names("limits", *CallLimits.model_fields, "services"), self.bounds.become),
            Live(
                names("limits", "concurrency", "queue_length", "queue_timeout"),
                lambda new: self.slots.become(_slot_limits(new, self.engine, self.workers)),
            ),
            Live(
                names("limits", "quotas", "window"),
                lambda new: self.limits.become(_rules(new), new.limits.window),
            ),
        )

    def gateway(self, remembered: RememberedGrants) -> Gateway:
        """The spine over them."""
        return Gateway(
            authenticator=self.authenticator,
            router=Router(self.pseudonym),
            authorizer=self.authorizer,
            cache=Bounded(self.fetching, self.bounds.requests),
            remembered=remembered,
            limits=self.limits,
        )


async def make_way(
    config: Config, vault: Vault, known: CurrentServices, around: Surroundings
) -> Way:
    """All of them; nothing is opened yet."""
    pseudonym = await _pseudonym(vault)
    around = replace(around, engine=_engine(config, pseudonym, around.clock))
    transport, bounds = _transport(config, around), CallBounds.of(config)
    forwarder = Forwarder(
        transport=transport,
        keys=vault,
        services=known,
        redirects=Redirects(config.server.public_url),
        pseudonym=pseudonym,
        deadlines=bounds.deadlines,
    )
    instances, limits = _limits(config, vault, around)
    slots = _slots(config, around, instances)
    trail, guesses = Trail(vault, around.clock), _guesses(config, around, instances)
    traced = config.server.traces_endpoint is not None
    leaf = MarksUpstream(forwarder, around.clock) if traced else forwarder
    upstream = Quota(Admission(Sized(leaf, bounds.responses), slots, around.clock), limits)
    cache, hearing = await _cache(config, upstream, forwarder.forwarded, vault, around)
    sign_in = SignIn(config.sign_in, Fetcher(transport), around.clock)
    authenticator = Authenticator(vault, known, around.clock, handed_out(config), guesses)
    authenticator.also_by(sign_in)
    return Way(
        pseudonym=pseudonym,
        workers=around.workers,
        engine=around.engine,
        instances=instances,
        hearing=hearing,
        transport=transport,
        forwarder=forwarder,
        bounds=bounds,
        slots=slots,
        limits=limits,
        cache=cache,
        fetching=MarksLookUps(cache, around.clock) if traced else cache,
        authenticator=authenticator,
        guesses=guesses,
        authorizer=Authorizer(known, _own_places(config, around), trail.refuse),
        trail=trail,
        sign_in=sign_in,
    )


async def _pseudonym(vault: Vault) -> bytes:
    return b"keyrelay-" + (await vault.hasher("pseudonym")).digest(b"via")[:6].hex().encode()


def _engine(config: Config, pseudonym: bytes, clock: Clock) -> Engine | None:
    """One for the whole process; its names begin with this install's, so installs can share it."""
    place = config.cache.url
    return None if place is None else Engine(place, pseudonym.decode(), clock)


async def stored_in_redis(config: Config, vault: Vault, clock: Clock) -> CacheStats:
    """How much all instances have there; raises StoreError."""
    engine = _engine(config, await _pseudonym(vault), clock)
    if engine is None:
        return CacheStats()
    try:
        sealer = await vault.sealer("cache-bodies")
        return await RedisStore(engine, sealer, clock, _cache_settings(config)).stats()
    finally:
        await engine.stop()


def _transport(config: Config, around: Surroundings) -> Transport:
    own = frozenset((ip, port) for host, port in around.listening if (ip := as_literal(host)))
    dialler = Dialler(around.resolver or SystemResolver(), own)
    make = TRANSPORTS[config.server.upstream_transport]
    return make(dialler, around.clock, upstream_ca=config.server.upstream_ca)


async def _cache(
    config: Config, upstream: Upstream, forwarded: Forwarded, vault: Vault, around: Surroundings
) -> tuple[Cache, Hearing | None]:
    kept = _cache_settings(config)
    keyer = Keyer(
        await vault.hasher("cache-keys"),
        forwarded,
        kept.ignore_fields,
        kept.json_whitespace == "ignore",
    )
    if around.engine is not None:
        sealer = await vault.sealer("cache-bodies")
        store = RedisStore(around.engine, sealer, around.clock, kept)
        cache = Cache(upstream, keyer, store, around.clock, kept)
        cache.share(RedisCommons(around.engine, sealer))
        return cache, Hearing(around.engine, store, cache)
    if around.companion is not None:
        shared = SharedStore(around.companion)
        cache = Cache(upstream, keyer, shared, around.clock, kept)
        shared.stand_under(cache)
        cache.share(TeamCommons(around.companion))
        return cache, None
    sealer = await vault.sealer("cache-bodies")
    disk = STORES["sqlite"](around.data / "cache.db", sealer, around.clock, kept)
    return Cache(upstream, keyer, disk, around.clock, kept), None


def _rules(config: Config) -> list[Rule]:
    return [Rule(**dict(entry)) for entry in config.limits.quotas]


def _guesses(config: Config, around: Surroundings, instances: Instances | None) -> Guesses:
    """The workers of one machine tell each other, machines don't."""
    rate, clock, workers = config.limits.wrong_tokens, around.clock, around.workers
    if instances is None:
        return Guesses(rate, clock)
    return Guesses(rate, clock, lambda: instances.count // workers)


def _slots(config: Config, around: Surroundings, instances: Instances | None) -> Slots:
    limits = _slot_limits(config, around.engine, around.workers)
    if around.engine is None or instances is None:
        return Slots(limits)
    return SpanningSlots(limits, Leases(around.engine), lambda: instances.count)


def _slot_limits(config: Config, engine: Engine | None, workers: int) -> SlotLimits:
    make = settings.slot_limits if engine is None else settings.spanning_limits
    return make(config.limits, workers)


def _limits(config: Config, vault: Vault, around: Surroundings) -> tuple[Instances | None, Limits]:
    """All that share a Redis are one run: they count the calls of short-lived tokens together."""
    kind, url = config.limits.window, config.vault.url
    if around.engine is None and around.companion is not None:
        counts: Counts = TeamCounts(around.companion, kind, around.clock)
        return None, Limits(_rules(config), counts, around.clock)
    place = around.data, None if url is None else url.text
    ledger = ledger_at(*place)
    budgets = Budgets(ledger, around.clock)
    if around.engine is None:
        counts = LocalCounts(kind, budgets, around.clock)
        return None, Limits(_rules(config), counts, around.clock)
    instances = Instances(around.engine, token_hex(8), census_at(*place))
    instances.when_running(vault.run_as)
    counts = SharedCounts(around.engine, instances, kind, budgets, around.clock)
    return instances, Limits(_rules(config), counts, around.clock)


def _cache_settings(config: Config) -> CacheSettings:
    return CacheSettings(**config.cache.model_dump())


def handed_out(config: Config) -> HandedOut:
    """The rules for keys that we handed out."""
    return HandedOut(config.server.accept_handed_out, config.server.handed_out_grace)


def _own_places(config: Config, around: Surroundings) -> frozenset[tuple[str, int]]:
    if config.server.public_url is None:
        return around.listening
    public = parse_destination(config.server.public_url)
    return around.listening | {(public.host, public.port)}
