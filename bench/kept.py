"""Whether misses under load are really stored: a miss that forgets is cheap."""

from __future__ import annotations

from dataclasses import dataclass

from bench import load
from bench.case import Bodies
from bench.peers.keyrelay import Install, answers_kept, miss
from bench.rounds import settled
from bench.running import running


@dataclass(frozen=True, slots=True)
class Kept:
    """Requests that asked to be kept, and answers that the cache's database had afterwards."""

    asked: int
    kept: int


def measure(ready: Install, bodies: Bodies, seconds: int) -> Kept:
    """Every request is another one; the count is made once the server has come to rest."""
    case = miss(ready, bodies)
    with running(ready.program) as server:
        before = answers_kept(ready)
        done = load.run(case.load, server.port, seconds)
        settled(server.pid)
    more = answers_kept(ready) - before  # also those whose caller had gone when wrk stopped
    return Kept(done.requests, min(more, done.requests))
