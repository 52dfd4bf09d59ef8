"""What workers tell each other, through the coordinator: calls as they end, probes, wrong tokens,
and who is signed in to the page. Of the last it keeps a copy, for workers that come later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from proxy.memo import bounded_put
from proxy.record import CallRecord, Observer
from proxy.workers.companion import Companion
from proxy.workers.link import Away, Link, Refused, Verb
from proxy.workers.storing import Spread

EVERY_SECONDS: Final = 0.2
MANY: Final = 512
"""So many calls are passed on at once; of more than that only these."""

SESSIONS: Final = 4096

Kept = tuple[str, str, float, float]
"""Somebody who is signed in: token, tenant, since when, and when last seen."""


class Passing:
    """An Office. `spread`: tells the other workers."""

    def __init__(self, spread: Spread) -> None:
        self._spread = spread
        self._sessions: dict[bytes, Kept] = {}

    @property
    def verbs(self) -> dict[str, Verb]:
        """What workers may ask."""
        return {
            "pass": self._pass,
            "session_opened": self._opened,
            "session_find": lambda _link, name: self._sessions.get(name),
            "session_used": self._used,
            "session_ended": self._ended,
        }

    def forget(self, link: Link) -> None:
        """Nothing of it was a worker's own."""

    def _pass(self, link: Link, topic: str, *given: Any) -> None:
        self._spread(link, topic, *given)

    def _opened(self, link: Link, name: bytes, kept: Kept) -> None:
        bounded_put(self._sessions, name, kept, SESSIONS)
        self._spread(link, "session_opened", name, kept)

    def _used(self, _link: Link, name: bytes, at: float) -> None:
        kept = self._sessions.get(name)
        if kept is not None:
            self._sessions[name] = (*kept[:3], max(kept[3], at))

    def _ended(self, link: Link, name: bytes) -> None:
        self._sessions.pop(name, None)
        self._spread(link, "session_ended", name)


class PassedCalls:
    """An Observer that passes calls on; those of the others go to `observers`."""

    def __init__(self, companion: Companion, observers: Sequence[Observer]) -> None:
        self._companion = companion
        self._observers = observers
        self._waiting: list[tuple[Any, ...]] = []
        self._telling: asyncio.Task[None] | None = None
        companion.on("calls", self._hear)

    def observe(self, record: CallRecord) -> None:
        """A call of this worker is over."""
        if len(self._waiting) < MANY:
            self._waiting.append(tuple(record._replace(meter=None, trace=None)))

    async def start(self) -> None:
        """Begins to tell."""
        self._telling = asyncio.create_task(self._tell(), name="keyrelay-passed-calls")

    async def stop(self) -> None:
        """Tells no more."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait([self._telling])

    def _hear(self, records: list[tuple[Any, ...]]) -> None:
        for record in records:
            for observe in self._observers:
                observe(CallRecord(*record))

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            waiting, self._waiting = self._waiting, []
            if waiting:
                self._companion.tell("pass", "calls", waiting)


class SharedSessions:
    """Who is signed in at other workers. `recall`: all that this one knows."""

    hears: Final = True

    def __init__(self, companion: Companion) -> None:
        self._companion = companion

    def follow(
        self,
        learn: Callable[[bytes, Kept], None],
        forget: Callable[[bytes], None],
        recall: Callable[[], dict[bytes, Kept]],
    ) -> None:
        """What is done where somebody signs in or out elsewhere; and who is, for a coordinator that
        knows nobody yet."""
        self._companion.on("session_opened", learn)
        self._companion.on("session_ended", forget)

        def tell() -> None:
            for name, kept in recall().items():
                self._companion.tell("session_opened", name, kept)

        self._companion.when(tell, lambda: None)

    async def opened(self, name: bytes, kept: Kept) -> None:
        """Somebody signed in here; known everywhere when this returns, if anybody asks."""
        try:
            await self._companion.ask("session_opened", name, kept)
        except (Away, Refused):
            return

    async def find(self, name: bytes) -> Kept | None:
        """Somebody who signed in elsewhere."""
        try:
            found = await self._companion.ask("session_find", name)
        except (Away, Refused):
            return None
        return None if found is None else (found[0], found[1], found[2], found[3])

    def used(self, name: bytes, at: float) -> None:
        """Somebody does something."""
        self._companion.tell("session_used", name, at)

    def ended(self, name: bytes) -> None:
        """Somebody has signed out, or had to make room."""
        self._companion.tell("session_ended", name)
