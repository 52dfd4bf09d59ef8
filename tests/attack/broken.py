"""Transfers that break, by the hundred thousand, and answers that are bombs once inflated."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from time import monotonic
from typing import Final

from tests.attack.callers import ALONE_SECONDS, SETTLED_SECONDS, Ground, be_kind, ground, p99
from tests.attack.outcome import Outcome
from tests.attack.traffic import BROKEN, Act, bomb, bombing

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


async def kind_for(here: Ground, seconds: float) -> list[float]:
    """Milliseconds of each call of a kind caller alone."""
    done = asyncio.Event()
    kind = asyncio.create_task(be_kind(here, done, []))
    await asyncio.sleep(seconds)
    done.set()
    return await kind


async def lasting(here: Ground) -> int:
    """Handles that are there for a second: a lock on a file is one for a moment."""
    looks = []
    for _ in range(10):
        looks.append(here.handles())
        await asyncio.sleep(0.1)
    return min(looks)


async def attack(here: Ground, name: str, acts: Sequence[Act], number: int) -> Outcome:
    """One row, with a caller beside it who is kind."""
    await at_once(here, acts, min(number, ABREAST * 10))  # what a first crowd leaves is left once
    alone = p99(await kind_for(here, ALONE_SECONDS))
    memory, handles, done = [here.resident()], await lasting(here), asyncio.Event()
    kind = asyncio.create_task(be_kind(here, done, memory))
    faults = await at_once(here, acts, number)
    done.set()
    beside, until = p99(await kind), monotonic() + PATIENCE_SECONDS
    while await lasting(here) > handles and monotonic() < until:
        pass
    await asyncio.sleep(SETTLED_SECONDS)
    if (after := await lasting(here)) > handles:
        faults.append(f"{handles} handles before, {after} after")
    told = (
        f"p99 of the kind {alone:.1f} ms alone, {beside:.1f} beside; {memory[0]:.0f} MiB before, "
        f"{max(memory):.0f} at most, {here.resident():.0f} after; "
        f"{handles} handles before, {after} after"
    )
    return Outcome(name, number, "transfers", len(faults), told, tuple(faults[:5]))


async def outcomes(transfers: int = 100_000, bombs: int = 1000) -> AsyncIterator[Outcome]:
    """Two rows."""
    async with ground(bombing(), SMALL_MEMORY) as here:
        yield await attack(here, "transfers broken on either side", BROKEN, transfers)
        yield await attack(here, "answers of 512 MiB in 0.5 MiB of gzip", [bomb], bombs)
