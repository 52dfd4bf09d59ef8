"""How many upstream calls each token with a budget has made in this month (UTC)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, Protocol

from proxy.clock import Clock
from proxy.limits.notes import Counts

FLUSH_SECONDS: Final = 1.0
"""At most so much is lost in a crash."""


class Ledger(Protocol):
    """What keeps the counts across restarts. Neither call may fail, or wait for a disk."""

    async def spent(self, month: str) -> Mapping[str, int] | None:
        """The counts of a month such as 2026-11, by subject; None: they can't be read now."""
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
        self._counts: dict[str, int] = {}
        self._month = ""
        self._taken_up = ""
        self._begins = self._ends = 0.0
        self._news = asyncio.Event()
        self._stopping = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Takes up what this month's calls were, and begins to write down what is counted."""
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

    def spent(self, subject: str) -> int:
        """Calls of this month."""
        self._turn()
        return self._counts.get(subject, 0)

    def count(self, subject: str, calls: int = 1) -> None:
        """Counts a call, or with -1 takes one back."""
        before = self.spent(subject)
        total = self._counts[subject] = max(0, before + calls)
        self._ledger.note(subject, self._month, total - before)
        self._news.set()

    def is_of_now(self, taken: float | None) -> bool:
        """Whether what was taken at that time (monotonic; None: just now) counts in this month."""
        self._turn()
        age = 0.0 if taken is None else self._clock.monotonic() - taken
        return self._clock.now() - age >= self._begins

    @property
    def month(self) -> str:
        """The present one, such as 2026-11."""
        self._turn()
        return self._month

    def left(self) -> float:
        """Seconds until the next month."""
        self._turn()
        return self._ends - self._clock.now()

    def _turn(self) -> None:
        """Goes on to another month, where it has begun; back, where the clock is put right."""
        now = self._clock.now()
        if not self._begins <= now < self._ends:
            self._month, self._begins, self._ends = month_of(now)
            self._taken_up, self._counts = "", {}

    async def _take_up(self) -> None:
        """Adds what is written of this month, once, to what has been counted since."""
        self._turn()
        month = self._month
        if month == self._taken_up:
            return
        written = await self._ledger.spent(month)
        if written is None or month != self._month:
            return
        self._taken_up = month
        for subject, count in written.items():
            self._counts[subject] = self._counts.get(subject, 0) + count

    async def _write(self) -> None:
        await self._take_up()
        if self._taken_up:
            for (subject, month), total in (await self._ledger.flush()).items():
                if month == self._month:
                    self._counts[subject] = total

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
