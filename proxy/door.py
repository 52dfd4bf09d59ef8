"""How many connections there may be, in all and of one address, before anybody says who calls.

Behind a trusted proxy the calls in flight of an address count as its connections: they are what it
has there.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_network
from typing import Final, NamedTuple

from proxy.addresses import Address
from proxy.clock import Clock
from proxy.fair import FairTurns
from proxy.forwarded import Networks, address_of, caller_behind, names_callers, within
from proxy.hosts import ANY, Hosts
from proxy.messages import Fields

TOTAL: Final = "total"
ADDRESS: Final = "address"
TELL_SECONDS: Final = 60.0
"""How often the log hears of refusals at most."""

_LOOPBACK: Final[Networks] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
_UNCOUNTED: Final = ""

_log = logging.getLogger("keyrelay")


@dataclass(frozen=True, slots=True)
class DoorRules:
    """`connections` in all, `per_address` of one; `trusted`: proxies that say for whom they call.
    They and this machine itself count in all only."""

    connections: int
    per_address: int
    trusted: Networks = ()


OPEN_WIDE: Final = DoorRules(1 << 31, 1 << 31)


class Arrivals(NamedTuple):
    """Connections that are open, and how many were refused, by TOTAL and ADDRESS."""

    open: int
    refused: dict[str, int]


class Named(NamedTuple):
    """For whom a trusted peer calls: the address, or the peer's own, and what is counted."""

    address: str
    counted: str


class Door:
    """Lets connections in. What `enter` and `begin` give is to be given back, once. `turns`: in
    which order the calls of those begin who are in; `hosts`: whose name may stand in Host."""

    def __init__(self, rules: DoorRules, clock: Clock, hosts: Hosts = ANY) -> None:
        self._rules = rules
        self._clock = clock
        self.hosts = hosts
        self.turns = FairTurns()
        self._open = 0
        self._by_address: dict[str, int] = {}
        self._refused = {TOTAL: 0, ADDRESS: 0}
        self._told_at = float("-inf")
        self._untold = 0

    def become(self, rules: DoorRules) -> None:
        """Other rules, for who comes from now on."""
        self._rules = rules

    @property
    def arrivals(self) -> Arrivals:
        """How many there are, and were refused."""
        return Arrivals(self._open, dict(self._refused))

    def enter(self, peer: str) -> str | None:
        """Lets a connection in, and says what it counts as; None: there are enough."""
        rules = self._rules
        address = address_of(peer)
        if self._open >= rules.connections:
            self._refuse(TOTAL)
            return None
        counted = _UNCOUNTED if self._is_near(address) else _counted(peer, address)
        if not self._count(counted):
            self._refuse(ADDRESS)
            return None
        self._open += 1
        return counted

    def leave(self, counted: str) -> None:
        """A connection that was let in has ended."""
        self._open -= 1
        self.end(counted)

    def trusts(self, peer: str) -> bool:
        """Whether it says for whom it calls."""
        return bool(self._rules.trusted) and within(address_of(peer), self._rules.trusted)

    def named(self, peer: str, fields: Fields) -> Named:
        """For whom a trusted peer calls. Where it says so and can't be understood, all of them
        count as one; where it names nobody it calls for itself, and is not counted."""
        if not names_callers(fields):
            return Named(peer, _UNCOUNTED)
        address = caller_behind(fields, self._rules.trusted)
        if address is None:
            return Named(peer, f"behind {peer}")
        near = within(address, self._rules.trusted)
        return Named(str(address), _UNCOUNTED if near else _counted("", address))

    def begin(self, counted: str) -> bool:
        """Whether a call for `named` may go on; then `end` is due."""
        enters = self._count(counted)
        if not enters:
            self._refuse(ADDRESS)
        return enters

    def end(self, counted: str) -> None:
        """What was counted is over."""
        left = self._by_address.get(counted, 0) - 1
        if left > 0:
            self._by_address[counted] = left
        else:
            self._by_address.pop(counted, None)

    def _is_near(self, address: Address | None) -> bool:
        return within(address, _LOOPBACK) or within(address, self._rules.trusted)

    def _count(self, counted: str) -> bool:
        if counted == _UNCOUNTED:
            return True
        before = self._by_address.get(counted, 0)
        if before >= self._rules.per_address:
            return False
        self._by_address[counted] = before + 1
        return True

    def _refuse(self, bound: str) -> None:
        """Counted each time, told once a minute: whoever comes in floods fills no disk."""
        self._refused[bound] += 1
        self._untold += 1
        now = self._clock.monotonic()
        if now >= self._told_at + TELL_SECONDS:
            setting = "max_connections" + ("_per_address" if bound == ADDRESS else "")
            _log.warning("connections refused: %d; the last by server.%s", self._untold, setting)
            self._told_at, self._untold = now, 0


def _counted(peer: str, address: Address | None) -> str:
    """An address of IPv6 counts with its network: one caller has all of a /64."""
    if isinstance(address, IPv6Address):
        return str(ip_network((int(address) >> 64 << 64, 64)))
    return str(address or peer)
