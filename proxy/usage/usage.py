"""Takes calls in, and writes them down together, off their way: what they wait for is one append.

At most half a second of calls is in memory only. What can't be written is kept and tried again,
what is more than memory should hold is counted as lost. Neither is felt by a call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Final, TypeVar

from proxy.clock import Clock
from proxy.record import CallRecord, Meter, Tokens
from proxy.usage.latency import bucket
from proxy.usage.prices import Prices
from proxy.usage.steady import SteadyTime
from proxy.usage.store import (
    DAY,
    CallRow,
    Keep,
    Order,
    Part,
    Trouble,
    UsageError,
    UsageStore,
    UsageTooNew,
    Which,
)
from proxy.usage.sums import Sums

FLUSH_SECONDS: Final = 0.5
"""How often calls are written: with the time that this takes, a crash loses less than a second."""

SWEEP_SECONDS: Final = 60.0
QUEUE: Final = 50_000
"""Calls that wait to be written, at most; what comes above it is lost."""

AT_ONCE: Final = 10_000
"""Calls that one transaction writes, at most: all that waited while a store was gone may be more
than it takes within its time."""

READERS: Final = 2
"""Threads for who asks: much of that must not take those in which names are looked up for calls."""

LAST_SECONDS: Final = 2.0
"""For how long answers are read once the server ends; of what is left only the calls count."""

MOST_HELD: Final = 64 * 2**20
"""Octets of answers that wait for their tokens to be read; above it they are not."""

_UPSTREAM: Final = frozenset({"stored", "miss", "bypass"})
_OF_UPSTREAMS: Final = ("upstream_", "redirect_", "answer_")
"""Verdicts and codes of calls that went out."""

SAME: Final = 17
"""So many members of a record and of a row are the same, in the same order."""

_NONE: Final = Tokens("", 0, 0)

_log = logging.getLogger("keyrelay.usage")

Told = TypeVar("Told")


@dataclass(frozen=True, slots=True)
class UsageSettings:
    """How long single calls, the sums of hours and those of days are kept, in seconds; and how many
    single calls at most."""

    keep: float = 7.0 * DAY
    keep_hours: float = 60.0 * DAY
    keep_days: float = 400.0 * DAY
    max_calls: int = 5_000_000


class Usage:
    """Counts calls: `note` is an Observer of them. `lost`: calls that were never written.

    `prices` may be replaced while it runs.
    """

    def __init__(
        self, store: UsageStore, prices: Prices, clock: Clock, settings: UsageSettings
    ) -> None:
        self.prices = prices
        self.lost = 0
        self._store = store
        self._clock = clock
        self._steady = SteadyTime(clock)
        self._settings = settings
        self._waiting: list[CallRecord] = []
        self._held = 0
        self._rows: list[CallRow] = []  # these two are the writing thread's own, but for their
        self._tried: list[CallRow] = []  # lengths
        self._failing = False
        self._unread = 0
        self._reads_until = inf
        self._told_lost = 0
        self._writing_on: asyncio.Task[None] | None = None
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="keyrelay-usage")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="keyrelay-usage-reads")

    # In the event loop.

    def note(self, record: CallRecord) -> None:
        """Takes in a call; never waits."""
        if len(self._waiting) + len(self._rows) + len(self._tried) >= QUEUE:
            self.lost += 1
            return
        meter = record.meter
        if meter is not None:
            self._held += meter.size
            if self._held > MOST_HELD:
                record = record._replace(meter=None)
        self._waiting.append(record)

    async def start(self) -> None:
        """Opens the store and begins to write; raises UsageTooNew."""
        await self._in_thread(self._open)
        self._writing_on = asyncio.create_task(self._write_on())

    async def stop(self) -> None:
        """Writes what waits, and closes the store; bombs among answers don't hold it up."""
        self._reads_until = self._clock.monotonic() + LAST_SECONDS
        if self._writing_on is not None:
            self._writing_on.cancel()
            with suppress(asyncio.CancelledError):
                await self._writing_on
        await self.flush()
        await self._in_thread(self._end)
        self._executor.shutdown()
        self._readers.shutdown(wait=False, cancel_futures=True)

    async def flush(self) -> None:
        """Writes all that was noted before, if the store takes it."""
        batch, self._waiting = self._waiting, []
        self._held = 0
        await self._in_thread(lambda: self._write(batch))

    async def sums(self, which: Which, *groupings: Sequence[Part]) -> list[list[Sums]]:
        """As the store has it, with what was noted up to now; raises UsageError."""
        return await self._told(lambda: self._store.sums(which, *groupings))

    async def calls(self, which: Which, order: Order, limit: int) -> list[CallRow]:
        """As the store has it, with what was noted up to now; raises UsageError."""
        return await self._told(lambda: self._store.calls(which, order, limit))

    async def minutes(self, which: Which, *groupings: Sequence[Part]) -> list[list[Sums]]:
        """As the store has it, with what was noted up to now; raises UsageError."""
        return await self._told(lambda: self._store.minutes(which, *groupings))

    async def troubles(self, which: Which, limit: int) -> list[Trouble]:
        """As the store has it, with what was noted up to now; raises UsageError."""
        return await self._told(lambda: self._store.troubles(which, limit))

    async def _told(self, read: Callable[[], Told]) -> Told:
        await self.flush()
        return await asyncio.get_running_loop().run_in_executor(self._readers, read)

    async def _write_on(self) -> None:
        swept = self._clock.monotonic() - SWEEP_SECONDS
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            if self._waiting or self._rows or self._tried:
                await self.flush()
            if self._clock.monotonic() - swept >= SWEEP_SECONDS:
                swept = self._clock.monotonic()
                await self._in_thread(self._sweep)

    async def _in_thread(self, work: Callable[[], None]) -> None:
        """In the one thread that writes, in turn, to its end."""
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._executor, work))

    # In the writing thread.

    def _open(self) -> None:
        try:
            self._store.open()
        except UsageTooNew:
            raise
        except UsageError as error:
            self._complain(error)

    def _write(self, batch: Sequence[CallRecord]) -> None:
        for record in batch:
            try:
                self._rows.append(self._row(record))
            except Exception as error:
                self._lose(1, f"a call could not be read: {type(error).__name__}")
        while self._tried or self._rows:
            if not self._tried:
                self._tried, self._rows = self._rows[:AT_ONCE], self._rows[AT_ONCE:]
            if not self._written():
                return

    def _written(self) -> bool:
        """Whether those that are tried are no more to be tried."""
        try:
            self._store.write(self._tried)
        except UsageError as error:
            self._complain(error)
            return False
        except Exception as error:  # what no store could take would be tried for ever
            self._lose(len(self._tried), f"calls could not be written: {type(error).__name__}")
        else:
            self._recover()
        self._tried = []
        return True

    def _sweep(self) -> None:
        now, settings = self._steady.now(), self._settings
        keep = Keep(
            calls=now - settings.keep,
            most_calls=settings.max_calls,
            hours=now - settings.keep_hours,
            days=now - settings.keep_days,
        )
        try:
            self._store.sweep(keep)
        except UsageError:
            return  # the next batch tells what is wrong
        except Exception as error:  # and ends no writing
            _log.error("old usage could not be taken away: %s", type(error).__name__)

    def _end(self) -> None:
        if self._unread:
            _log.warning("the server ends: tokens of %d calls are not counted", self._unread)
        if left := len(self._tried) + len(self._rows):
            self._lose(left, "the last calls could not be written")
        self._store.close()

    def _complain(self, error: UsageError) -> None:
        if not self._failing:
            _log.warning("usage can't be written, calls go on and it is tried again: %s", error)
        self._failing = True

    def _recover(self) -> None:
        if self._failing:
            _log.warning("usage is written again")
        self._failing = False
        if self.lost > self._told_lost:
            _log.warning("usage has lost %d calls so far", self.lost)
            self._told_lost = self.lost

    def _lose(self, count: int, why: str) -> None:
        self.lost += count
        _log.error("usage has lost %d calls: %s", count, why)
        self._told_lost = self.lost

    def _row(self, record: CallRecord) -> CallRow:
        tokens = self._tokens(record.meter) if record.meter is not None else None
        price = self.prices.cost(tokens) if tokens is not None else None
        hit, joined = record.verdict == "hit", record.verdict == "collapsed"
        spared = hit or joined
        went = not spared and _went(record)
        return CallRow(
            *record[:SAME],
            200 <= record.status < 400 and not record.cut,
            went,
            hit,
            joined,
            *(tokens or _NONE)[1:],
            None if price is None else 0.0 if spared else price,
            None if price is None else price if spared else 0.0,
            bucket(record.seconds),
        )

    def _tokens(self, meter: Meter) -> Tokens | None:
        if self._clock.monotonic() < self._reads_until:
            return meter.tokens()
        self._unread += 1
        return None


def _went(record: CallRecord) -> bool:
    """Whether a call went to its upstream, with whatever success."""
    return record.verdict in _UPSTREAM or record.code.startswith(_OF_UPSTREAMS)
