"""What a request costs, by whose processor time: keyrelay's, Redis's, PostgreSQL's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from bench import load
from bench.case import Bodies, Case, Site, verify
from bench.processes import with_ended
from bench.rounds import chunks
from bench.running import Running
from bench.scale import setups
from bench.scale.engines import Engine, connections
from bench.scale.setups import Ready

CONNECTIONS = 32
"""In all, however many instances there are."""

WARM_SECONDS = 1
REST_SECONDS = 0.3
RESTS = 10
RESTED_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Cost:
    """One round: microseconds of processor time a request (of `sse`: an event), by who spent it."""

    setup: str
    case: str
    keyrelay: float
    redis: float
    postgresql: float
    per_second: float
    failed: int


@dataclass(frozen=True, slots=True)
class Row:
    """Medians over the rounds; `spread`: the most less the least of keyrelay's, as a part."""

    setup: str
    case: str
    keyrelay: float
    redis: float
    postgresql: float
    per_second: float
    failed: int
    spread: float


@dataclass(frozen=True, slots=True)
class How:
    """Seconds of a run, the port of who counts events, and whose time is told beside."""

    seconds: int
    origin: int
    engines: tuple[Engine, Engine]
    opened: dict[str, dict[str, int]] = field(default_factory=dict)
    """By setup: the connections to each engine after its last case; filled while it goes on."""


def measure(ready: Ready, bodies: Bodies, how: How, say: Callable[[str], None]) -> list[Cost]:
    """Every case once, on servers that have just been started; nobody else runs meanwhile."""
    found = []
    with ready.running() as servers:
        for case in ready.cases(bodies):
            for install in ready.installs:
                verify(Site(ready.setup.name, install.program, (case,)), case)
            cost = _cost(ready.setup.name, case, servers, how)
            told = f"{cost.keyrelay:8.1f} {cost.redis:7.1f} {cost.postgresql:7.1f} us"
            say(f"{cost.setup:20} {cost.case:8} {told} {cost.per_second:9.0f}/s {cost.failed}")
            found.append(cost)
        if ready.setup.engines:
            database = setups.database_of(ready.setup)
            how.opened[ready.setup.name] = connections(*how.engines, database)
    return found


def _cost(setup: str, case: Case, servers: Sequence[Running], how: How) -> Cost:
    who = {"keyrelay": [server.pid for server in servers]}
    who |= {engine.name: [engine.pid] for engine in how.engines}
    _load(case, servers, WARM_SECONDS)
    before, sent = _rested(who), chunks(how.origin, case)
    done = _load(case, servers, how.seconds)
    spent = _rested(who)
    count = chunks(how.origin, case) - sent if case.chunks else sum(one.requests for one in done)
    each = {name: (spent[name] - before[name]) / count * 1e6 for name in who}
    failed = sum(one.refused + one.broken for one in done)
    return Cost(setup, case.name, **each, per_second=count / how.seconds, failed=failed)


def _load(case: Case, servers: Sequence[Running], seconds: int) -> list[load.Loaded]:
    """All instances at once, each with its share of the connections."""
    mine = replace(case.load, connections=max(1, CONNECTIONS // len(servers)))
    with ThreadPoolExecutor(len(servers)) as pool:
        ways = [pool.submit(load.run, mine, server.port, seconds) for server in servers]
        return [way.result() for way in ways]


def _rested(who: Mapping[str, Iterable[int]]) -> dict[str, float]:
    """CPU seconds of each once all are at rest: what they still write belongs to its requests."""
    now = _spent(who)
    for _ in range(RESTS):
        time.sleep(REST_SECONDS)
        before, now = now, _spent(who)
        if sum(now.values()) - sum(before.values()) <= RESTED_SECONDS:
            break
    return now


def _spent(who: Mapping[str, Iterable[int]]) -> dict[str, float]:
    return {name: sum(map(with_ended, pids)) for name, pids in who.items()}


def summarise(costs: Iterable[Cost]) -> list[Row]:
    """One row for each setup and case, in the order in which they first came."""
    groups: dict[tuple[str, str], list[Cost]] = {}
    for one in costs:
        groups.setdefault((one.setup, one.case), []).append(one)
    return [_row(group) for group in groups.values()]


def _row(group: Sequence[Cost]) -> Row:
    middle = {
        name: statistics.median(getattr(one, name) for one in group)
        for name in ("keyrelay", "redis", "postgresql", "per_second")
    }
    own = [one.keyrelay for one in group]
    spread = (max(own) - min(own)) / middle["keyrelay"]
    failed = sum(one.failed for one in group)
    return Row(group[0].setup, group[0].case, **middle, failed=failed, spread=spread)
