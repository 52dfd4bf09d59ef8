"""How many upstream calls each token with a budget has made in this month (UTC), and how many calls
in all each that may make so many."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from math import inf
from typing import Final, Protocol

from proxy.clock import Clock
from proxy.limits.notes import EVER, Counts

FLUSH_SECONDS: Final = 1.0
"""At most so much is lost in a crash."""


class Ledger(Protocol):
    """What keeps the counts across restarts. Neither call may fail, or wait for a disk."""

    async def spent(self, month: str) -> Mapping[str, int] | None:
        """The counts of a month such as 2026-11, or of EVER, by subject; None: they can't be read
        now."""
        ...

    def note(self, subject: str, month: str, calls: int) -> None:
        """Remembers so many calls more, or fewer, until the next `flush`."""
        ...

    async def flush(self) -> Counts:
        """Adds what was noted to what is written; what can't be written now is kept for later.

        Gives what it comes to with what others counted, and with what was noted since.
        """
        ...

    async def aclose(self) -> None:
        """Lets go of what was opened."""
        ...


class Budgets:
    """Counts in memory, and tells the ledger; takes up what is written there of this month first,
    and with everything that it writes what others have written."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._counts: dict[str, dict[str, int]] = {EVER: {}}
        self._month = ""
        self._taken_up: set[str] = set()
        self._begins = self._ends = 0.0
        self._news = asyncio.Event()
        self._stopping = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Takes up what the calls were until now, and begins to write down what is counted."""
        await self._take_up()
        self._writing = asyncio.create_task(self._write_forever(), name="keyrelay-budgets")

    async def stop(self) -> None:
        """Writes down the rest."""
        self._stopping.set()
        self._news.set()
        if self._writing is not None:
            await self._writing
        await self._write()
        await self._ledger.aclose()

    def spent(self, subject: str, ever: bool = False) -> int:
        """Calls of this month, or in all."""
        period = self.period(ever)  # which may begin with this
        return self._counts[period].get(subject, 0)

    def count(self, subject: str, calls: int = 1, ever: bool = False) -> None:
        """Counts a call, or with -1 takes one back."""
        period = self.period(ever)
        counts = self._counts[period]
        before = counts.get(subject, 0)
        total = counts[subject] = max(0, before + calls)
        self._ledger.note(subject, period, total - before)
        self._news.set()

    def is_of_now(self, taken: float | None, ever: bool = False) -> bool:
        """Whether what was taken at that time (monotonic; None: just now) counts in this month."""
        if ever:
            return True
        self._turn()
        age = 0.0 if taken is None else self._clock.monotonic() - taken
        return self._clock.now() - age >= self._begins

    def period(self, ever: bool = False) -> str:
        """The present month, such as 2026-11; or EVER."""
        if ever:
            return EVER
        self._turn()
        return self._month

    def left(self, ever: bool = False) -> float:
        """Seconds until the next month; what is counted in all begins at none no more."""
        if ever:
            return inf
        self._turn()
        return self._ends - self._clock.now()

    def _turn(self) -> None:
        """Goes on to another month, where it has begun; back, where the clock is put right."""
        now = self._clock.now()
        if not self._begins <= now < self._ends:
            self._month, self._begins, self._ends = month_of(now)
            self._taken_up &= {EVER}
            self._counts = {EVER: self._counts[EVER], self._month: {}}

    async def _take_up(self) -> None:
        """Adds what is written of this month and in all, once, to what has been counted since."""
        for period in (EVER, self.period()):
            if period in self._taken_up:
                continue
            written = await self._ledger.spent(period)
            counts = self._counts.get(period)
            if written is None or counts is None:
                return
            self._taken_up.add(period)
            for subject, count in written.items():
                counts[subject] = counts.get(subject, 0) + count

    async def _write(self) -> None:
        await self._take_up()
        if self._taken_up == {EVER, self.period()}:
            for (subject, period), total in (await self._ledger.flush()).items():
                if period in self._counts:
                    self._counts[period][subject] = total

    async def _write_forever(self) -> None:
        while not self._stopping.is_set():
            await self._news.wait()
            self._news.clear()
            await self._write()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), FLUSH_SECONDS)


def month_of(now: float) -> tuple[str, float, float]:
    """The calendar month of a time, such as 2026-11, when it began and when it ends; in UTC."""
    day = datetime.fromtimestamp(now, UTC)
    year, month = (day.year, day.month + 1) if day.month < 12 else (day.year + 1, 1)
    first, next_one = (
        datetime(*which, 1, tzinfo=UTC) for which in ((day.year, day.month), (year, month))
    )
    return f"{day:%Y-%m}", first.timestamp(), next_one.timestamp()
