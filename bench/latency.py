"""How much later an answer comes through keyrelay than directly, at half the load it can carry."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from bench import load, matter
from bench.case import Bodies, post
from bench.load import Load
from bench.paced import Paced, octets
from bench.peers.keyrelay import Install
from bench.running import running
from bench.summary import percentile

MOST = 10000.0
"""Requests per second that the sender in Python gets out without delaying them itself."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Microseconds at `rate` requests per second; `half` of what was carried would be that rate."""

    rate: float
    half: float
    direct_p50: float
    direct_p99: float
    through_p50: float
    through_p99: float
    added_p50: float
    added_p99: float


def measure(ready: Install, bodies: Bodies, rounds: int, seconds: int) -> Latency:
    """Direct and through, in turns; what is added is the median of the rounds' differences."""
    there = ready.room.plain
    direct = post(matter.COMPLETIONS, bodies["question"])
    path = ready.path("plain", matter.COMPLETIONS)
    through = post(path, bodies["question"], ready.token_field)
    with running(ready.program) as server:
        load.run(through, server.port, 1)
        half = load.run(through, server.port, seconds).per_second / 2
        rate = min(half, MOST)
        ways = ((direct, there), (through, server.port))
        pairs = [
            [_percentiles(one, port, rate, seconds) for one, port in ways] for _ in range(rounds)
        ]
    middle = [statistics.median(one) for one in zip(*[a + b for a, b in pairs], strict=True)]
    added = [statistics.median(b[at] - a[at] for a, b in pairs) for at in (0, 1)]
    return Latency(rate, half, *middle, *added)


def _percentiles(one: Load, port: int, rate: float, seconds: int) -> tuple[float, float]:
    times = Paced(port, octets(one, port)).run(rate, seconds)
    return percentile(times, 0.5), percentile(times, 0.99)
