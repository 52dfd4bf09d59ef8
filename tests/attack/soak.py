"""Mixed traffic for as long as one likes, whole and broken, with an admin at work: is it flat?

    python -m tests.attack.soak 3600        `make soak`; an hour

Memory and handles of the server are sampled all the time. The verdict is made for noisy machines:
only what goes on growing is a leak, not what a crowd leaves once.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from statistics import fmean, median
from time import monotonic
from typing import Final, NamedTuple

from tests.attack.callers import Ground, ground
from tests.attack.outcome import Outcome
from tests.attack.traffic import MIXED, Upstream, reload, revoke

WORKERS: Final = 6
ADMIN_SECONDS: Final = 2.0
"""Between two acts of the admin."""

SAMPLES: Final = 600
QUIET_SECONDS: Final = 100.0
"""Longer than an idle connection is kept on either side."""

SETTINGS: Final = "cache: {memory_bytes: 8MiB, disk_bytes: 64MiB}\n"
"""Small, so that both are full soon: what they hold is no leak."""

AN_HOUR_TOLD: Final = 300.0
"""Seconds from which on a run tells what an hour would bring; a shorter one is all beginning."""

GROWTH: Final = 1.25
GROWTH_MIB: Final = 20.0
HANDLES: Final = 20


class Sample(NamedTuple):
    """At one moment, in seconds from the start: resident MiB, and open files and sockets."""

    at: float
    memory: float
    handles: int


class Verdict(NamedTuple):
    """MiB in the second and in the last fifth (medians), the slope over the last four, and what
    is wrong in words."""

    early: float
    late: float
    slope: float
    faults: tuple[str, ...]


def judge(samples: Sequence[Sample], rest: Sample) -> Verdict:
    """Of a whole run; the first is before the load, `rest` after it has ended."""
    fifth = max(len(samples) // 5, 1)
    early = median(one.memory for one in samples[fifth : 2 * fifth] or samples)
    late = median(one.memory for one in samples[-fifth:])
    slope = slope_of(samples[fifth:]) * 3600
    faults = []
    if late > early * GROWTH + GROWTH_MIB:
        faults.append(f"memory grows: {early:.0f} MiB early, {late:.0f} late")
    if rest.handles > samples[0].handles + HANDLES:
        faults.append(f"handles stay: {samples[0].handles} before, {rest.handles} after")
    return Verdict(early, late, slope, tuple(faults))


def slope_of(samples: Sequence[Sample]) -> float:
    """MiB in a second, by least squares."""
    if len(samples) < 2:
        return 0.0
    middle, level = fmean(one.at for one in samples), fmean(one.memory for one in samples)
    spread = sum((one.at - middle) ** 2 for one in samples)
    return sum((one.at - middle) * (one.memory - level) for one in samples) / spread


class Soak:
    """The load on one server, and what is seen of it."""

    def __init__(self, here: Ground, seconds: float, quiet: float = QUIET_SECONDS) -> None:
        self._here = here
        self._seconds = seconds
        self._quiet_seconds = quiet
        self._began = monotonic()
        self.samples: list[Sample] = []
        self.done: Counter[str] = Counter()

    def sample(self) -> Sample:
        """Now."""
        return Sample(monotonic() - self._began, self._here.resident(), self._here.handles())

    async def go(self) -> Sample:
        """All of it; how it is once everybody has gone."""
        self.samples.append(self.sample())
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._call())
            group.create_task(self._administer())
            group.create_task(self._look())
        return await self._quiet()

    @property
    def _over(self) -> bool:
        return monotonic() - self._began >= self._seconds

    async def _call(self) -> None:
        acts, weights = list(MIXED), list(MIXED.values())
        while not self._over:
            [act] = random.choices(acts, weights)
            await act(self._here)
            self.done[act.__name__] += 1

    async def _administer(self) -> None:
        while not self._over:
            for act in (revoke, reload):
                await act(self._here)
                self.done[act.__name__] += 1
                await asyncio.sleep(min(ADMIN_SECONDS, self._seconds / 10))

    async def _look(self) -> None:
        while not self._over:
            await asyncio.sleep(max(self._seconds / SAMPLES, 0.2))
            self.samples.append(self.sample())

    async def _quiet(self) -> Sample:
        """Waits for what is closed late, no longer than that may take."""
        until = monotonic() + self._quiet_seconds
        while (now := self.sample()).handles > self.samples[0].handles and monotonic() < until:
            await asyncio.sleep(0.5)
        return now


async def outcomes(seconds: float = 600.0) -> AsyncIterator[Outcome]:
    """One row."""
    async with ground(Upstream(), SETTINGS) as here:
        yield await soaked(Soak(here, seconds), f"soak of {seconds:,.0f} s")


async def soaked(soak: Soak, name: str) -> Outcome:
    """What comes of it."""
    rest = await soak.go()
    found = judge(soak.samples, rest)
    slope = f" ({found.slope:+.1f} MiB/h)" if rest.at >= AN_HOUR_TOLD else ""
    told = (
        f"{found.early:.0f} MiB early, {found.late:.0f} late{slope}; "
        f"{soak.samples[0].handles} handles before, {rest.handles} after; "
        f"{soak.done['revoke']} tokens revoked, {soak.done['reload']} reloads"
    )
    calls = soak.done.total()
    return Outcome(name, calls, "mixed calls", len(found.faults), told, found.faults)


async def main(seconds: float) -> int:
    """1 where it is not flat."""
    bad = 0
    async for one in outcomes(seconds):
        print(f"{one.attack}: {one.count:,} {one.acts}; {one.told}")
        print("\n".join(one.faults) or "flat", flush=True)
        bad += one.found
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(asyncio.run(main(float(sys.argv[1]))))
