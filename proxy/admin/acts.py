"""What an admin may do, alike for the API and the page: each act checks the role, and stays in the
tenant of the token that asks for it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, Unpack, cast

from proxy.cache.entry import CacheStats, Holding, StoreError
from proxy.clock import Clock
from proxy.config import make_key
from proxy.destinations import parse_registration, reachable
from proxy.errors import (
    Conflict,
    Forbidden,
    NotFound,
    RelayError,
    Unacceptable,
    Unavailable,
    UnknownService,
)
from proxy.injection import check_credential
from proxy.limits.grammar import in_order, parse_limit
from proxy.narrowing import canonical, narrowing_of
from proxy.services import CurrentServices, Service
from vault import (
    EVERY_CALL,
    AlreadyExists,
    AuditEntry,
    AuditWanted,
    Backend,
    Credential,
    Declared,
    Invalid,
    KeyRecord,
    Narrowing,
    NewToken,
    NotThere,
    Purge,
    Token,
    TokenChange,
    Vault,
    VaultError,
    looks_like_token,
)

READING = frozenset({"read", "admin"})
CHANGING = frozenset({"admin"})


class Kept(Protocol):
    """What is asked of the cache."""

    async def stats(self) -> CacheStats:
        """How much is stored; raises StoreError."""
        ...

    async def purge(self, purge: Purge) -> None:
        """Ends the answers that a purge covers, at once."""
        ...


@dataclass(frozen=True, slots=True)
class KeyName:
    """Which key of a tenant; `service` by its name or an alias of it."""

    service: str
    alias: str = "default"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A token to issue, in the tenant of whoever issues it. `keys`: an alias by service; limits as
    people write them, `60/minute`; `budget`: upstream calls in a calendar month; `calls`: in all,
    ever."""

    name: str
    role: str = "call"
    services: Sequence[str] = ()
    keys: Mapping[str, str] | None = None
    expires_at: float | None = None
    limits: Sequence[str] = ()
    upstream_limits: Sequence[str] = ()
    budget: int | None = None
    narrowing: Narrowing = EVERY_CALL
    calls: int | None = None


