"""The metrics by their names: tallies and state as prometheus-client's families."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from proxy import __version__
from proxy.errors import InternalError
from proxy.metrics.state import State
from proxy.metrics.sums import Process
from proxy.metrics.tallies import NONE, KeyPlace, OfKey, OfService, Spread, Tallies

Labels = tuple[str, ...]
Set = TypeVar("Set", bound=Labels)


def exposition(
    tallies: Tallies, state: State, accept: str, process: Process | None = None
) -> tuple[bytes, str]:
    """What a scraper reads, in the format that it asks for, and that format's media type.

    `process`: what several workers take together; None: this process is the only one.
    A registry of its own each time: nothing is global, and nothing is counted here.
    """
    registry = CollectorRegistry()
    registry.register(_Collected(tallies, state))
    if process is None:
        ProcessCollector(registry=registry)
    else:
        registry.register(_Together(process))
    try:
        encode, media_type = choose_encoder(accept)
    except (TypeError, ValueError):  # of a version that is no number
        encode, media_type = choose_encoder("")
    return encode(registry), media_type


class _Collected(Collector):
    """One moment."""

    def __init__(self, tallies: Tallies, state: State) -> None:
        self._tallies = tallies
        self._state = state

    def describe(self) -> Iterable[Metric]:
        """Nothing: names can't clash in a registry of one's own."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every family."""
        yield gauge("build_info", "What runs.", {_build(): 1}, "version", "python")
        yield from _of_calls(self._tallies)
        yield from _of_services(self._tallies.services)
        yield from _of_rooms(self._state)
        yield from _of_cache(self._state)
        yield from _of_keys(self._tallies.keys, self._state)


class _Together(Collector):
    """Several processes as one, under the names that one has."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def describe(self) -> Iterable[Metric]:
        """Nothing, as above."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every family."""
        found = self._process
        text = "Total user and system CPU time spent in seconds, of all workers."
        yield CounterMetricFamily("process_cpu_seconds", text, found.cpu)
        for name, text, value in (
            (
                "resident_memory_bytes",
                "Resident memory size in bytes, of all workers.",
                found.resident,
            ),
            ("open_fds", "Number of open file descriptors, of all workers.", found.files),
            ("start_time_seconds", "When the oldest worker began, in Unix seconds.", found.began),
        ):
            yield GaugeMetricFamily(f"process_{name}", text, value)


def _build() -> Labels:
    return __version__, platform.python_version()


# Families of one label set each; every name begins with keyrelay_.


