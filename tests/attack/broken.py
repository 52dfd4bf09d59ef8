"""Transfers that break, by the hundred thousand, and answers that are bombs once inflated.

They come as from many who don't know of each other: at random moments, so many a second, for a
while; then the kind caller is alone for as long; and so on in turn, since others may use the
machine. Its p99 is that of all its calls beside them, and of all alone. This process, with the
upstream, runs only when no other wants the core; the kind caller has a process of its own.

Found is each transfer that went otherwise than it should, handles that stay, fewer a second than
were asked for, and what `tests.attack.kind` says of p99 and of memory.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain
from time import monotonic
from typing import Final

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
"""After the transfers of a turn: what the last of them left to do is nobody's fault but theirs."""

ORDINARY: Final = (miss, forward, stream)
ORDINARY_RATE: Final = 100.0
"""Whole calls, and how many a second, before anything is measured: a server that has been at work
has filled what has a bound, such as the pages that each connection to a database holds."""

REACHED: Final = 0.9
"""Of the rate that was asked for."""

PATIENCE_SECONDS: Final = 100.0
"""Longer than an idle connection is kept on either side."""

SMALL_MEMORY: Final = "cache: {memory_bytes: 1 MiB}"
"""Soon full: what is kept in memory by right is no leak."""


@dataclass(frozen=True)
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
        calls = sum(map(len, self.turns))
        return f"{self.p99:.1f} ms ({calls:,} calls, worst turn {self.worst:.1f})"


Site = tuple[Ground, Bystander]


async def one_of(here: Ground, acts: Sequence[Act], faults: list[str]) -> None:
    """Drawn from these; what went otherwise than it should is told."""
    act = random.choice(acts)
    try:
        await act(here)
    except (AssertionError, asyncio.IncompleteReadError, OSError) as error:
        faults.append(f"{act.__name__}: {type(error).__name__} {str(error)[:100]}")


async def arriving(here: Ground, acts: Sequence[Act], number: int, rate: float) -> list[str]:
    """So many, at random moments, so many a second; what went otherwise than it should."""
    faults: list[str] = []
    due, places = monotonic(), asyncio.Semaphore(ABREAST)
    async with asyncio.TaskGroup() as group:
        for _ in range(number):
            due += random.expovariate(rate)
            await asyncio.sleep(max(due - monotonic(), 0.0))
            await places.acquire()
            task = group.create_task(one_of(here, acts, faults))
            task.add_done_callback(lambda _: places.release())
    return faults


async def turn(site: Site, side: Side, work: Awaitable[object]) -> None:
    """Some work, with the kind caller beside it."""
    here, beside = site
    began, cpu = monotonic(), here.cpu()
    beside.begin()
    await work
    side.turns.append(await beside.end())
    side.seconds += monotonic() - began
    side.cpu += here.cpu() - cpu


async def by_turns(site: Site, crowd: Crowd) -> tuple[Side, Side, list[str]]:
    """The kind caller alone, and beside this crowd; what of the crowd's went otherwise."""
    alone, beside, faults = Side(), Side(), []
    for number in crowd.turns:
        transfers = asyncio.ensure_future(arriving(site[0], crowd.acts, number, crowd.rate))
        await turn(site, beside, transfers)
        faults += await transfers
        await asyncio.sleep(PAUSE_SECONDS)
        await turn(site, alone, asyncio.sleep(number / crowd.rate))
    return alone, beside, faults


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


def shortcomings(crowd: Crowd, alone: Side, beside: Side) -> tuple[str, list[str]]:
    """Of a crowd that took turns with nobody, what is told, and what is wrong in words."""
    rate = crowd.number / beside.seconds
    wrong = []
    if rate < REACHED * crowd.rate:
        wrong.append(f"{rate:.1f} a second came, {crowd.rate:.0f} were asked for")
    if crowd.judged:
        wrong += kind.slowed_down(alone.p99, beside.p99)
    wanted = kind.WANTED_P99 if crowd.judged else "(told, not judged)"
    told = (
        f"{rate:.1f} a second; p99 of the kind {alone.told} alone, {beside.told} beside {wanted}; "
        f"the server took {alone.share} of a core alone, {beside.share} beside"
    )
    return told, wrong


async def attack(site: Site, name: str, crowd: Crowd) -> Outcome:
    """One row, with a caller beside it who is kind."""
    here, _ = site
    memory, handles = [here.resident()], await lasting(here)
    watching = asyncio.create_task(watch(here, memory))
    alone, beside, faults = await by_turns(site, crowd)
    watching.cancel()
    if (left := await settled(here, handles)) > handles:
        faults.append(f"{handles} handles before, {left} after")
    after = here.resident()
    told, wrong = shortcomings(crowd, alone, beside)
    faults += [*wrong, *kind.swollen(memory[0], after)]
    told += (
        f"; {memory[0]:.0f} MiB before, {max(memory):.0f} at most, {after:.0f} after "
        f"{kind.WANTED_MEMORY}; {handles} handles before, {left} after"
    )
    return Outcome(name, crowd.number, "transfers", len(faults), told, tuple(faults[:5]))


async def work(here: Ground, calls: int, quiet: float) -> None:
    """So many ordinary calls, and some seconds of rest."""
    assert await arriving(here, ORDINARY, calls, ORDINARY_RATE) == []
    await large(here)  # opens the connection by which the cache is read
    await asyncio.sleep(quiet)


@asynccontextmanager
async def site(upstream: Upstream) -> AsyncIterator[Site]:
    """A server, and somebody who is kind to it."""
    async with ground(upstream, SMALL_MEMORY) as here, bystander(here.up.url, here.kind) as beside:
        yield here, beside


async def outcomes(
    transfers: int = 100_000,
    bombs: int = 1000,
    flood: int = 20_000,
    ordinary: int = 5000,
    quiet: float = PATIENCE_SECONDS,
) -> AsyncIterator[Outcome]:
    """Three rows. `flood`: so many more transfers, at a rate beside which others wait; `ordinary`
    calls before, and seconds of quiet."""
    async with site(Upstream()) as one, site(bombing()) as other:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # what has begun before is not
        await asyncio.gather(*(work(here, ordinary, quiet) for here, _ in (one, other)))
        breaking = Crowd(BROKEN, transfers, 50)
        yield await attack(one, "transfers broken on either side", breaking)
        blowing_up = Crowd([bomb], bombs, 5)
        yield await attack(other, "answers of 512 MiB in 0.5 MiB of gzip", blowing_up)
        flooding = Crowd(BROKEN, flood, 400, judged=False)
        yield await attack(one, "a flood of transfers broken on either side", flooding)
