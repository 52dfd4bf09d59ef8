"""Issued tokens: issue, list, change, revoke, and verify one that a caller presents."""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import Row, Select, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from vault import tokens
from vault.audit import Change
from vault.core import Core
from vault.errors import AlreadyExists, Invalid, NotThere, Unopenable
from vault.names import (
    check_calls,
    check_limits,
    check_names,
    check_narrowing,
    check_role,
    check_token_name,
    tenant_option,
)
from vault.records import Narrowing, NewToken, Token, TokenChange
from vault.registering import entry_in, refused
from vault.tables import TOKENS

_T: Final = TOKENS.c
# What a token without a digest is compared with, so that every refusal does the same work.
_NOBODY: Final = bytes(32)


class Issued:
    """The verbs for platform tokens."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def issue(self, new: NewToken) -> tuple[Token, str]:
        """A new token and its text, which is not kept. Raises AlreadyExists, Invalid."""
        self._check(new)
        minted = tokens.mint()
        async with self._core.changing() as change:
            taken = select(_T.id).where(_T.tenant == new.tenant, _T.name == new.name)
            live = taken.where(_T.revoked_at.is_(None))
            if (await change.connection.execute(live)).first() is not None:
                raise AlreadyExists(
                    f"tenant {new.tenant} has a token named {new.name} already; take another name "
                    f"or end that one with: keyrelay token revoke {new.name}"
                    + tenant_option(new.tenant)
                )
            token = _token(minted.id, new, change.at)
            await _insert(change, token, minted.digest)
            await change.record("token issue", token.tenant, _subject(token))
        return token, minted.text

    async def list(self, tenant: str | None) -> list[Token]:
        """Every token of one tenant or of all, the revoked too, oldest first."""
        query = select(TOKENS).order_by(_T.created_at, _T.id)
        if tenant is not None:
            query = query.where(_T.tenant == tenant)
        async with self._core.reading() as connection:
            return [_stored(row) for row in await connection.execute(query)]

    async def change(self, tenant: str, name_or_id: str, wanted: TokenChange) -> Token:
        """Gives a token other limits; raises NotThere, Invalid."""
        if not wanted:
            raise Invalid("say what is to be different about the token")
        limits = (*wanted.get("limits", ()), *wanted.get("upstream_limits", ()))
        check_limits(limits, wanted.get("budget"))
        check_calls(wanted.get("calls"))
        check_narrowing(_narrowing(wanted))
        async with self._core.changing() as change:
            token_id = await _live(change, tenant, name_or_id, "changed")
            values = {name: _column(value) for name, value in wanted.items()}
            await _write(change, token_id, values)
            return await _told(change, token_id, "token set")

    async def revoke(self, tenant: str, name_or_id: str) -> Token:
        """Ends a token, found by its id or else by its name; raises NotThere."""
        async with self._core.changing() as change:
            token_id = await _live(change, tenant, name_or_id, "revoked")
            # Also of one that somebody has changed: this is how to be rid of it.
            await _write(change, token_id, {"revoked_at": change.at}, judged=True)
            return await _told(change, token_id, "token revoke")

    async def verify(self, text: bytes) -> Token | None:
        """The token that this text is, or None: malformed, unknown, wrong, expired or revoked."""
        parsed = tokens.parse(text)
        if isinstance(parsed, tokens.Malformed):
            tokens.matches(sha256(text).digest(), _NOBODY)
            return None
        token, digest = await self._opened_by(parsed)
        good = tokens.matches(parsed.digest, digest)
        return token if good and token is not None and self._valid(token) else None

    async def good(self, token_id: str) -> Token | None:
        """The token of this id, or None: unknown, expired or revoked."""
        token, _ = await self._held(token_id)
        return token if token is not None and self._valid(token) else None

    async def _opened_by(self, parsed: tokens.ParsedToken) -> tuple[Token | None, bytes]:
        """The token of an id, from memory if the secret fits. Where it does not, or nobody has the
        id, the same is done: whoever asks can't tell the one from the other by the time."""
        seen = self._core.seen
        if seen.refused.get(parsed.digest):
            return None, _NOBODY
        held = seen.tokens.get(parsed.id) or (None, _NOBODY)
        if tokens.matches(parsed.digest, held[1]):
            return held
        async with self._core.reading() as connection:
            digest: bytes = await connection.scalar(_digest_of(parsed.id))
            if not tokens.matches(parsed.digest, digest):
                seen.refused.put(parsed.digest, True)
                return None, _NOBODY
            row = (await connection.execute(select(TOKENS).where(_T.id == parsed.id))).one()
            held = await self._judged(connection, row), digest
        seen.tokens.put(parsed.id, held)
        return held

    async def _held(self, token_id: str) -> tuple[Token | None, bytes]:
        seen = self._core.seen.tokens
        held = seen.get(token_id)
        if held is None:
            held = await self._look_up(token_id)
            seen.put(token_id, held)
        return held

    async def _look_up(self, token_id: str) -> tuple[Token | None, bytes]:
        async with self._core.reading() as connection:
            query = select(TOKENS).where(_T.id == token_id)
            row = (await connection.execute(query)).first()
            if row is None:
                return None, _NOBODY
            return await self._judged(connection, row), row.digest

    async def _judged(self, connection: AsyncConnection, row: Row[Any]) -> Token:
        """A row's token; raises Unopenable where it is not as it was written last."""
        entry = entry_in(row, TOKENS)
        if not (await self._core.register(connection)).knows(entry):
            raise refused(entry.name)
        return _stored(row)

    def _valid(self, token: Token) -> bool:
        alive = token.expires_at is None or self._core.clock.now() < token.expires_at
        return alive and token.revoked_at is None

    def _check(self, new: NewToken) -> None:
        check_names(tenant=new.tenant)
        check_token_name(new.name)
        check_role(new.role)
        _check_services(new.services or ())
        _check_services(new.key_aliases)
        for alias in new.key_aliases.values():
            check_names(alias=alias)
        check_limits((*new.limits, *new.upstream_limits), new.budget)
        check_calls(new.calls)
        check_narrowing(new.narrowing)
        if new.services is not None and not new.services:
            raise Invalid("a token for no service is of no use; name one, or leave all open")
        if new.expires_at is not None and new.expires_at <= self._core.clock.now():
            raise Invalid("the token would be over already; name a time that is ahead")


