"""Transfers that break, by the hundred thousand, and answers that are bombs once inflated.

The kind caller is alone for a while; then they come for as long, as from many who don't know of
each other: at random moments, so many a second; and so on in turn, since others may use the
machine. Its p99 is that of all its calls beside them, and of all alone. This process, with the
upstream, runs only when no other wants the core; the kind caller has a process of its own.

Found is each transfer that went otherwise than it should or came late, what of a turn is left open
on either side, handles that stay, and what `tests.attack.kind` says of p99 and of memory.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from time import monotonic
from typing import Final, NamedTuple

from tests.attack import kind
from tests.attack.callers import LOOK_SECONDS, SETTLED_SECONDS, Ground, ground
from tests.attack.kind import Bystander, bystander, p99
from tests.attack.outcome import Outcome
from tests.attack.traffic import (
    BROKEN,
    Act,
    Upstream,
    bomb,
    bombing,
    forward,
    large,
    miss,
    stream,
)

ABREAST: Final = 100
"""At most so many at once, however slow the server is."""

TURN_SECONDS: Final = 20.0
PAUSE_SECONDS: Final = 1.0
"""Once a turn is closed: what the last of its transfers left to do is nobody's fault but theirs."""

ENDED_SECONDS: Final = 20.0
"""So long one transfer may take, from its connection to its end, on a busy machine."""

CLOSED_SECONDS: Final = 5.0
"""So long after a turn's last transfer something of it may be open, on either side."""

LATE_SECONDS: Final = 5.0
"""So long after its moment one may come: later, they are fewer a second than they should be."""

ORDINARY: Final = (miss, forward, stream)
ORDINARY_RATE: Final = 100.0
"""Whole calls, and how many a second, before anything is measured: a server that has been at work
has filled what has a bound, such as the pages that each connection to a database holds."""

PATIENCE_SECONDS: Final = 100.0
"""Longer than an idle connection is kept on either side."""

SMALL_MEMORY: Final = "cache: {memory_bytes: 1 MiB}"
"""Soon full: what is kept in memory by right is no leak."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """What it does, how often in all, and in a second. `judged`: whether the kind caller's p99
    beside it is, or only told."""

    acts: Sequence[Act]
    number: int
    rate: float
    judged: bool = True

    @property
    def turns(self) -> list[int]:
        """How many come in each."""
        turn = max(int(self.rate * TURN_SECONDS), 1)
        return [min(turn, self.number - begun) for begun in range(0, self.number, turn)]


@dataclass
class Side:
    """One of the two that take turns, alone or beside: milliseconds of the kind caller's calls,
    turn by turn; seconds of all turns, and those of a core that the server took in them."""

    turns: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0
    cpu: float = 0.0

    @property
    def p99(self) -> float:
        """Of all calls of all turns."""
        return p99(list(chain(*self.turns)))

    @property
    def worst(self) -> float:
        """The p99 of the worst turn."""
        return max(map(p99, self.turns))

    @property
    def share(self) -> str:
        """Of one core."""
        return f"{self.cpu / self.seconds:.0%}"

    @property
    def told(self) -> str:
        """In words."""
        calls, first = sum(map(len, self.turns)), p99(self.turns[0])
        return (
            f"{self.p99:.1f} ms ({calls:,} calls; first turn {first:.1f}, worst {self.worst:.1f})"
        )


class Site(NamedTuple):
    """A server, somebody who is kind to it, and who answers."""

    here: Ground
    kind: Bystander
    upstream: Upstream


async def one_of(here: Ground, acts: Sequence[Act], faults: list[str]) -> None:
    """Drawn from these; what went otherwise than it should is told."""
    act = random.choice(acts)
    try:
        async with asyncio.timeout(ENDED_SECONDS):
            await act(here)
    except (AssertionError, asyncio.IncompleteReadError, OSError) as error:
        faults.append(f"{act.__name__}: {type(error).__name__} {str(error)[:100]}")


async def arriving(here: Ground, acts: Sequence[Act], number: int, rate: float) -> list[str]:
    """So many, at random moments, so many a second; what went otherwise than it should."""
    faults: list[str] = []
    due, late, places = monotonic(), 0.0, asyncio.Semaphore(ABREAST)
    async with asyncio.TaskGroup() as group:
        for _ in range(number):
            due += random.expovariate(rate)
            await asyncio.sleep(max(due - monotonic(), 0.0))
            await places.acquire()
            late = max(late, monotonic() - due)
            task = group.create_task(one_of(here, acts, faults))
            task.add_done_callback(lambda _: places.release())
    return faults if late <= LATE_SECONDS else [*faults, f"one came {late:.1f} s late"]


async def turn(site: Site, side: Side, work: Awaitable[object]) -> None:
    """Some work, with the kind caller beside it."""
    began, cpu = monotonic(), site.here.cpu()
    site.kind.begin()
    await work
    side.turns.append(await site.kind.end())
    side.seconds += monotonic() - began
    side.cpu += site.here.cpu() - cpu


async def closed(site: Site) -> float:
    """Seconds until nothing is open: no caller's connection, no answer of the upstream's."""
    began = monotonic()
    while site.upstream.answering or await site.here.connections() > 0:
        if monotonic() - began > PATIENCE_SECONDS:
            break
        await asyncio.sleep(0.05)
    return monotonic() - began


async def by_turns(site: Site, crowd: Crowd) -> tuple[Side, Side, list[float], list[str]]:
    """The kind caller alone, and beside this crowd; seconds until each turn of the crowd was
    closed; what of the crowd's went otherwise."""
    alone, beside, open_for, faults = Side(), Side(), [], []
    for number in crowd.turns:
        await turn(site, alone, asyncio.sleep(number / crowd.rate))
        transfers = asyncio.ensure_future(arriving(site.here, crowd.acts, number, crowd.rate))
        await turn(site, beside, transfers)
        faults += await transfers
        open_for.append(await closed(site))
        await asyncio.sleep(PAUSE_SECONDS)
    return alone, beside, open_for, faults


