"""Counts of budgets that wait to be added to those of others, each exactly once.

What was tried and failed may have been done all the same: it is tried again as it was, under the
number that it had, before anything else.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from proxy.database import Once

EVER: Final = "ever"
"""In the place of a month, where calls are counted in all: no month is called so, and it comes
behind every one."""

Counted = tuple[str, str]
"""A subject and a month, or EVER."""

Counts = Mapping[Counted, int]
Write = Callable[[Counts, Once], Awaitable[Counts]]
"""Adds counts, if it did not under this number, and gives what they come to."""

_log = logging.getLogger("keyrelay.limits")


class Notes:
    """In memory, on the event loop."""

    def __init__(self) -> None:
        self._new: dict[Counted, int] = {}
        self._tried: dict[Counted, int] = {}
        self._once = Once()

    def add(self, subject: str, month: str, calls: int) -> None:
        """So many calls more, or fewer."""
        which = subject, month
        self._new[which] = self._new.get(which, 0) + calls

    async def written(self, write: Write) -> Counts:
        """Writes what waits; gives what it comes to, with what was noted meanwhile."""
        totals: dict[Counted, int] = {}
        while self._tried or self._new:
            again = bool(self._tried)
            if not again:
                self._tried, self._new = self._new, {}
            totals |= await write(self._tried, self._once)
            self._tried = {}
            self._once.done()
            if not again:  # what was noted during that waits for the next time
                break
        return {which: count + self._new.get(which, 0) for which, count in totals.items()}


class Trouble:
    """What a ledger can't do: said once, and when it is over."""

    def __init__(self, place: object) -> None:
        self._place = place
        self._lasts = False

    def tell(self, error: Exception) -> None:
        """It could not be read, or written to."""
        if not self._lasts:
            _log.error("budgets can't be kept in %s: %s", self._place, error)
        self._lasts = True

    def end(self) -> None:
        """Something was written."""
        if self._lasts:
            _log.warning("budgets are kept again in %s", self._place)
        self._lasts = False