def counter(name: str, text: str, values: Mapping[Set, float], *labels: str) -> Metric:
    """A family of counters, `_total` behind its name."""
    family = CounterMetricFamily(f"keyrelay_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def gauge(name: str, text: str, values: Mapping[Set, float], *labels: str) -> Metric:
    """A family of gauges."""
    family = GaugeMetricFamily(f"keyrelay_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def histogram(name: str, text: str, values: Mapping[Set, Spread], *labels: str) -> Metric:
    """A family of histograms."""
    family = HistogramMetricFamily(f"keyrelay_{name}", text, labels=labels)
    for key, spread in values.items():
        family.add_metric(key, _buckets(spread), spread.total)
    return family


def _buckets(spread: Spread) -> Sequence[tuple[str, float]]:
    names = [*(repr(bound) for bound in spread.bounds), "+Inf"]
    return list(zip(names, accumulate(spread.counts), strict=True))


# The metrics.

_CALL = ("service", "status", "verdict")


def _of_calls(tallies: Tallies) -> Iterator[Metric]:
    counts = {place: float(sum(spread.counts)) for place, spread in tallies.calls.items()}
    yield counter("requests", "Calls that are over.", counts, *_CALL)
    text = "Calls from their first octet to the last of their answer."
    yield histogram("request_seconds", text, tallies.calls, *_CALL)
    text = "Answers of our own that are errors, by code."
    met = dict.fromkeys(((name, InternalError.code) for name in (NONE, *tallies.services)), 0)
    yield counter("errors", text, met | tallies.errors, "service", "code")  # from 0, for alerts
    text = "Calls refused because of a limit, a budget or the queue."
    rejections = {(code,): count for code, count in tallies.rejections().items()}
    yield counter("limit_rejections", text, rejections, "code")


def _of_services(services: Mapping[str, OfService]) -> Iterator[Metric]:
    def spreads(member: str) -> dict[Labels, Spread]:
        found = {(name,): getattr(one, member) for name, one in services.items()}
        return {key: spread for key, spread in found.items() if any(spread.counts)}

    def sums(member: str) -> dict[Labels, float]:
        return {(name,): getattr(one, member) for name, one in services.items()}

    text = "From sending a request to the header of its answer."
    yield histogram("upstream_seconds", text, spreads("upstream"), "service")
    text = "Our own share of the time until an answer begins: neither upstream nor queue."
    yield histogram("overhead_seconds", text, spreads("overhead"), "service")
    text = "In the queue for upstream calls, where a call had to wait."
    yield histogram("queue_seconds", text, spreads("waited"), "service")
    text = "Octets of request bodies."
    yield counter("received_bytes", text, sums("received"), "service")
    yield counter("sent_bytes", "Octets of answers' bodies.", sums("sent"), "service")
    yield counter("cut", "Answers broken after their start.", sums("cut"), "service")


def _of_rooms(state: State) -> Iterator[Metric]:
    yield gauge("in_flight", "Calls that are being answered.", {(): state.in_flight})
    yield gauge("upstream_calls", "Calls that hold a slot.", {(): state.upstream_calls})
    yield gauge("queued", "Calls that wait for a slot.", {(): state.waiting})
    arrivals = state.arrivals
    yield gauge("connections", "Connections of callers.", {(): arrivals.open})
    refused = {(bound,): count for bound, count in arrivals.refused.items()}
    text = "Connections, and calls behind a trusted proxy, that were one too many."
    yield counter("connections_refused", text, refused, "bound")
    opened, idle, waiting = state.connections
    used = {("idle",): idle, ("used",): opened - idle}
    yield gauge("upstream_connections", "Connections to upstreams.", used, "state")
    text = "Calls that wait for a connection."
    yield gauge("upstream_connection_waiters", text, {(): waiting})
    text = "Whether a service is well, by what calls and probes have shown."
    health = {(service,): float(well) for service, well in state.health}
    yield gauge("service_healthy", text, health, "service")
    lost = {(): state.lost_lines}
    yield counter("log_lines_lost", "Lines of the log that nobody took in time.", lost)
    if state.disk is not None:
        free, size = state.disk
        yield gauge("disk_free_bytes", "Free where the data directory lies.", {(): free})
        yield gauge("disk_size_bytes", "All room where the data directory lies.", {(): size})


def _of_cache(state: State) -> Iterator[Metric]:
    layers = {("memory",): state.memory}
    if state.stored is not None:
        layers["disk" if state.redis is None else "redis",] = state.stored
    entries = {layer: held.entries for layer, held in layers.items()}
    octets = {layer: held.octets for layer, held in layers.items()}
    evicted = {layer: held.evicted for layer, held in layers.items()}
    yield gauge("cache_entries", "Answers that are kept.", entries, "layer")
    yield gauge("cache_bytes", "Room that they take.", octets, "layer")
    yield counter("cache_evictions", "Answers that had to make room.", evicted, "layer")
    text = "Whether the store takes what it is given."
    yield gauge("cache_store_works", text, {(): float(state.store_works)})
    if state.redis is not None:
        up, failures = state.redis
        text = "Whether the shared Redis answers, and takes what is written."
        yield gauge("redis_up", text, {(): float(up)})
        text = "Commands that it has not answered in time, or has refused."
        yield counter("redis_failures", text, {(): failures})


def _of_keys(used: Mapping[KeyPlace, OfKey], state: State) -> Iterator[Metric]:
    """Of the keys that are in the vault now."""
    yield gauge("vault_works", "Whether keys can be read.", {(): float(state.keys is not None)})
    text = "Since the vault's database can't be read; 0: it can."
    yield gauge("vault_unread_seconds", text, {(): state.outage.seconds})
    if state.outage.left is not None:
        text = "For how long what was seen before is still served."
        yield gauge("vault_grace_left_seconds", text, {(): state.outage.left})
    keys = {(one.tenant, one.service, one.alias): one.age for one in state.keys or ()}
    labels = ("tenant", "service", "alias")
    text = "Since a key was added or rotated."
    yield gauge("key_age_seconds", text, keys, *labels)
    calls = {place: used[place].calls if place in used else 0 for place in keys}
    text = "Upstream calls that carried a key."
    yield counter("key_calls", text, calls, *labels)
    last = {place: used[place].last for place in keys if place in used}
    text = "When a key was last used, in Unix seconds, since the start."
    yield gauge("key_last_used_timestamp_seconds", text, last, *labels)