class Acts:
    """The verbs. Each takes the token of whoever acts, and raises RelayError with one sentence."""

    def __init__(self, vault: Vault, services: CurrentServices, kept: Kept, clock: Clock) -> None:
        self._vault = vault
        self._services = services
        self._kept = kept
        self._clock = clock

    @property
    def now(self) -> float:
        """Unix seconds."""
        return self._clock.now()

    # Keys.

    async def keys(self, who: Token) -> list[KeyRecord]:
        """The keys of the tenant, masked."""
        check_role(who, READING)
        with _told():
            return await self._vault.list_keys(who.tenant)

    async def add_key(
        self, who: Token, name: KeyName, credential: Credential, hosts: Sequence[str] = ()
    ) -> KeyRecord:
        """Seals a new key; the first of its service is the default."""
        vault = self._changing(who)
        service = self._service(name.service)
        with _judged():
            new = make_key(service, (who.tenant, name.alias), credential, hosts)
        with _told():
            return await vault.put_key(new)

    async def rotate_key(self, who: Token, name: KeyName, credential: Credential) -> KeyRecord:
        """A new version of a key, without a gap."""
        vault = self._changing(who)
        service = self._service(name.service)
        with _judged():
            check_credential(service, credential)
        with _told():
            return await vault.rotate_key(who.tenant, service.name, name.alias, credential)

    async def make_default(self, who: Token, name: KeyName) -> None:
        """The key that calls use when nobody names one."""
        vault = self._changing(who)
        with _told():
            await vault.make_default(who.tenant, self._canonical(name.service), name.alias)

    async def remove_key(self, who: Token, name: KeyName) -> None:
        """Ends a key with all its versions, at once."""
        vault = self._changing(who)
        with _told():
            await vault.remove_key(who.tenant, self._canonical(name.service), name.alias)

    # Tokens.

    async def tokens(self, who: Token) -> list[Token]:
        """The tokens of the tenant, the revoked too, oldest first."""
        check_role(who, READING)
        with _told():
            return await self._vault.list_tokens(who.tenant)

    async def issue_token(self, who: Token, wanted: Wanted) -> tuple[Token, str]:
        """A new token and its text, which is shown once and kept nowhere."""
        vault = self._changing(who)
        if looks_like_token(wanted.name.encode()):
            raise Unacceptable("Give it a name, not a token: a name stands in lists and logs.")
        new = NewToken(
            tenant=who.tenant,
            name=wanted.name,
            role=wanted.role,
            services=frozenset(self._service(name).name for name in wanted.services) or None,
            key_aliases={
                self._service(name).name: alias for name, alias in (wanted.keys or {}).items()
            },
            expires_at=wanted.expires_at,
            limits=self._limits(wanted.limits),
            upstream_limits=self._limits(wanted.upstream_limits),
            budget=wanted.budget,
            narrowing=self._narrowing(wanted.narrowing),
            calls=wanted.calls,
        )
        with _told():
            await self._refuse_absent_keys(new)
            return await vault.issue_token(new)

    async def change_token(self, who: Token, name_or_id: str, change: TokenChange) -> Token:
        """Gives a token other limits, within a second; what is not named stays."""
        vault = self._changing(who)
        if name_or_id in (who.id, who.name) and any(change.get(name) for name in Narrowing._fields):
            raise Conflict("This is the token that asks: narrow it with another one.")
        limits = {**change}
        for name, texts in change.items():
            if name in ("limits", "upstream_limits"):
                limits[name] = self._limits(cast(Sequence[str], texts))
            elif name in Narrowing._fields:
                with _judged():
                    limits[name] = canonical(name, cast(Sequence[str], texts))
        with _told():
            return await vault.change_token(who.tenant, name_or_id, cast(TokenChange, limits))

    async def revoke_token(self, who: Token, name_or_id: str) -> Token:
        """Ends a token for good, and the sessions that were begun with it; not the one that asks:
        the last admin would lock the door from outside."""
        vault = self._changing(who)
        if name_or_id in (who.id, who.name):
            raise Conflict("This is the token that asks: revoke it with another one.")
        with _told():
            return await vault.revoke_token(who.tenant, name_or_id)

    # Backends.

    async def backends(self, who: Token) -> list[Backend]:
        """The places of one's own where keys may go."""
        check_role(who, READING)
        with _told():
            return await self._vault.list_backends(who.tenant)

    async def add_backend(self, who: Token, service: str, url: str) -> Backend:
        """Registers a URL and all below its path for a service's key."""
        vault = self._changing(who)
        place = self._place(who, service, url)
        _refuse_unreachable(place)
        with _told():
            await vault.add_backend(place)
        return place

    async def remove_backend(self, who: Token, service: str, url: str) -> None:
        """Takes a registration back."""
        vault = self._changing(who)
        with _told():
            await vault.remove_backend(self._place(who, service, url))

    # What is known, kept and done.

    def services(self, who: Token, text: str = "") -> list[Service]:
        """The services known by name, or those with `text` in a name, a category or a host."""
        check_role(who, READING)
        wanted = text.lower()
        found = [one for one in self._services.all if any(wanted in w for w in _words(one))]
        return sorted(found, key=lambda one: one.name)

    def service(self, who: Token, name: str) -> Service:
        """One service by its name or an alias."""
        check_role(who, READING)
        return self._service(name)

    async def cache(self, who: Token) -> dict[str, Holding]:
        """How many answers of the tenant are kept, by service."""
        check_role(who, READING)
        try:
            stats = await self._kept.stats()
        except StoreError as error:
            raise Unavailable("The cache can't be read now; try again.", retry_after=5) from error
        mine = stats.holdings.items()
        return {service: held for (tenant, service), held in mine if tenant == who.tenant}

    async def purge(self, who: Token, service: str | None = None) -> Purge:
        """Ends the tenant's answers that are kept by now: of one service, or all."""
        vault = self._changing(who)
        name = self._service(service).name if service else None
        purge = Purge(self._clock.now(), who.tenant, name)
        with _told():
            await vault.purge(purge)
        await self._kept.purge(purge)
        return purge

    async def audit(
        self, who: Token, limit: int = 100, **wanted: Unpack[AuditWanted]
    ) -> Sequence[AuditEntry]:
        """The newest changes in the tenant that are wanted, newest first."""
        check_role(who, READING)
        wanted["tenant"] = who.tenant
        with _told():
            return await self._vault.audit(limit, **wanted)

    # Steps.

    def _changing(self, who: Token) -> Vault:
        """The vault as changed by this token."""
        check_role(who, CHANGING)
        return self._vault.acting_as(f"token {who.name}")

    def _service(self, name: str) -> Service:
        service = self._services.get(name)
        if service is None:
            near = difflib.get_close_matches(name, self._services.names, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "list them with GET services."
            raise UnknownService(f"No service has this name: {hint}")
        return service

    def _canonical(self, name: str) -> str:
        """What has gone from the registry can still be taken away."""
        return self._services.canonical(name) or name

    def _place(self, who: Token, service: str, url: str) -> Backend:
        name = self._service(service).name
        try:
            return Backend(who.tenant, name, parse_registration(url))
        except RelayError as error:
            raise Unacceptable(error.detail) from error

    def _limits(self, texts: Sequence[str]) -> tuple[str, ...]:
        """The canonical texts, with the services' own names."""
        with _judged():
            found = [parse_limit(text) for text in texts]
        named = [
            one._replace(service=one.service and self._service(one.service).name) for one in found
        ]
        with _judged():
            return tuple(map(str, in_order(named)))

    def _narrowing(self, said: Narrowing) -> Narrowing:
        with _judged():
            return narrowing_of(said)

    async def _refuse_absent_keys(self, new: NewToken) -> None:
        records = await self._vault.list_keys(new.tenant)
        held = {(record.ref.service, record.ref.alias) for record in records}
        for service, alias in new.key_aliases.items():
            if (service, alias) not in held:
                raise NotFound(f"There is no key {service}/{alias} yet; add it first.")


def check_role(who: Token, roles: frozenset[str]) -> None:
    """Raises Forbidden. A token for some services only would hand out what it does not have."""
    if who.role not in roles:
        needed = "admin" if roles == CHANGING else "read or admin"
        raise Forbidden(f"A token with the role {who.role} may not do this; use one with {needed}.")
    if who.services is not None:
        raise Forbidden("This token is for some services only; use one that is for all of them.")
    if any(who.narrowing):
        raise Forbidden("This token is narrowed to some calls; use one that may call everything.")


@contextmanager
def _told() -> Iterator[None]:
    """What the vault refuses, as an answer: its sentences are safe."""
    try:
        yield
    except (AlreadyExists, Declared) as error:
        raise Conflict(_sentence(error)) from error
    except NotThere as error:
        raise NotFound(_sentence(error)) from error
    except Invalid as error:
        raise Unacceptable(_sentence(error)) from error
    except VaultError as error:
        raise Unavailable("The key store does not answer; try again.", retry_after=5) from error


@contextmanager
def _judged() -> Iterator[None]:
    """What is wrong with a key, as an answer; such a sentence never holds the key."""
    try:
        yield
    except ValueError as error:
        raise Unacceptable(_sentence(error)) from error


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _refuse_unreachable(place: Backend) -> None:
    try:
        reachable(place.binding)
    except RelayError as error:
        raise Unacceptable(error.detail) from error


def _words(one: Service) -> tuple[str, ...]:
    return (one.name, *one.aliases, one.category, *one.hosts)
