"""The metrics of several workers as those of one: what each reports, as plain numbers, and the sum.

Counts are added, also those of workers that have died; what there is at the moment is added over
those that live; of moments the newest counts. A service is well, and the store works, where every
worker says so.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from proxy.cache.entry import CacheStats, Holding
from proxy.door import Arrivals
from proxy.metrics.state import Sources, State
from proxy.metrics.tallies import OWN_SECONDS, SECONDS, OfKey, OfService, Spread, Tallies
from proxy.workers.adding import added, newest

Numbers = Mapping[str, Any]


class Report(NamedTuple):
    """`counts` never go down; `present` is what there is now; `latest` are times."""

    counts: Numbers
    present: Numbers
    latest: Numbers


class Process(NamedTuple):
    """All processes as one: seconds of CPU, octets, open files, and the oldest one's start."""

    cpu: float
    resident: int
    files: int
    began: float


def report(ask: Sources, began: float) -> Report:
    """One worker's."""
    tallies, load = ask.tallies, ask.connections()
    memory, arrivals = ask.cache.in_memory, ask.arrivals()
    used = resource.getrusage(resource.RUSAGE_SELF)
    counts = {
        "calls": {place: _of_spread(one) for place, one in tallies.calls.items()},
        "services": {name: _of_service(one) for name, one in tallies.services.items()},
        "errors": dict(tallies.errors),
        "keys": {place: one.calls for place, one in tallies.keys.items()},
        "refused": arrivals.refused,
        "lost": ask.lost_lines(),
        "evicted": memory.evicted,
        "cpu": used.ru_utime + used.ru_stime,
    }
    present = {
        "in_flight": ask.in_flight(),
        "upstream_calls": ask.slots.in_flight,
        "waiting": ask.slots.waiting,
        "connections": [load.open, load.idle, load.waiting],
        "memory": [memory.entries, memory.octets],
        "ails": int(ask.cache.ails),
        "unwell": {service: int(not well) for service, well in ask.health()},
        "open": arrivals.open,
        "resident": _resident(),
        "files": _files(),
    }
    latest = {
        "keys": {place: one.last for place, one in tallies.keys.items()},
        "oldest": -began,
    }
    return Report(counts, present, latest)


def total(reports: Sequence[Report], counts: Numbers | None) -> Report:
    """The sum of those that live, and of the `counts` of those that have died."""
    first, *others = reports
    for one in others:
        first = Report(
            added(first.counts, one.counts),
            added(first.present, one.present),
            newest(first.latest, one.latest),
        )
    return first if counts is None else first._replace(counts=added(first.counts, counts))


def tallies_of(found: Report, own: Tallies) -> Tallies:
    """The calls of all workers."""
    counts, made = found.counts, own.copy()
    made.calls = {place: _spread(SECONDS, one) for place, one in counts["calls"].items()}
    made.services = {name: _service(one) for name, one in counts["services"].items()}
    made.errors = dict(counts["errors"])
    last = found.latest["keys"]
    made.keys = {
        place: OfKey(calls, last.get(place, 0.0)) for place, calls in counts["keys"].items()
    }
    return made


def state_of(found: Report, own: State) -> State:
    """The state of all workers; what all of them share is told by one."""
    counts, present = found.counts, found.present
    entries, octets = present["memory"]
    return replace(
        own,
        in_flight=present["in_flight"],
        upstream_calls=present["upstream_calls"],
        waiting=present["waiting"],
        connections=tuple(present["connections"]),
        memory=CacheStats({("", ""): Holding(entries, octets)}, counts["evicted"]),
        store_works=not present["ails"],
        health=tuple((name, not count) for name, count in present["unwell"].items()),
        lost_lines=counts["lost"],
        arrivals=Arrivals(present["open"], dict(counts["refused"])),
    )


def process_of(found: Report) -> Process:
    """What all workers take together."""
    present = found.present
    oldest = -found.latest["oldest"]
    return Process(found.counts["cpu"], present["resident"], present["files"], oldest)


# From numbers and back.


def _of_spread(one: Spread) -> list[Any]:
    return [one.counts.copy(), one.total]


def _spread(bounds: tuple[float, ...], found: list[Any]) -> Spread:
    made = Spread(bounds)
    made.counts, made.total = list(found[0]), found[1]
    return made


def _of_service(one: OfService) -> list[Any]:
    spreads = map(_of_spread, (one.upstream, one.waited, one.overhead))
    return [one.received, one.sent, one.cut, *spreads]


def _service(found: list[Any]) -> OfService:
    made = OfService()
    made.received, made.sent, made.cut, upstream, waited, overhead = found
    made.upstream, made.waited = _spread(SECONDS, upstream), _spread(SECONDS, waited)
    made.overhead = _spread(OWN_SECONDS, overhead)
    return made


def _resident() -> int:
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()
    return 0


def _files() -> int:
    with suppress(OSError):
        return sum(1 for _ in Path("/proc/self/fd").iterdir())
    return 0
