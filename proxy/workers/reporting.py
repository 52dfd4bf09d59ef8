"""The coordinator's part in metrics: collects what workers report, keeps the counts of the dead.

What a dead worker counted is told to all who live, so that it outlives the coordinator too.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import reduce
from typing import Any, Final

from proxy.workers.adding import added
from proxy.workers.link import Away, Link, Refused, Verb
from proxy.workers.storing import Spread

LOST: Final = 64
"""Connections that are remembered one by one: whose worker lives may come again."""

PATIENCE: Final = 2.0
"""So long a scrape waits for a worker; then what it has told last counts."""


class Reporting:
    """An Office. `spread`: tells all workers."""

    def __init__(self, spread: Spread) -> None:
        self._spread = spread
        self._last: dict[Link, Any] = {}
        self._lost: dict[bytes, Any] = {}
        self._before: Any = None

    @property
    def verbs(self) -> dict[str, Verb]:
        """What workers may ask."""
        return {
            "metrics_gather": self._gather,
            "metrics_report": self._note,
            "metrics_recall": self._recall,
        }

    def forget(self, link: Link) -> None:
        """A worker has gone: its counts stay."""
        last = self._last.pop(link, None)
        if last is not None:
            self._lost[link.peer] = last[0]
            if len(self._lost) > LOST:
                oldest = next(iter(self._lost))
                self._before = _sum(self._before, self._lost.pop(oldest))
            self._spread(None, "metrics_dead", self._dead)

    @property
    def _dead(self) -> Any:
        """What those counted who are not there any more; None: nobody has gone."""
        return reduce(_sum, self._lost.values(), self._before)

    def _note(self, link: Link, report: Any) -> None:
        self._last[link] = report
        if self._lost.pop(link.peer, None) is not None:  # it had lost the connection, not its life
            self._spread(None, "metrics_dead", self._dead)

    def _recall(self, _link: Link, dead: Any) -> None:
        """From who was told by the coordinator before: all tell the same."""
        if self._before is None:
            self._before = dead

    async def _gather(self, asking: Link, report: Any) -> Any:
        """What the others report, and the counts of the dead; what the asking one tells itself now
        is kept as well, so that no later sum is less."""
        self._note(asking, report)
        others = [link for link in self._last if link is not asking]
        await asyncio.gather(*map(self._ask, others))
        reports = [self._last[link] for link in others if link in self._last]
        return reports, self._dead

    async def _ask(self, link: Link) -> None:
        with suppress(Away, Refused, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                report = await link.ask("metrics_report")
                if link in self._last:
                    self._last[link] = report


def _sum(one: Any, other: Any) -> Any:
    return other if one is None else added(one, other)
