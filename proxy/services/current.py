"""The registry of the moment: whoever holds it sees the services that were added since."""

from __future__ import annotations

from proxy.destinations import Target
from proxy.services.loader import Services
from proxy.services.model import Service
from vault import Binding


class CurrentServices:
    """Asks the newest registry; one assignment replaces it, so that no call sees half of two."""

    def __init__(self, services: Services) -> None:
        self._now = services

    def become(self, services: Services) -> None:
        """From the next look-up on, these."""
        self._now = services

    @property
    def now(self) -> Services:
        """The registry itself; another object after every change."""
        return self._now

    @property
    def all(self) -> tuple[Service, ...]:
        """Every service."""
        return self._now.all

    @property
    def names(self) -> frozenset[str]:
        """Every name and alias."""
        return self._now.names

    @property
    def credential_headers(self) -> frozenset[bytes]:
        """Lower-case names of every field in which a service carries its key."""
        return self._now.credential_headers

    def get(self, name: str) -> Service | None:
        """The service of this name or alias; None when unknown."""
        return self._now.get(name)

    def canonical(self, name: str) -> str | None:
        """The name that a name or an alias stands for; None when unknown."""
        return self._now.canonical(name)

    def base(self, name: str) -> str | None:
        """Where the path form goes."""
        return self._now.base(name)

    def candidates(self, host: str) -> tuple[Service, ...]:
        """The services whose host this is."""
        return self._now.candidates(host)

    def origin_of(self, name: str) -> Binding | None:
        """The place that the admin set as this service's origin."""
        return self._now.origin_of(name)

    def of_origin(self, target: Target) -> tuple[Service, ...]:
        """The services whose origin covers this destination."""
        return self._now.of_origin(target)
