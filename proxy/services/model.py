"""What is known of a service; immutable, made from services.yaml and the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from proxy.messages import Fields, value

Carrier = Literal["header", "query", "basic", "path"]


@dataclass(frozen=True, slots=True)
class Slot:
    """One place of a request where (a part of) the key stands.

    `name`: the field (as the provider spells it) or the parameter; for `path` the segment without
    its key. `template`: the text with `{part}` for parts of the credential and `{host}` for the
    host that is called: `Bearer {key}`, `{username}:{key}` (basic: before base64), `bot{key}`.
    `after` (path only): first segments behind which the key stands, instead of in front.
    """

    carrier: Carrier
    name: str
    template: str
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a credential; `secret` False for what may be shown (an application id)."""

    name: str
    title: str
    secret: bool = True


@dataclass(frozen=True, slots=True)
class Probe:
    """One cheap authenticated call that tells whether a key is good; `path` may hold a query."""

    method: str
    path: str


@dataclass(frozen=True, slots=True)
class Service:
    """A provider by name.

    `hosts`: exact names, or `*.name` for the tenant's own subdomain, fixed when the key is added.
    `base`: scheme and authority for the path form (`https://api.openai.com`), None where every
    tenant has its own; `origin`: the place that the admin set (scheme, authority, optional path).
    `slots`: how the provider wants the key; `slots_by_host` where one name spans hosts that differ;
    `backend_slots`: how a backend receives it, always header fields. Empty slots: no key is needed.
    `slots_by_version`: values of the version's field (the first of `defaults`) from which on the
    provider's own clients carry the key otherwise, the latest first; they compare as octets.
    `parameters`: every query parameter that may carry the key, also where `slots` prefer a field:
    a caller's own is never forwarded.
    `parts`: what makes up a credential; a keyed service always has a secret part named `key`.
    `defaults`: fields such as a version, written where the caller sent none.
    """

    name: str
    category: str
    hosts: tuple[str, ...]
    slots: tuple[Slot, ...]
    backend_slots: tuple[Slot, ...]
    base: str | None = None
    origin: str | None = None
    slots_by_host: Mapping[str, tuple[Slot, ...]] = field(default_factory=dict)
    slots_by_version: Mapping[bytes, tuple[Slot, ...]] = field(default_factory=dict)
    parameters: tuple[str, ...] = ()
    parts: tuple[Part, ...] = (Part("key", "API key"),)
    defaults: Fields = ()
    download_hosts: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    probe: Probe | None = None
    honour_no_store: bool = False
    note: str = ""

    @property
    def keyless(self) -> bool:
        """Whether the service needs no key at all (`in: none`)."""
        return not self.slots and not self.slots_by_host

    def slots_for(self, host: str, fields: Fields = ()) -> tuple[Slot, ...]:
        """How the provider wants the key on this host, from a caller that sends these fields."""
        if self.slots_by_version:
            said = value(fields, self.defaults[0][0]) or b""
            for first, slots in self.slots_by_version.items():
                if said >= first:
                    return slots
        return self.slots_by_host.get(host, self.slots)

    @property
    def needs_hosts(self) -> bool:
        """Whether a key is useless until the tenant's own host names are fixed with it."""
        return bool(self.hosts) and all(host.startswith("*.") for host in self.hosts)

    def has_host(self, host: str) -> bool:
        """Whether `host` is one of the exact names, or one label below a `*.` name."""
        return host in self.hosts or f"*.{host.partition('.')[2]}" in self.hosts
