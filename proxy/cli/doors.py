"""How many connections a server lets in: as many as are set, and as there are handles for."""

from __future__ import annotations

import logging
import resource
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from proxy.clock import Clock
from proxy.config import Config
from proxy.door import Arrivals, Door, DoorRules
from proxy.hosts import Hosts
from proxy.reload import Live, names

MOST_HANDLES: Final = 65_536
SETTINGS: Final = ("max_connections", "max_connections_per_address", "trusted_proxies")

_log = logging.getLogger("keyrelay")


class Doors:
    """One for each listener, all by the same rules: where a flood fills the one of callers, there
    is still a way in to metrics and administration, if they have listeners of their own."""

    def __init__(self, config: Config, clock: Clock, handles: int, workers: int = 1) -> None:
        self._clock = clock
        self._workers = workers
        self._handles = handles
        self._rules = self._rules_of(config)
        self._hosts = _hosts_of(config)
        self._all = [Door(self._rules, clock, self._hosts)]

    @property
    def callers(self) -> Door:
        """That of the main listener."""
        return self._all[0]

    def another(self) -> Door:
        """For one more listener."""
        self._all.append(Door(self._rules, self._clock, self._hosts))
        return self._all[-1]

    @property
    def live(self) -> Live:
        """What is taken up of a changed configuration."""
        return Live(names("server", *SETTINGS), self.become)

    def become(self, config: Config) -> None:
        """Other rules, for who comes from now on."""
        self._rules = self._rules_of(config)
        for door in self._all:
            door.become(self._rules)

    def arrivals(self) -> Arrivals:
        """Of callers."""
        return self.callers.arrivals

    def _rules_of(self, config: Config) -> DoorRules:
        server, most = config.server, self._handles * 3 // 4
        if most < server.max_connections:
            words = "the process may open %d files: at most %d connections, not server.%s"
            _log.warning(words, self._handles, most, "max_connections")
        return DoorRules(
            connections=min(self._share(server.max_connections), most),
            per_address=self._share(server.max_connections_per_address),
            trusted=server.trusted_proxies,
        )

    def _share(self, amount: int) -> int:
        """What one worker of several may have: rounded up, so that there is one at least."""
        return -(-amount // self._workers)


def _hosts_of(config: Config) -> Hosts:
    """Where names are listed, the one of the public URL is one too."""
    server = config.server
    public = urlsplit(server.public_url or "").hostname
    return Hosts({*server.hosts, *([public] if public else [])} if server.hosts else ())


def take_handles() -> int:
    """Lets the process open as many files as it may, and says how many that are: what a shell or a
    service starts with is for programs that open few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_HANDLES if hard == resource.RLIM_INFINITY else min(hard, MOST_HANDLES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError):  # a sandbox may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return MOST_HANDLES if soft == resource.RLIM_INFINITY else soft
