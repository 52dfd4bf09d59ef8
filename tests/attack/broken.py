"""Transfers that break, by the hundred thousand, and answers that are bombs once inflated.

They come as from many who don't know of each other: at random moments, so many a second. First a
flood, beside which the kind caller's p99 is told and not judged; then, at a rate that leaves the
server's core idle most of the time, the others, which are judged. This process, with the upstream,
runs only when no other wants the core; the kind caller has a process of its own. Its p99 is the
median of those of ten seconds each: others may use the machine. Found is also what
`tests.attack.kind` says of it and of memory.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median
from time import monotonic
from typing import Final, TypeVar

from tests.attack import kind
from tests.attack.callers import (
    LOOK_SECONDS,
    SETTLED_SECONDS,
    Ground,
    ground,
)
from tests.attack.kind import Bystander, bystander
from tests.attack.outcome import Outcome
from tests.attack.traffic import BROKEN, Act, Upstream, bomb, bombing

ABREAST: Final = 100
"""At most so many at once, however slow the server is."""

FIRST: Final = 0.4
"""That part comes as a flood, before memory is measured: it fills what has a bound, such as the
pages that each connection to a database holds, and is no leak."""

AFTERWARDS_SECONDS: Final = 5.0
"""From the flood to the kind caller's calls alone."""

WINDOW_SECONDS: Final = 10.0
ALONE_SECONDS: Final = 3.5 * WINDOW_SECONDS

PATIENCE_SECONDS: Final = 100.0
"""Longer than an idle connection is kept on either side."""

SMALL_MEMORY: Final = "cache: {memory_bytes: 1 MiB}"
"""Soon full: what is kept in memory by right is no leak."""


@dataclass(frozen=True)
class Crowd:
    """What it does, how often in all, and in a second; `flood`: how often in a second at first."""

    acts: Sequence[Act]
    number: int
    rate: float
    flood: float


Site = tuple[Ground, Bystander]
T = TypeVar("T")


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


async def usual(beside: Bystander, work: Awaitable[T]) -> tuple[T, float]:
    """What comes of some work; the p99 of the kind caller beside it."""
    working, took = asyncio.ensure_future(work), []
    while not working.done():
        beside.begin()
        await asyncio.wait([working], timeout=WINDOW_SECONDS)
        took.append(await beside.end())
    return await working, median(took[:-1] or took)  # the last one is cut short


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


async def attack(site: Site, name: str, crowd: Crowd) -> Outcome:
    """One row, with a caller beside it who is kind."""
    here, beside = site
    first = int(crowd.number * FIRST)
    faults, flooded = await usual(beside, arriving(here, crowd.acts, first, crowd.flood))
    await asyncio.sleep(AFTERWARDS_SECONDS)
    _, before = await usual(beside, asyncio.sleep(ALONE_SECONDS))
    memory, handles = [here.resident()], await lasting(here)
    watching = asyncio.create_task(watch(here, memory))
    work = arriving(here, crowd.acts, crowd.number - first, crowd.rate)
    more, meanwhile = await usual(beside, work)
    faults += more
    watching.cancel()
    if (left := await settled(here, handles)) > handles:
        faults.append(f"{handles} handles before, {left} after")
    after = here.resident()
    faults += kind.broken_promises(before, meanwhile, memory[0], after)
    told = (
        f"p99 of the kind {before:.1f} ms alone, {meanwhile:.1f} beside {crowd.rate:.0f} of them "
        f"a second {kind.WANTED_P99}, {flooded:.1f} beside {crowd.flood:.0f}; "
        f"{memory[0]:.0f} MiB before, {max(memory):.0f} at most, {after:.0f} after "
        f"{kind.WANTED_MEMORY}; {handles} handles before, {left} after"
    )
    return Outcome(name, crowd.number, "transfers", len(faults), told, tuple(faults[:5]))


@asynccontextmanager
async def site(upstream: Upstream) -> AsyncIterator[Site]:
    """A server, and somebody who is kind to it."""
    async with ground(upstream, SMALL_MEMORY) as here, bystander(here.up.url, here.kind) as beside:
        yield here, beside


async def outcomes(transfers: int = 100_000, bombs: int = 1000) -> AsyncIterator[Outcome]:
    """Two rows."""
    async with site(Upstream()) as one, site(bombing()) as other:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # what has begun before is not
        breaking = Crowd(BROKEN, transfers, 50, flood=400)
        yield await attack(one, "transfers broken on either side", breaking)
        blowing_up = Crowd([bomb], bombs, 5, flood=25)
        yield await attack(other, "answers of 512 MiB in 0.5 MiB of gzip", blowing_up)