async def watch(here: Ground, memory: list[float]) -> None:
    """Without end."""
    while True:
        memory.append(here.resident())
        await asyncio.sleep(LOOK_SECONDS)


async def lasting(here: Ground) -> int:
    """Handles that are there for a second: a lock on a file is one for a moment."""
    looks = []
    for _ in range(10):
        looks.append(here.handles())
        await asyncio.sleep(0.1)
    return min(looks)


async def settled(here: Ground, handles: int) -> int:
    """Handles that are left once everybody may have gone."""
    until = monotonic() + PATIENCE_SECONDS
    while await lasting(here) > handles and monotonic() < until:
        pass
    await asyncio.sleep(SETTLED_SECONDS)
    return await lasting(here)


def judged(
    crowd: Crowd, alone: Side, beside: Side, open_for: Sequence[float]
) -> tuple[str, list[str]]:
    """What is told of the kind caller's turns and the crowd's, and what is wrong, in words."""
    wrong = kind.slowed_down(alone.p99, beside.p99) if crowd.judged else []
    if max(open_for) > CLOSED_SECONDS:
        wrong.append(
            f"open for {max(open_for):.1f} s after the last (wanted: {CLOSED_SECONDS:.0f})"
        )
    wanted = kind.WANTED_P99 if crowd.judged else "(told, not judged)"
    told = (
        f"{crowd.number / beside.seconds:.1f} a second; closed {max(open_for):.1f} s after the "
        f"last of a turn at most (wanted: {CLOSED_SECONDS:.0f}); p99 of the kind {alone.told} "
        f"alone, {beside.told} beside {wanted}; the server took {alone.share} of a core alone, "
        f"{beside.share} beside"
    )
    return told, wrong


async def attack(site: Site, name: str, crowd: Crowd) -> Outcome:
    """One row, with a caller beside it who is kind."""
    here = site.here
    memory, handles = [here.resident()], await lasting(here)
    watching = asyncio.create_task(watch(here, memory))
    alone, beside, open_for, faults = await by_turns(site, crowd)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    if (left := await settled(here, handles)) > handles:
        faults.append(f"{handles} handles before, {left} after")
    after = here.resident()
    told, wrong = judged(crowd, alone, beside, open_for)
    faults += [*wrong, *kind.swollen(memory[0], after)]
    told += (
        f"; {memory[0]:.0f} MiB before, {max(memory):.0f} at most, {after:.0f} after "
        f"{kind.WANTED_MEMORY}; {handles} handles before, {left} after"
    )
    return Outcome(name, crowd.number, "transfers", len(faults), told, tuple(faults[:5]))


async def warm_up(here: Ground, calls: int, quiet: float) -> None:
    """So many ordinary calls, and some seconds of rest."""
    assert await arriving(here, ORDINARY, calls, ORDINARY_RATE) == []
    await large(here)  # opens the connection by which the cache is read
    await asyncio.sleep(quiet)


@asynccontextmanager
async def site(upstream: Upstream) -> AsyncIterator[Site]:
    """Its server has only just started."""
    async with ground(upstream, SMALL_MEMORY) as here, bystander(here.up.url, here.kind) as one:
        yield Site(here, one, upstream)


async def outcomes(
    transfers: int = 100_000,
    bombs: int = 1000,
    flood: int = 100_000,
    ordinary: int = 5000,
    quiet: float = PATIENCE_SECONDS,
) -> AsyncIterator[Outcome]:
    """Three rows, but for those of none. `flood`: so many more transfers, at a rate beside which
    others wait; `ordinary` calls before, and seconds of quiet."""
    async with site(Upstream()) as one, site(bombing()) as other:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # what has begun before is not
        await asyncio.gather(*(warm_up(each.here, ordinary, quiet) for each in (one, other)))
        for whose, name, crowd in (
            (one, "transfers broken on either side", Crowd(BROKEN, transfers, 50)),
            (other, "answers of 512 MiB in 0.5 MiB of gzip", Crowd([bomb], bombs, 5)),
            (one, "a flood of transfers broken on either side", Crowd(BROKEN, flood, 400, False)),
        ):
            if crowd.number:
                yield await attack(whose, name, crowd)
