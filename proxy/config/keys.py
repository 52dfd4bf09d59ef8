"""A credential and its hosts against what the service asks for, and into the vault's own shape."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from proxy.destinations import parse_destination
from proxy.errors import RelayError
from proxy.injection import check_credential
from proxy.services.model import Service
from vault import Credential, NewKey

RECOGNISED_BY = "key"
"""The part that a backend sends back to us; every keyed service has it."""


def make_key(
    service: Service, owner: tuple[str, str], credential: Credential, hosts: Sequence[str] = ()
) -> NewKey:
    """A key of `owner` (tenant, alias) for the vault; raises ValueError with one safe sentence."""
    judge_parts(service, credential)
    check_credential(service, credential)
    judge_hosts(service, hosts)
    tenant, alias = owner
    return NewKey(tenant, service.name, alias, credential, RECOGNISED_BY, tuple(hosts))


def judge_parts(service: Service, given: Collection[str]) -> None:
    """Whether exactly the service's parts are there; raises ValueError."""
    if service.keyless:
        raise ValueError(f"{service.name} needs no key")
    wanted = [part.name for part in service.parts]
    if sorted(given) != sorted(wanted):
        raise ValueError(f"expected the parts of a {service.name} key: {', '.join(wanted)}")


def judge_hosts(service: Service, hosts: Sequence[str]) -> None:
    """Whether `hosts` fix the service's `*.` names, where it has any; raises ValueError."""
    wildcards = [host for host in service.hosts if host.startswith("*.")]
    if hosts and not wildcards:
        raise ValueError(f"{service.name} has fixed hosts; leave hosts out")
    if service.needs_hosts and service.origin is None and not hosts:
        raise ValueError(f"expected hosts: your own name below {' or '.join(wildcards)}")
    for host in hosts:
        if not _is_plain(host) or host in service.hosts or not service.has_host(host):
            raise ValueError(f"expected a host such as {wildcards[0].replace('*', 'acme', 1)}")


def _is_plain(host: str) -> bool:
    try:
        target = parse_destination(f"https://{host}/")
    except RelayError:
        return False
    return (target.host, target.port, target.path) == (host, 443, "/")
