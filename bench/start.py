"""From the command to the first answer that was forwarded, and what the idle server takes."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from bench import matter
from bench.case import Bodies, Case, Expected, Site, post, verify
from bench.peers.keyrelay import Install
from bench.processes import resident
from bench.running import running

STARTS = 5
IDLE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Start:
    """Medians: seconds to the first answer, octets in memory two seconds later."""

    seconds: float
    idle: float


def measure(ready: Install, bodies: Bodies) -> Start:
    """Starts it several times, its files being in the kernel's memory already."""
    load = post(ready.path("plain", matter.COMPLETIONS), bodies["question"], ready.token_field)
    case = Case("first answer", load, Expected(body=matter.ANSWER))
    found = [_once(Site("keyrelay", ready.program, (case,)), case) for _ in range(STARTS)]
    return Start(*[statistics.median(one) for one in zip(*found, strict=True)])


def _once(site: Site, case: Case) -> tuple[float, int]:
    began = time.perf_counter()
    with running(site.program) as server:
        verify(site, case)
        took = time.perf_counter() - began
        time.sleep(IDLE_SECONDS)
        return took, resident(server.pid)
