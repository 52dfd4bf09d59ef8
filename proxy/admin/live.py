"""The newest calls, and those that come, for admins who watch: bounded, by tenant, in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Final, NamedTuple

from proxy.errors import Overloaded
from proxy.memo import bounded_put
from proxy.record import CallRecord

REMEMBERED: Final = 200
TENANTS: Final = 256
"""How many calls of one tenant are remembered, and of how many tenants."""

BEHIND: Final = 500
"""How many calls somebody who watches may be behind; beyond it they are let go."""

WATCHERS: Final = 256
OF_ONE: Final = 32
"""How many may watch at once, in all and of one tenant: each has a connection that stays open."""


class Line(NamedTuple):
    """One call, as somebody sees it who watches. `number` counts up over all tenants."""

    number: int
    began: float
    token: str
    service: str
    host: str
    method: str
    status: int
    code: str
    verdict: str
    cut: bool
    seconds: float
    sent: int
    id: str


class Wish(NamedTuple):
    """Which calls somebody wants to see. `status`: `2` to `5`, `error`, or empty for all."""

    service: str = ""
    status: str = ""

    def takes(self, line: Line) -> bool:
        """Whether a call is among them."""
        if self.service and line.service != self.service:
            return False
        if self.status == "error":
            return not 200 <= line.status < 400 or line.cut
        return not self.status or str(line.status)[:1] == self.status


class Watcher:
    """Somebody who watches; what comes waits here until it is sent."""

    def __init__(self, wish: Wish) -> None:
        self._wish = wish
        self._waiting: deque[Line] = deque()
        self._news = asyncio.Event()
        self._over = False

    def take(self, line: Line) -> None:
        """One call more; whoever is too slow is let go."""
        if self._wish.takes(line):
            self._waiting.append(line)
            if len(self._waiting) > BEHIND:
                self._waiting.clear()
                self._over = True
            self._news.set()

    def end(self) -> None:
        """Nothing comes any more."""
        self._over = True
        self._news.set()

    async def lines(self, patience: float) -> AsyncIterator[list[Line]]:
        """What has come since, or an empty list after so many seconds of nothing; until the end."""
        while not self._over:
            try:
                async with asyncio.timeout(patience):
                    await self._news.wait()
            except TimeoutError:
                yield []
                continue
            self._news.clear()
            found, self._waiting = list(self._waiting), deque()
            if found:
                yield found


class LiveCalls:
    """Remembers the newest calls of each tenant, and tells whoever watches: an Observer."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._newest: dict[str, deque[Line]] = {}
        self._watchers: dict[str, set[Watcher]] = {}
        self._ended = False

    def observe(self, record: CallRecord) -> None:
        """One call is over. Where nobody was recognised, it is of no tenant."""
        tenant = record.tenant
        if not tenant:
            return
        line = _line(next(self._numbers), record)
        newest = self._newest.get(tenant)
        if newest is None:
            newest = deque(maxlen=REMEMBERED)
            bounded_put(self._newest, tenant, newest, TENANTS)
        newest.append(line)
        for watcher in self._watchers.get(tenant, ()):
            watcher.take(line)

    def newest(self, tenant: str, wish: Wish, after: int = 0) -> Iterator[Line]:
        """What is remembered, oldest first: those numbered above `after`."""
        found = self._newest.get(tenant, ())
        return (line for line in found if line.number > after and wish.takes(line))

    def watch(self, tenant: str, wish: Wish) -> Watcher:
        """Calls of one tenant as they end, until `leave`; raises Overloaded: too many watch."""
        of_one = len(self._watchers.get(tenant, ()))
        if of_one >= OF_ONE or sum(map(len, self._watchers.values())) >= WATCHERS:
            raise Overloaded("Too many watch the calls: close another page of it.", retry_after=60)
        watcher = Watcher(wish)
        self._watchers.setdefault(tenant, set()).add(watcher)
        if self._ended:
            watcher.end()
        return watcher

    def leave(self, tenant: str, watcher: Watcher) -> None:
        """Somebody watches no longer."""
        watchers = self._watchers.get(tenant, set())
        watchers.discard(watcher)
        if not watchers:
            self._watchers.pop(tenant, None)

    def end(self) -> None:
        """Lets all go who watch, and whoever comes: the server is to stop."""
        self._ended = True
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.end()


def _line(number: int, record: CallRecord) -> Line:
    """What is shown of a call; its meter, which holds an answer's octets, is not kept."""
    return Line(
        number,
        record.began,
        record.token,
        record.service,
        record.host,
        record.method,
        record.status,
        record.code,
        record.verdict,
        record.cut,
        record.seconds,
        record.sent,
        record.id,
    )
