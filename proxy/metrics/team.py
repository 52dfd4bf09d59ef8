"""One worker's part in the metrics of all: it reports its own, and asks for the others'."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from proxy.errors import Unavailable
from proxy.metrics.state import Sources
from proxy.metrics.sums import Report, report, total
from proxy.workers.companion import Companion
from proxy.workers.link import Away, Refused

EVERY_SECONDS: Final = 1.0
"""How often a worker reports unasked: what it counts after the last time goes with it, if it is
killed."""


class TeamMetrics:
    """Begins to report with `start`."""

    def __init__(self, companion: Companion, sources: Sources) -> None:
        self._companion = companion
        self._sources = sources
        self._began = sources.clock.now()
        self._dead: Any = None
        self._telling: asyncio.Task[None] | None = None
        companion.on("metrics_report", self._report)
        companion.on("metrics_dead", self._learn)
        companion.when(self._join, lambda: None)

    async def start(self) -> None:
        """Reports from now on."""
        self._telling = asyncio.create_task(self._tell(), name="keyrelay-metrics")

    async def stop(self) -> None:
        """Reports for the last time."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait([self._telling])
        self._companion.tell("metrics_report", self._report())

    async def gather(self) -> Report:
        """The sum of all workers, also of those that died; raises Unavailable."""
        own = report(self._sources, self._began)
        try:
            found, dead = await self._companion.ask("metrics_gather", tuple(own))
        except (Away, Refused) as error:
            raise Unavailable(
                "The process that adds the metrics of all workers up is being replaced; try again.",
                retry_after=1,
            ) from error
        return total([own, *(Report(*one) for one in found)], dead)

    def _report(self) -> tuple[Any, ...]:
        return tuple(report(self._sources, self._began))

    def _learn(self, dead: Any) -> None:
        self._dead = dead

    def _join(self) -> None:
        if self._dead is not None:
            self._companion.tell("metrics_recall", self._dead)
        self._companion.tell("metrics_report", self._report())

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            self._companion.tell("metrics_report", self._report())
