"""A worker's end: connected to the coordinator, or about to be again, without anybody waiting.

A coordinator that has died has a successor soon; one that hangs is left after a few seconds. What
is asked meanwhile fails at once, and whoever asked goes on by himself.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from proxy.workers.link import Away, Link, Refused, Verb

AGAIN_SECONDS: Final = 0.05
LOOK_SECONDS: Final = 0.5
PATIENCE: Final = 3.0
"""So long may the coordinator be silent before it counts as gone."""

_log = logging.getLogger("keyrelay.workers")


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where workers and coordinator meet, and what only they know."""

    path: Path
    secret: bytes
    workers: int


class Companion:
    """Asks and is told. `number`: this worker's; `on`: what the coordinator may ask it."""

    def __init__(self, meeting: Meeting, number: int) -> None:
        self._meeting = meeting
        self.number = number
        self._peer = secrets.token_bytes(8)
        self._verbs: dict[str, Verb] = {}
        self._joined: list[Callable[[], None]] = []
        self._left: list[Callable[[], None]] = []
        self._link: Link | None = None
        self._ended = asyncio.Event()
        self._staying: asyncio.Task[None] | None = None

    @property
    def workers(self) -> int:
        """How many there are, with this one."""
        return self._meeting.workers

    @property
    def leads(self) -> bool:
        """Whether this one does what only one of them has to do."""
        return self.number == 1

    # Before the start.

    def on(self, verb: str, answer: Verb) -> None:
        """What is done when the coordinator says this."""
        self._verbs[verb] = lambda _link, *given: answer(*given)

    def when(self, joined: Callable[[], None], left: Callable[[], None]) -> None:
        """Who wants to know that there is a connection, and that there is none any more."""
        self._joined.append(joined)
        self._left.append(left)

    async def start(self) -> None:
        """Connects, if that is soon; and stays connected."""
        with suppress(Away, Refused):
            await self._connect()
        self._staying = asyncio.create_task(self._stay(), name="keyrelay-companion")

    async def stop(self) -> None:
        """Ends the connection."""
        staying, self._staying = self._staying, None
        if staying is not None:
            staying.cancel()
            await asyncio.wait([staying])
        if self._link is not None:
            self._link.end()

    # While it runs.

    @property
    def there(self) -> bool:
        """Whether the coordinator is."""
        return self._link is not None

    async def ask(self, verb: str, *given: Any) -> Any:
        """Its answer; raises Away, Refused."""
        if self._link is None:
            raise Away("the coordinator is not there")
        return await self._link.ask(verb, *given)

    def tell(self, verb: str, *given: Any) -> None:
        """Says something, if somebody is there."""
        if self._link is not None:
            self._link.tell(verb, *given)

    # The connection.

    async def _stay(self) -> None:
        while True:
            if self._link is None:
                await asyncio.sleep(AGAIN_SECONDS)
                with suppress(Away, Refused):
                    await self._connect()
            else:
                await self._watch(self._link)

    async def _connect(self) -> None:
        self._ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        path, link = str(self._meeting.path), Link(self._verbs, self._lose)
        try:
            async with asyncio.timeout(PATIENCE):
                await loop.create_unix_connection(lambda: link, path)
                link.prove(self._meeting.secret)
                await link.ask("hello", self._peer)
        except BaseException as error:
            link.close()  # else one that hangs would find this worker many times when it goes on
            if isinstance(error, OSError):  # a TimeoutError is one
                raise Away("the coordinator does not answer") from error
            raise
        self._link = link
        for joined in self._joined:
            joined()

    async def _watch(self, link: Link) -> None:
        """Until it has gone, or is silent for too long."""
        try:
            async with asyncio.timeout(PATIENCE):
                await link.ask("ping")
        except (TimeoutError, Away, Refused):
            link.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), LOOK_SECONDS)

    def _lose(self, link: Link) -> None:
        if link is not self._link:
            return
        self._link = None
        self._ended.set()
        if self._staying is None:
            return
        _log.warning("the coordinator has gone; calls go on without it")
        for left in self._left:
            left()
