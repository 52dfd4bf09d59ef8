"""Runs the cases in rounds, so that what disturbs the machine meets all servers alike."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench import load
from bench.case import Case, Site, verify
from bench.processes import cpu_seconds
from bench.running import BrokenError, Running
from bench.summary import Sample

WARM_SECONDS = 1
SETTLED_SECONDS = 0.02
SETTLE_STEP = 0.15
SETTLE_LIMIT = 4.0


@dataclass(frozen=True, slots=True)
class Stage:
    """A started server with its cases."""

    site: Site
    server: Running


@dataclass(frozen=True, slots=True)
class Measuring:
    """Seconds of a run, rounds, and the port that tells how many chunks were sent."""

    seconds: int
    rounds: int
    origin: int


def measure(
    stages: Sequence[Stage], how: Measuring, say: Callable[[str], None]
) -> Iterator[Sample]:
    """Every case once a round."""
    work = [one for stage in stages for one in _verified(stage, say)]
    for number in range(how.rounds):
        for stage, case in work:
            sample = _sample(stage, case, how)
            told = f"{sample.cpu:8.1f} us {sample.per_second:9.0f}/s"
            say(f"round {number + 1}  {sample.server:14} {sample.case:12} {told}")
            yield sample


def _verified(stage: Stage, say: Callable[[str], None]) -> Iterator[tuple[Stage, Case]]:
    for case in stage.site.cases:
        try:
            verify(stage.site, case)
        except BrokenError as broken:
            say(f"skipped {broken}")
        else:
            yield stage, case


def _sample(stage: Stage, case: Case, how: Measuring) -> Sample:
    port, pid = stage.server.port, stage.server.pid
    load.run(case.load, port, WARM_SECONDS)
    before, sent = settled(pid), chunks(how.origin, case)
    done = load.run(case.load, port, how.seconds * case.longer)
    spent = settled(pid) - before
    count = chunks(how.origin, case) - sent if case.chunks else done.requests
    per_second = count / (how.seconds * case.longer) if case.chunks else done.per_second
    failed = done.refused + done.broken
    cost = spent / count * 1e6 if count else 0.0
    return Sample(stage.site.name, case.name, cost, per_second, done.p50, done.p99, failed)


def settled(pid: int) -> float:
    """CPU seconds once the server is at rest: what it still writes belongs to its requests."""
    deadline = time.monotonic() + SETTLE_LIMIT
    now = cpu_seconds(pid)
    while time.monotonic() < deadline:
        time.sleep(SETTLE_STEP)
        before = now
        now = cpu_seconds(pid)
        if now - before <= SETTLED_SECONDS:
            break
    return now


def chunks(origin: int, case: Case) -> int:
    """How many chunks were sent so far, where the case counts them."""
    if not case.chunks:
        return 0
    connection = http.client.HTTPConnection("127.0.0.1", origin, timeout=30)
    try:
        connection.request("GET", "/count")
        return int(connection.getresponse().read())
    finally:
        connection.close()
