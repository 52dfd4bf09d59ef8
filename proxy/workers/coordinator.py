"""The coordinator: a process that workers ask, and that tells each what the others did."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from typing import Any, Final, Protocol

from proxy.workers.companion import Meeting
from proxy.workers.link import Link, Verb

BACKLOG: Final = 128
LOOK_SECONDS: Final = 1.0
SILENT_SECONDS: Final = 4.0
"""A worker says something twice a second."""

_log = logging.getLogger("keyrelay.workers")


class Office(Protocol):
    """One thing that the coordinator does for workers."""

    @property
    def verbs(self) -> dict[str, Verb]:
        """What may be asked, by name; the first argument is who asks."""
        ...

    def forget(self, link: Link) -> None:
        """A worker has gone."""
        ...


class Coordinator:
    """Serves the workers that connect. Offices are added before it serves."""

    def __init__(self, meeting: Meeting) -> None:
        self._meeting = meeting
        self._offices: list[Office] = []
        self._verbs: dict[str, Verb] = {"hello": self._hello, "ping": lambda _link: None}
        self._links: set[Link] = set()
        self._server: asyncio.Server | None = None
        self._watching: asyncio.Task[None] | None = None
        self._alone = asyncio.Event()
        self._alone.set()

    def add(self, office: Office) -> None:
        """One more thing that may be asked."""
        self._offices.append(office)
        self._verbs |= office.verbs

    async def serve(self, listener: socket.socket) -> None:
        """From now on; `listener` is not closed with it, so that a successor can go on there."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._make, sock=listener, backlog=BACKLOG)
        self._watching = asyncio.create_task(self._watch(), name="keyrelay-coordinator")

    async def left_alone(self) -> None:
        """Returns when no worker is connected."""
        await self._alone.wait()

    async def stop(self) -> None:
        """Ends every connection."""
        if self._server is not None:
            self._server.close()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        for link in list(self._links):
            link.close()

    def others(self, link: Link | None) -> Iterator[Link]:
        """Every worker but one."""
        return (one for one in self._links if one is not link)

    def spread(self, link: Link | None, verb: str, *given: Any) -> None:
        """Tells every worker but the one that it comes from."""
        for one in self.others(link):
            one.tell(verb, *given)

    async def _watch(self) -> None:
        """A worker that stands still keeps nobody waiting: what it leads is over."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for link in list(self._links):
                if loop.time() - link.heard > SILENT_SECONDS:
                    _log.warning("a worker is silent; it is left alone until it speaks again")
                    link.close()

    def _make(self) -> Link:
        return Link(self._verbs, self._forget, self._meeting.secret)

    def _hello(self, link: Link, peer: bytes) -> None:
        link.peer = peer
        self._links.add(link)
        self._alone.clear()

    def _forget(self, link: Link) -> None:
        if link in self._links:
            self._links.discard(link)
            if not self._links:
                self._alone.set()
            for office in self._offices:
                office.forget(link)
