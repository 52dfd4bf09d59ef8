"""Sign-in for people: a token once, then a cookie that ends soon, with its token, or at will.

Sessions live in memory, so that a restart ends them too, unless instances share them. Of a cookie
only the hash is kept.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Protocol

from proxy.admin.acts import CHANGING, check_role
from proxy.authentication import UNKNOWN_CALLER
from proxy.clock import Clock
from proxy.errors import Forbidden, Unauthorized, Unavailable
from proxy.messages import Field, Fields, values
from proxy.wrongs import UNBOUNDED, Wrongs, judged
from vault import Token, VaultError, describe_token

_log = logging.getLogger("keyrelay.admin")

COOKIE: Final = "__Host-keyrelay"
IDLE_SECONDS: Final = 30 * 60
LONGEST_SECONDS: Final = 8 * 3600
MOST: Final = 1024
MOST_OF_ONE: Final = 16
"""Sessions that there are at once, in all and of one token: beyond it old ones end."""

_ATTRIBUTES: Final = "Path=/; Secure; HttpOnly; SameSite=Strict"
_STALE_FORM: Final = "The page is out of date: load it again, then repeat the change."


class Tokens(Protocol):
    """What is asked of the vault."""

    async def verify_token(self, text: bytes) -> Token | None:
        """The token, or None for every reason."""
        ...

    async def good_token(self, token_id: str) -> Token | None:
        """The token of an id as it is now; None once it is over."""
        ...


class Witness(Protocol):
    """Hears of who signed in and out, and who could not."""

    def signed_in(self, tenant: str, name: str) -> None:
        """Somebody did, with this token."""
        ...

    def not_signed_in(self, why: str, tenant: str = "") -> None:
        """Somebody could not; `why` holds nothing of what they typed."""
        ...

    def signed_out(self, tenant: str, token_id: str) -> None:
        """Somebody did, who had signed in with this token."""
        ...


class _Unseen:
    def signed_in(self, _tenant: str, _name: str) -> None:
        """Nobody listens."""

    def not_signed_in(self, _why: str, _tenant: str = "") -> None:
        """Nobody listens."""

    def signed_out(self, _tenant: str, _token_id: str) -> None:
        """Nobody listens."""


Kept = tuple[str, str, float, float]
"""A session between processes: token, tenant, since when, and when last used."""


class Peers(Protocol):
    """Other processes where people may have signed in."""

    @property
    def hears(self) -> bool:
        """Whether an end elsewhere is told here; where it is not, each look asks for one."""
        ...

    def follow(
        self,
        learn: Callable[[bytes, Kept], None],
        forget: Callable[[bytes], None],
        recall: Callable[[], dict[bytes, Kept]],
    ) -> None:
        """Who is told of them, and knows those of here."""
        ...

    async def opened(self, name: bytes, kept: Kept) -> None:
        """A session has begun here; from now on `find` finds it elsewhere."""
        ...

    async def find(self, name: bytes) -> Kept | None:
        """One that began elsewhere."""
        ...

    def used(self, name: bytes, at: float) -> None:
        """It was used here."""
        ...

    def ended(self, name: bytes) -> None:
        """It is over."""
        ...


UNSEEN: Final[Witness] = _Unseen()
"""Where nobody listens."""


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is signed in. `csrf` stands in every form that changes something."""

    who: Token
    csrf: str = field(repr=False)


@dataclass(slots=True)
class _Open:
    """A session as it is kept; times are monotonic seconds."""

    token_id: str
    tenant: str
    began: float
    used: float


