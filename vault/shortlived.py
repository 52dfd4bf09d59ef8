"""Short-lived tokens: `kr_<id of the parent>_<claims><MAC><checksum>`, good without a row.

What one may is written in it, under a MAC of a data key of their own; where nothing narrower was
asked for, what its parent, the token that it was made with, might just then. The parent is looked
at with each call, in memory: nobody uses one longer or for more.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import secrets
from dataclasses import replace
from typing import Final, NamedTuple

from vault import tokens
from vault.core import Core
from vault.datakeys import SHORT_LIVED
from vault.errors import Invalid
from vault.issued import Issued
from vault.records import Narrowing, NewShortLived, ShortLived, Token
from vault.sealing import DataKey

LONGEST: Final = 4096
"""Octets of a text: it travels in a header field."""

_CALLING: Final = frozenset({"call", "admin"})
_SHAPE: Final = re.compile(
    rb"(?P<body>kr_(?P<id>[0-9A-Za-z]{12})_(?P<claims>[A-Z2-7]{16,}))"
    rb"(?P<mac>[A-Z2-7]{52})[0-9A-Za-z]{6}"
)


class Claims(NamedTuple):
    """What stands in a text, in this order. `run`: which run of the server counts the calls."""

    serial: str
    expires_at: float
    services: list[str] | None
    narrowing: list[list[str]]
    calls: int | None
    run: str


class ShortLiving:
    """The verbs for short-lived tokens."""

    def __init__(self, core: Core, issued: Issued) -> None:
        self._core = core
        self._issued = issued

    async def issue(self, parent: Token, new: NewShortLived) -> tuple[Token, str]:
        """A narrower token and its text; no longer good than its parent. Raises Invalid."""
        ends = new.expires_at if parent.expires_at is None else parent.expires_at
        services = _both(parent.services, new.services)
        kept = zip(new.narrowing, parent.narrowing, strict=True)
        claims = Claims(
            serial=secrets.token_hex(8),
            expires_at=min(ends, new.expires_at),
            services=None if services is None else sorted(services),
            narrowing=[list(asked or own) for asked, own in kept],
            calls=new.calls,
            run="" if new.calls is None else self._core.run,
        )
        key = await self._key() or await self._core.data_key(SHORT_LIVED)
        text = _sealed(parent.id, claims, key)
        if len(text) > LONGEST:
            raise Invalid("the token would be too long for a header field; name fewer things")
        return _narrowed(parent, claims), text.decode()

    async def verify(self, text: bytes) -> Token | None:
        """The token that a text is, within its parent as that is now; None for every reason."""
        found = _SHAPE.fullmatch(text) if len(text) <= LONGEST else None
        if found is None:
            return None
        key = await self._key()
        if key is None or not hmac.compare_digest(_mac(found["body"], key), found["mac"]):
            return None
        claims = Claims(*json.loads(_from_base32(found["claims"])))
        if claims.expires_at <= self._core.clock.now() or claims.run not in ("", self._core.run):
            return None
        parent = await self._issued.good(found["id"].decode())
        return None if parent is None or parent.role not in _CALLING else _narrowed(parent, claims)

    async def _key(self) -> DataKey | None:
        """The data key of the moment: looked for once after a change, which may have been another
        process making the first one, or a new one."""
        seen = self._core.seen
        if not seen.data_keys:
            await self._core.reload_data_keys()
            seen.data_keys = True
        return self._core.data_keys.current(SHORT_LIVED)


def describe(text: bytes) -> str:
    """For the log of a refusal: a typo, or a good form that nobody was given. Never the text."""
    found = _SHAPE.fullmatch(text) if len(text) <= LONGEST else None
    if found is not None and tokens.checks(text):
        parent = found["id"].decode()
        return (
            f"a well formed short-lived token of the id {parent}: over, with it or not, or forged"
        )
    parsed = tokens.parse(text)
    if isinstance(parsed, tokens.Malformed):
        return parsed.value
    return f"a well formed token with id {parsed.id}: unknown, revoked, expired or forged"


def _sealed(parent_id: str, claims: Claims, key: DataKey) -> bytes:
    octets = json.dumps(claims, separators=(",", ":")).encode()
    body = b"kr_" + parent_id.encode() + b"_" + _base32(octets)
    return tokens.checked(body + _mac(body, key))


def _mac(body: bytes, key: DataKey) -> bytes:
    hashing = key.hashing()
    hashing.update(body)
    return _base32(hashing.digest())


def _narrowed(parent: Token, claims: Claims) -> Token:
    """What parent and claims both allow; to call, and nothing else."""
    named = None if claims.services is None else frozenset(claims.services)
    ends = claims.expires_at
    narrowing = Narrowing(*map(tuple, claims.narrowing))
    return replace(
        parent,
        role="call",
        services=_both(parent.services, named),
        expires_at=ends if parent.expires_at is None else min(ends, parent.expires_at),
        short=ShortLived(claims.serial, narrowing, claims.calls),
    )


def _both(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    """The services that both allow; None: every one."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _base32(octets: bytes) -> bytes:
    return base64.b32encode(octets).rstrip(b"=")


def _from_base32(text: bytes) -> bytes:
    return base64.b32decode(text + b"=" * (-len(text) % 8))
