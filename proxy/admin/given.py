"""The shapes of what the admin API answers; its description is made from the same models."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from proxy.admin.asked import Role
from proxy.cache.entry import Holding
from proxy.services import Service
from vault import AuditEntry, Backend, KeyRecord, Purge, Token


class Given(BaseModel):
    """What we answer."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class KeyGiven(Given):
    """A key, masked. `owner`: the vault, or the configuration file, where it is changed."""

    service: str
    alias: str
    masked: str
    default: bool
    hosts: list[str]
    owner: Literal["vault", "file"]
    version: int
    created: datetime
    changed: datetime

    @classmethod
    def of(cls, record: KeyRecord) -> Self:
        """From the vault's record."""
        ref = record.ref
        return cls(
            service=ref.service,
            alias=ref.alias,
            masked=record.masked,
            default=ref.default,
            hosts=list(ref.hosts),
            owner="file" if ref.declared else "vault",
            version=ref.version,
            created=_instant(record.created_at),
            changed=_instant(record.rotated_at or record.created_at),
        )


class TokenGiven(Given):
    """A token without its text. `services` null: all of them."""

    id: str
    name: str
    role: Role
    services: list[str] | None
    keys: dict[str, str]
    limits: list[str]
    upstream_limits: list[str]
    budget: int | None
    calls: int | None
    hosts: list[str]
    paths: list[str]
    methods: list[str]
    origins: list[str]
    state: Literal["good", "expired", "revoked"]
    created: datetime
    expires: datetime | None
    revoked: datetime | None

    @classmethod
    def of(cls, token: Token, now: float) -> Self:
        """From the vault's record."""
        return cls(**token_members(token, now))


class TokenIssued(TokenGiven):
    """A new token. `token`: its text, shown this once."""

    token: str


class ShortLivedGiven(Given):
    """A short-lived token. `token`: its text, shown this once; `services` null: all of the one that
    asked; `calls` null: any number."""

    token: str
    expires: datetime
    seconds: int
    services: list[str] | None
    hosts: list[str]
    paths: list[str]
    methods: list[str]
    origins: list[str]
    calls: int | None


class BackendGiven(Given):
    """A place where a service's key may go."""

    service: str
    url: str
    owner: Literal["vault", "file"]

    @classmethod
    def of(cls, place: Backend) -> Self:
        """From the vault's record."""
        owner: Literal["vault", "file"] = "file" if place.declared else "vault"
        return cls(service=place.service, url=str(place.binding), owner=owner)


class PartGiven(Given):
    """One part of a service's key."""

    name: str
    title: str
    secret: bool


class ServiceGiven(Given):
    """A service known by name. `parts`: what makes up its key; none: it needs no key."""

    name: str
    aliases: list[str]
    category: str
    hosts: list[str]
    base: str | None
    origin: str | None
    needs_hosts: bool
    parts: list[PartGiven]
    note: str

    @classmethod
    def of(cls, one: Service) -> Self:
        """From the registry."""
        parts = [PartGiven(name=p.name, title=p.title, secret=p.secret) for p in one.parts]
        return cls(
            name=one.name,
            aliases=list(one.aliases),
            category=one.category,
            hosts=list(one.hosts),
            base=one.base,
            origin=one.origin,
            needs_hosts=one.needs_hosts,
            parts=[] if one.keyless else parts,
            note=one.note,
        )


class HoldingGiven(Given):
    """How many answers of a service are kept; `service` null: of none."""

    service: str | None
    answers: int
    bytes: int


class CacheGiven(Given):
    """How many answers are kept."""

    answers: int
    bytes: int
    by_service: list[HoldingGiven]

    @classmethod
    def of(cls, held: Mapping[str, Holding]) -> Self:
        """From what the cache counts."""
        return cls(
            answers=sum(one.entries for one in held.values()),
            bytes=sum(one.octets for one in held.values()),
            by_service=[
                HoldingGiven(service=name or None, answers=one.entries, bytes=one.octets)
                for name, one in sorted(held.items())
            ],
        )


class PurgeGiven(Given):
    """What was purged: every answer that was kept `until` then."""

    service: str | None
    until: datetime

    @classmethod
    def of(cls, purge: Purge) -> Self:
        """From the vault's record."""
        return cls(service=purge.service, until=_instant(purge.at))


class ChangeGiven(Given):
    """Who did what to which thing, and when; never a value."""

    at: datetime
    actor: str
    action: str
    subject: str

    @classmethod
    def of(cls, entry: AuditEntry) -> Self:
        """From the audit log."""
        at = _instant(entry.at)
        return cls(at=at, actor=entry.actor, action=entry.action, subject=entry.subject)


class TenantGiven(Given):
    """The tenant of the token that asks, and how much it owns."""

    name: str
    keys: int
    tokens: int
    backends: int


class Page(Given):
    """A part of a list. `next`: what to send as `after` for the part behind it, null at the end."""

    next: str | None


class Keys(Page):
    """Provider keys, masked."""

    items: list[KeyGiven]


class Tokens(Page):
    """Platform tokens, oldest first."""

    items: list[TokenGiven]


class Backends(Page):
    """Places where keys may go."""

    items: list[BackendGiven]


class Services(Page):
    """Services known by name."""

    items: list[ServiceGiven]


class Audit(Page):
    """Changes, newest first."""

    items: list[ChangeGiven]


class SdkError(BaseModel):
    """The same error as SDKs read it."""

    message: str
    type: str
    code: str
    param: str | None


class Problem(BaseModel):
    """Every refusal and failure (RFC 9457); `detail` says what to do."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    error: SdkError


def token_members(token: Token, now: float) -> dict[str, Any]:
    """What is told of a token."""
    return {
        "id": token.id,
        "name": token.name,
        "role": token.role,
        "services": None if token.services is None else sorted(token.services),
        "keys": dict(token.key_aliases),
        "limits": list(token.limits),
        "upstream_limits": list(token.upstream_limits),
        "budget": token.budget,
        "calls": token.calls,
        **{name: list(texts) for name, texts in token.narrowing._asdict().items()},
        "state": _state(token, now),
        "created": _instant(token.created_at),
        "expires": None if token.expires_at is None else _instant(token.expires_at),
        "revoked": None if token.revoked_at is None else _instant(token.revoked_at),
    }


def _state(token: Token, now: float) -> str:
    if token.revoked_at is not None:
        return "revoked"
    return "expired" if token.expires_at is not None and token.expires_at <= now else "good"


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