class Sessions:
    """Who is signed in."""

    def __init__(
        self, tokens: Tokens, clock: Clock, wrongs: Wrongs = UNBOUNDED, witness: Witness = UNSEEN
    ) -> None:
        self._peers: Peers | None = None
        self._tokens = tokens
        self._witness = witness
        self._wrongs = wrongs
        self._clock = clock
        self._open: dict[bytes, _Open] = {}

    async def sign_in(self, text: bytes, peer: str = "") -> Field:
        """The Set-Cookie field of a new session; raises Unauthorized, TooManyGuesses, Forbidden,
        Unavailable."""
        with judged(self._wrongs, peer, text):
            token = await self._verified(text)
        try:
            check_role(token, CHANGING)
        except Forbidden:
            self._witness.not_signed_in(f"{token.name}, a token that may not", token.tenant)
            raise
        self._witness.signed_in(token.tenant, token.name)
        cookie = secrets.token_urlsafe(32)
        now, name = self._clock.monotonic(), _hashed(cookie)
        self._keep(name, _Open(token.id, token.tenant, now, now))
        if self._peers is not None:
            await self._peers.opened(name, (token.id, token.tenant, now, now))
        line = f"{COOKIE}={cookie}; {_ATTRIBUTES}; Max-Age={LONGEST_SECONDS}"
        return b"set-cookie", line.encode()

    async def _verified(self, text: bytes) -> Token:
        try:
            token = await self._tokens.verify_token(text)
        except VaultError as error:
            raise Unavailable("The key store does not answer; try again.", retry_after=5) from error
        if token is None:
            why = describe_token(text)
            _log.info("sign-in refused: %s", why)
            self._witness.not_signed_in(why)
            raise Unauthorized(UNKNOWN_CALLER)
        return token

    async def find(self, fields: Fields, *, used: bool = True) -> Session | None:
        """Whose request this is, by its cookie; None: nobody is signed in. Raises Unavailable.

        The token is looked up each time: what ended it ends its sessions. `used` False: nobody did
        anything, an open page renews itself.
        """
        cookie = _cookie(fields)
        session = await self._known(_hashed(cookie)) if cookie else None
        if cookie is None or session is None:
            return None
        try:
            token = await self._tokens.good_token(session.token_id)
        except VaultError as error:
            raise Unavailable("The key store does not answer; try again.", retry_after=5) from error
        if token is None or token.role not in CHANGING or token.services is not None:
            self._end(_hashed(cookie))
            return None
        if used:
            session.used = self._clock.monotonic()
            if self._peers is not None:
                self._peers.used(_hashed(cookie), session.used)
        return Session(token, _csrf(cookie))

    def sign_out(self, fields: Fields) -> Field:
        """Ends the session; the Set-Cookie field that lets the browser forget it."""
        cookie = _cookie(fields)
        if cookie:
            known = self._open.get(_hashed(cookie))
            if known is not None:
                self._witness.signed_out(known.tenant, known.token_id)
            self._end(_hashed(cookie))
        return b"set-cookie", f"{COOKIE}=; {_ATTRIBUTES}; Max-Age=0".encode()

    def share(self, peers: Peers) -> None:
        """From now on these are sessions of several processes."""
        self._peers = peers
        peers.follow(
            lambda name, kept: self._keep(name, _Open(*kept)),
            self._forget,
            lambda: {name: _kept(one) for name, one in self._open.items()},
        )

    @property
    def are_shared(self) -> bool:
        """Whether they are those of several processes."""
        return self._peers is not None

    async def _known(self, name: bytes) -> _Open | None:
        """A session that is not over; perhaps it began elsewhere, or was used there."""
        session = self._open.get(name)
        lives = session is not None and not self._over(session)
        if lives and (self._peers is None or self._peers.hears):
            return session
        found = None if self._peers is None else await self._peers.find(name)
        if found is None or self._over(_Open(*found)):
            self._forget(name)
            return None
        session = self._open[name] = _Open(*found)
        return session

    def _forget(self, name: bytes) -> None:
        self._open.pop(name, None)

    def _end(self, name: bytes) -> None:
        self._forget(name)
        if self._peers is not None:
            self._peers.ended(name)

    def _keep(self, kept: bytes, session: _Open) -> None:
        for name in [name for name, one in self._open.items() if self._over(one)]:
            del self._open[name]
        mine = [name for name, one in self._open.items() if one.token_id == session.token_id]
        if len(mine) >= MOST_OF_ONE:
            self._end(mine[0])
        if len(self._open) >= MOST:
            self._make_room()
        self._open[kept] = session

    def _make_room(self) -> None:
        """The oldest of the tenant that has the most: no tenant ends another's by signing in."""
        [(most, _)] = Counter(one.tenant for one in self._open.values()).most_common(1)
        self._end(next(name for name, one in self._open.items() if one.tenant == most))

    def _over(self, session: _Open) -> bool:
        now = self._clock.monotonic()
        return now >= min(session.used + IDLE_SECONDS, session.began + LONGEST_SECONDS)


def has_cookie(fields: Fields) -> bool:
    """Whether somebody was signed in: the browser keeps a cookie of ours, good or not."""
    return _cookie(fields) is not None


def check_csrf(session: Session, given: str) -> None:
    """Whether a form or the field X-CSRF-Token is of this session's own page; raises Forbidden."""
    if not hmac.compare_digest(session.csrf.encode(), given.encode()):
        raise Forbidden(_STALE_FORM)


def _cookie(fields: Fields) -> str | None:
    """What stands behind our name; whatever else stands in the field (RFC 6265 section 4.2.1)."""
    for text in values(fields, b"cookie"):
        for pair in text.decode("latin-1").split(";"):
            name, _, content = pair.strip().partition("=")
            if name == COOKIE and content:
                return content
    return None


def _kept(session: _Open) -> Kept:
    return session.token_id, session.tenant, session.began, session.used


def _hashed(cookie: str) -> bytes:
    return sha256(cookie.encode()).digest()


def _csrf(cookie: str) -> str:
    """Bound to the session, and of no use to find its cookie."""
    return hmac.digest(cookie.encode(), b"keyrelay csrf", "sha256").hex()
