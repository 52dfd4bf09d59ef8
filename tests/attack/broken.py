"""Transfers that break, by the hundred thousand, and answers that are bombs once inflated.

Both, and the upstream, are in this process, which is nice to the server; the kind caller has one of
its own. Found is also what `tests.attack.kind` says of it and of memory.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Final

from tests.attack import kind
from tests.attack.callers import (
    ALONE_SECONDS,
    LOOK_SECONDS,
    NICE,
    SETTLED_SECONDS,
    Ground,
    ground,
)
from tests.attack.kind import Bystander, bystander
from tests.attack.outcome import Outcome
from tests.attack.traffic import BROKEN, Act, Upstream, bomb, bombing

ABREAST: Final = 20
PATIENCE_SECONDS: Final = 100.0
"""Longer than an idle connection is kept on either side."""

SMALL_MEMORY: Final = "cache: {memory_bytes: 1 MiB}"
"""Soon full: what is kept in memory by right is no leak."""


async def work(here: Ground, acts: Sequence[Act], number: int, faults: list[str]) -> None:
    """So many, drawn from these."""
    for _ in range(number):
        act = random.choice(acts)
        try:
            await act(here)
        except (AssertionError, asyncio.IncompleteReadError, OSError) as error:
            faults.append(f"{act.__name__}: {type(error).__name__} {str(error)[:100]}")


async def at_once(here: Ground, acts: Sequence[Act], number: int) -> list[str]:
    """All of them, some beside each other; what went otherwise than it should."""
    faults: list[str] = []
    async with asyncio.TaskGroup() as group:
        for _ in range(min(ABREAST, number)):
            group.create_task(work(here, acts, number // min(ABREAST, number), faults))
    return faults


async def alone(beside: Bystander) -> float:
    """The p99 of a kind caller."""
    beside.begin()
    await asyncio.sleep(ALONE_SECONDS)
    return await beside.end()


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


async def attack(site: Site, name: str, acts: Sequence[Act], number: int) -> Outcome:
    """One row, with a caller beside it who is kind."""
    here, beside = site
    await at_once(here, acts, min(number, ABREAST * 10))  # what a first crowd leaves is left once
    before = await alone(beside)
    memory, handles = [here.resident()], await lasting(here)
    watching = asyncio.create_task(watch(here, memory))
    beside.begin()
    faults = await at_once(here, acts, number)
    meanwhile = await beside.end()
    watching.cancel()
    if (left := await settled(here, handles)) > handles:
        faults.append(f"{handles} handles before, {left} after")
    after = here.resident()
    faults += kind.broken_promises(before, meanwhile, memory[0], after)
    told = (
        f"p99 of the kind {before:.1f} ms alone, {meanwhile:.1f} beside {kind.WANTED_P99}; "
        f"{memory[0]:.0f} MiB before, {max(memory):.0f} at most, {after:.0f} after "
        f"{kind.WANTED_MEMORY}; {handles} handles before, {left} after"
    )
    return Outcome(name, number, "transfers", len(faults), told, tuple(faults[:5]))


Site = tuple[Ground, Bystander]


@asynccontextmanager
async def site(upstream: Upstream) -> AsyncIterator[Site]:
    """A server, and somebody who is kind to it."""
    async with ground(upstream, SMALL_MEMORY) as here, bystander(here.up.url, here.kind) as beside:
        yield here, beside


async def outcomes(transfers: int = 100_000, bombs: int = 1000) -> AsyncIterator[Outcome]:
    """Two rows."""
    async with site(Upstream()) as one, site(bombing()) as other:
        os.nice(NICE)  # after all that shall not be nice has begun
        yield await attack(one, "transfers broken on either side", BROKEN, transfers)
        yield await attack(other, "answers of 512 MiB in 0.5 MiB of gzip", [bomb], bombs)
