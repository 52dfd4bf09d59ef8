"""What authorisation works on: who calls (Client), where to (Route), with what leave (Grant)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import NamedTuple

from proxy.call import Directions
from proxy.destinations import Target, path_is_plain
from proxy.reach import Reach
from proxy.services.model import Service
from vault import Binding, Holdings, KeyRef, Narrowing


class Allowance(NamedTuple):
    """How many calls a short-lived token may make in all. `until`: Unix seconds."""

    serial: str
    calls: int
    until: float


class OwnLimits(NamedTuple):
    """What a token was given itself: limits of all calls and of upstream calls, as canonical text;
    upstream calls a month; what a short-lived one may call in all; what it may call in all, ever,
    with all short-lived ones that are made of it."""

    calls: tuple[str, ...] = ()
    upstream_calls: tuple[str, ...] = ()
    budget: int | None = None
    allowance: Allowance | None = None
    ever: int | None = None


@dataclass(frozen=True, slots=True)
class Client:
    """An authenticated caller and what its tenant holds.

    `token_id`: what the token is known by; empty for a handed-out key. `services` None: every
    service of the tenant. `handed_out`: the keys that the caller showed
    instead of a token. `may_bring_own`: the token left the provider's slot free. `good_until`: Unix
    seconds at which the credential ends by itself. `limits` None: none of the token's own.
    `narrowings`: a call must stay within each.
    """

    name: str
    holdings: Holdings
    token_id: str = ""
    services: frozenset[str] | None = None
    key_aliases: Mapping[str, str] = field(default_factory=dict)
    handed_out: tuple[KeyRef, ...] = ()
    may_bring_own: bool = False
    good_until: float = inf
    limits: OwnLimits | None = None
    narrowings: tuple[Narrowing, ...] = ()

    @property
    def tenant(self) -> str:
        """Who owns everything that this call may use."""
        return self.holdings.tenant


@dataclass(frozen=True, slots=True)
class Route:
    """Where a call wants to go; nobody has allowed it yet."""

    asked: Directions
    target: Target


class Place(Enum):
    """What a destination is to the service."""

    PROVIDER = "provider"
    ORIGIN = "origin"
    BACKEND = "backend"
    DOWNLOAD = "download"


@dataclass(frozen=True, slots=True)
class Site:
    """A place where one service's key may go (for downloads: the call without a key)."""

    place: Place
    binding: Binding


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave to forward one call to one destination. Only `authorize` makes one.

    `key` None: nothing is injected (a keyless service, a download, a backend without a service, or
    `own_credential`: the caller's own fields and parameters pass untouched). `target` has lost the
    parameters in which the service would carry a key. `sites`: everywhere this grant's key may go.
    """

    tenant: str
    client: str
    service: Service | None
    key: KeyRef | None
    target: Target
    place: Place
    reach: Reach
    own_credential: bool = False
    sites: tuple[Site, ...] = ()
    token_id: str = ""
    limits: OwnLimits | None = None

    @property
    def prefix(self) -> str:
        """The path prefix that the target lies below, without a slash at its end."""
        site = site_of(self.sites, self.target)
        return "" if site is None else site.binding.prefix.rstrip("/")

    def covers(self, target: Target) -> bool:
        """Whether another destination (a redirect's) lies under the same grant."""
        return site_of(self.sites, target) is not None


def site_of(sites: tuple[Site, ...], target: Target) -> Site | None:
    """The first site that covers a destination.

    Under a path prefix the path must read the same to every server: none with %2F, `;` or the like.
    """
    asked = (target.scheme, target.host, target.port, target.path)
    for site in sites:
        if site.binding.covers(*asked) and (
            site.binding.prefix == "/" or path_is_plain(target.path)
        ):
            return site
    return None
