"""The configuration file's share: keys and backends that it owns, held in memory only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vault.errors import Declared
from vault.records import Backend, Holdings, KeyRecord, KeyRef, NewKey, Recognised
from vault.secret import Credential

Name = tuple[str, str, str]
_REMEDY = "is declared in the configuration file; change it there"


@dataclass(frozen=True, slots=True)
class DeclaredKey:
    """One key of the file with its fingerprint; the first of a (tenant, service) is the default."""

    new: NewKey
    fingerprint: bytes
    at: float
    default: bool

    def ref(self) -> KeyRef:
        """Version 0: the vault's own versions begin at 1."""
        new = self.new
        return KeyRef(new.tenant, new.service, new.alias, 0, self.default, new.hosts, declared=True)

    def record(self) -> KeyRecord:
        """The key as a list shows it."""
        masked = self.new.credential[self.new.recognised_by].masked()
        return KeyRecord(self.ref(), masked, self.at)


class Declarations:
    """What the file declares. Empty until it was read; replaced as a whole."""

    __slots__ = ("_backends", "_by_name")

    def __init__(self) -> None:
        self._by_name: dict[Name, DeclaredKey] = {}
        self._backends: list[Backend] = []

    def add_key(self, key: DeclaredKey) -> None:
        """Takes a key in; whoever reads the file calls `refuse_key` first."""
        self._by_name[key.new.tenant, key.new.service, key.new.alias] = key

    def add_backend(self, backend: Backend) -> None:
        """Takes a backend in, marked as the file's."""
        owner = (backend.tenant, backend.service)
        self._backends.append(Backend(*owner, backend.binding, declared=True))

    def credential(self, ref: KeyRef) -> Credential | None:
        """The parts of a declared key, or None."""
        key = self._by_name.get((ref.tenant, ref.service, ref.alias))
        return key.new.credential if key else None

    def keys(self, tenant: str | None = None) -> list[DeclaredKey]:
        """The declared keys of one tenant or of all, in the file's order."""
        return [key for key in self._by_name.values() if tenant in {None, key.new.tenant}]

    def backends(self, tenant: str | None = None) -> list[Backend]:
        """The declared backends of one tenant or of all, in the file's order."""
        return [backend for backend in self._backends if tenant in {None, backend.tenant}]

    def tenants(self) -> set[str]:
        """Every tenant that the file gives something."""
        owners = {key.new.tenant for key in self._by_name.values()}
        return owners | {backend.tenant for backend in self._backends}

    def recognise(self, fingerprint: bytes) -> list[Recognised]:
        """The declared keys with this fingerprint."""
        return [
            Recognised(key.ref())
            for key in self._by_name.values()
            if key.fingerprint == fingerprint
        ]

    def has_default(self, tenant: str, service: str) -> bool:
        """Whether the file names the default key of this service."""
        return any(key.new.service == service for key in self.keys(tenant))

    def refuse_key(self, tenant: str, service: str, alias: str) -> None:
        """Raises Declared where the file owns this key."""
        if (tenant, service, alias) in self._by_name:
            raise Declared(f"key {service}/{alias} of tenant {tenant} {_REMEDY}")

    def refuse_backend(self, backend: Backend) -> None:
        """Raises Declared where the file owns this backend."""
        if any(_same(backend, other) for other in self._backends):
            raise Declared(
                f"backend {backend.binding} for {backend.service} of tenant {backend.tenant} "
                + _REMEDY
            )

    def merge(self, stored: Holdings) -> Holdings:
        """The stored holdings with the file's share: its keys first, so that its default wins."""
        tenant = stored.tenant
        refs: dict[str, tuple[KeyRef, ...]] = {}
        for key in self.keys(tenant):
            refs[key.new.service] = (*refs.get(key.new.service, ()), key.ref())
        for service, own in stored.keys.items():
            refs[service] = (*refs.get(service, ()), *self.beside(own))
        backends = (*stored.backends, *self.backends(tenant))
        return Holdings(tenant, refs, backends)

    def beside(self, refs: Iterable[KeyRef]) -> list[KeyRef]:
        """Stored keys beside the file's: none twice, and no default where the file has one."""
        return [
            _not_default(ref) if self.has_default(ref.tenant, ref.service) else ref
            for ref in refs
            if (ref.tenant, ref.service, ref.alias) not in self._by_name
        ]


def _same(one: Backend, other: Backend) -> bool:
    return (one.tenant, one.service, one.binding) == (other.tenant, other.service, other.binding)


def _not_default(ref: KeyRef) -> KeyRef:
    return KeyRef(ref.tenant, ref.service, ref.alias, ref.version, hosts=ref.hosts)