def _digest_of(token_id: str) -> Select[tuple[bytes]]:
    """One row with one digest, read in the same way whether somebody has the id or not: where
    nobody has, it is a neighbour's, which no text with this id fits, as it is that of a whole text.
    """
    before = select(_T.digest).where(_T.id <= token_id).order_by(_T.id.desc()).limit(1)
    first = select(_T.digest).order_by(_T.id).limit(1)
    return select(func.coalesce(before.scalar_subquery(), first.scalar_subquery(), _NOBODY))


def _check_services(services: Iterable[str]) -> None:
    for service in services:
        check_names(service=service)


async def remove_all(change: Change, tenant: str) -> None:
    """Ends and forgets every token of a tenant."""
    await change.book.write(delete(TOKENS).where(_T.tenant == tenant))


async def _live(change: Change, tenant: str, name_or_id: str, to_be: str) -> str:
    """The id of a token that is not revoked, by its id or else by its name; raises NotThere."""
    called = or_(_T.id == name_or_id, _T.name == name_or_id)
    query = select(_T.id).where(_T.tenant == tenant, called, _T.revoked_at.is_(None))
    found = list(await change.connection.scalars(query))
    if not found:
        is_token = tokens.looks_like_token(name_or_id.encode())
        such = "of that text" if is_token else repr(name_or_id)
        raise NotThere(
            f"tenant {tenant} has no token {such} that could be {to_be}; "
            f"see what there is with: keyrelay token list{tenant_option(tenant)}"
        )
    return name_or_id if name_or_id in found else str(found[0])


async def _write(
    change: Change, token_id: str, values: dict[str, object], *, judged: bool = False
) -> None:
    mine = update(TOKENS).where(_T.id == token_id)
    await change.book.write(mine.values(**values), judged=judged)


async def _told(change: Change, token_id: str, action: str) -> Token:
    again = await change.connection.execute(select(TOKENS).where(_T.id == token_id))
    token = _stored(again.one())
    await change.record(action, token.tenant, _subject(token))
    return token


def _narrowing(wanted: TokenChange) -> Narrowing:
    """What of a change narrows a token."""
    return Narrowing(
        wanted.get("hosts", ()),
        wanted.get("paths", ()),
        wanted.get("methods", ()),
        wanted.get("origins", ()),
    )


def _column(value: object) -> object:
    return json.dumps(value) if isinstance(value, tuple) else value


async def _insert(change: Change, token: Token, digest: bytes) -> None:
    services = None if token.services is None else json.dumps(sorted(token.services))
    values = {
        "id": token.id,
        "tenant": token.tenant,
        "name": token.name,
        "role": token.role,
        "services": services,
        "key_aliases": json.dumps(dict(token.key_aliases), sort_keys=True),
        "digest": digest,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "limits": _column(token.limits),
        "upstream_limits": _column(token.upstream_limits),
        "budget": token.budget,
        "calls": token.calls,
        **{name: _column(texts) for name, texts in token.narrowing._asdict().items() if texts},
    }
    await change.book.write(insert(TOKENS).values(**values))


def _token(token_id: str, new: NewToken, at: float) -> Token:
    scope = (new.services, dict(new.key_aliases), new.expires_at, None)
    limits = (new.limits, new.upstream_limits, new.budget, new.narrowing)
    return Token(token_id, new.name, new.tenant, new.role, at, *scope, *limits, calls=new.calls)


def _stored(row: Row[Any]) -> Token:
    try:
        services = None if row.services is None else frozenset(json.loads(row.services))
        key_aliases = dict(json.loads(row.key_aliases))
        limits = tuple(json.loads(row.limits or "[]"))
        upstream_limits = tuple(json.loads(row.upstream_limits or "[]"))
        members = {
            name: tuple(json.loads(getattr(row, name) or "[]")) for name in Narrowing._fields
        }
    except (ValueError, TypeError) as error:
        raise Unopenable(
            f"token {row.id} of tenant {row.tenant} is damaged; restore the database from a backup"
        ) from error
    scope = (services, key_aliases, row.expires_at, row.revoked_at)
    counted = (limits, upstream_limits, row.budget, Narrowing(**members))
    whose = (row.id, row.name, row.tenant, row.role, row.created_at)
    return Token(*whose, *scope, *counted, calls=row.calls)


def _subject(token: Token) -> str:
    return f"{token.name} ({token.id})"
