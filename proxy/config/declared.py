"""What a configuration declares, as the vault's own records."""

from __future__ import annotations

from proxy.config.keys import RECOGNISED_BY
from proxy.config.model import Config
from proxy.destinations import parse_registration
from vault import Backend, NewKey


def declared_keys(config: Config) -> list[NewKey]:
    """The keys in order, but the default of each service first."""
    return [
        NewKey(
            tenant=entry.tenant,
            service=entry.service,
            alias=entry.alias,
            credential=entry.credential,
            recognised_by=RECOGNISED_BY,
            hosts=entry.hosts,
        )
        for entry in sorted(config.keys, key=lambda entry: not entry.default)
    ]


def declared_backends(config: Config) -> list[Backend]:
    """The backends in order."""
    return [
        Backend(entry.tenant, entry.service, parse_registration(entry.url), declared=True)
        for entry in config.backends
    ]
