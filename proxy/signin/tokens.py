"""Sign-in tokens: a JWT of a configured issuer, as the platform token that it stands for.

What was verified is known again by its hash, until the token is over, a key of its issuer is gone
or the configuration is another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Final

from proxy.authentication import UNKNOWN_CALLER
from proxy.clock import Clock
from proxy.config.signin import IssuerEntry
from proxy.errors import Unauthorized
from proxy.memo import Memo
from proxy.signin.claims import Holder, Wrong, judge
from proxy.signin.fetching import Fetches
from proxy.signin.jwt import Jwt, Unreadable, looks_like_jwt, parse
from proxy.signin.keyring import Keyring
from vault import Token

REMEMBERED: Final = 4096
LOOK_SECONDS: Final = 5.0
"""How many verified tokens are remembered; how often it is seen to whose keys are due."""


class SignIn:
    """Whoever signs in elsewhere. `generation`: another one, and no token is good by itself."""

    def __init__(self, entries: Sequence[IssuerEntry], fetcher: Fetches, clock: Clock) -> None:
        self._fetcher = fetcher
        self._clock = clock
        self.generation = 0
        self._verified: Memo[bytes, Token] = Memo(REMEMBERED, lambda: self.generation)
        self._issuers: dict[str, tuple[IssuerEntry, Keyring]] = {}
        self._gone: list[Keyring] = []
        self._following: asyncio.Task[None] | None = None
        self._started = False
        self.become(entries)

    def become(self, entries: Sequence[IssuerEntry]) -> None:
        """Other issuers from now on; who stays as it is keeps its keys."""
        before = self._issuers
        if [entry for entry, _ in before.values()] == list(entries):
            return
        self._issuers = {
            entry.issuer: (entry, self._kept(before.get(entry.issuer), entry)) for entry in entries
        }
        now = [keyring for _, keyring in self._issuers.values()]
        gone = [*self._gone, *(keyring for _, keyring in before.values())]
        self._gone = [one for one in gone if one.busy and one not in now]
        self._changed()
        self._follow()

    async def start(self) -> None:
        """Begins to fetch keys; nobody waits for them."""
        self._started = True
        self._follow()

    async def stop(self) -> None:
        """Ends that."""
        self._started = False
        if self._following is not None:
            self._following.cancel()
            with suppress(asyncio.CancelledError):
                await self._following
        for keyring in (*self._gone, *(keyring for _, keyring in self._issuers.values())):
            await keyring.close()

    def may_know(self, text: bytes) -> bool:
        """Whether a text may be a token of one of the issuers, by its form alone."""
        return bool(self._issuers) and looks_like_jwt(text)

    def knows(self, text: bytes) -> bool:
        """Whether a text is meant as a token of one of the issuers, good or not."""
        if not self.may_know(text):
            return False
        try:
            return self._named(parse(text)) is not None
        except Unreadable:
            return False

    def describe(self, text: bytes) -> str:
        """For the log: why a text that is not known is none of theirs; empty: it is no JWT."""
        if not self.may_know(text):
            return ""
        try:
            parse(text)
        except Unreadable as error:
            return f"a JWT that is not taken: {error}"
        return "a JWT of an issuer that sign_in does not name"

    async def verify(self, text: bytes) -> Token:
        """The token that a text stands for; raises Unauthorized, and Unavailable without keys."""
        basis = self._verified.basis()
        mark = sha256(text).digest()
        token = self._verified.get(mark)
        if token is not None and self._clock.now() < (token.expires_at or 0):
            return token
        token = await self._judged(text)
        self._verified.put(mark, token, basis)
        return token

    async def _judged(self, text: bytes) -> Token:
        name = "nobody"
        try:
            jwt = parse(text)
            entry, keyring = self._named(jwt) or _nobody()
            name = entry.name
            holder = judge(jwt.claims, entry, self._clock.now())
            await _check_signature(jwt, entry, keyring)
        except (Unreadable, Wrong) as error:
            refused = Unauthorized(UNKNOWN_CALLER)
            refused.why = f"a sign-in token of {name}: {error}"
            raise refused from None
        return _token(entry, holder)

    def _named(self, jwt: Jwt) -> tuple[IssuerEntry, Keyring] | None:
        issuer = jwt.claims.get("iss")
        return self._issuers.get(issuer) if isinstance(issuer, str) else None

    def _kept(self, before: tuple[IssuerEntry, Keyring] | None, entry: IssuerEntry) -> Keyring:
        if before is not None and before[0] == entry:
            return before[1]
        return Keyring(entry, self._fetcher, self._clock, self._changed)

    def _changed(self) -> None:
        self.generation += 1

    def _follow(self) -> None:
        if self._started and self._issuers and self._following is None:
            self._following = asyncio.get_running_loop().create_task(self._keep_fresh())

    async def _keep_fresh(self) -> None:
        while True:
            due = [keyring.refresh_if_due() for _, keyring in self._issuers.values()]
            await asyncio.gather(*due)
            await asyncio.sleep(LOOK_SECONDS)


async def _check_signature(jwt: Jwt, entry: IssuerEntry, keyring: Keyring) -> None:
    """By the algorithms that are pinned, and a key that is for this one."""
    if jwt.alg not in entry.algorithms:
        raise Wrong("its algorithm is none of those in the configuration")
    from proxy.signin.keyset import verified  # noqa: PLC0415 - the library, where it is used

    key = await keyring.find(jwt.alg, jwt.kid)
    if key is None:
        raise Wrong("no key of its issuer has its kid and fits its algorithm")
    if not verified(jwt, key):
        raise Wrong("its signature is not of its issuer's key")


def _nobody() -> tuple[IssuerEntry, Keyring]:
    raise Wrong("its issuer is configured no longer")


def _token(entry: IssuerEntry, holder: Holder) -> Token:
    """Named after issuer and subject; its id is the same each time, in each tenant another."""
    whose = "\0".join((entry.name, holder.tenant, holder.subject))
    return Token(
        id=f"{entry.name}/{sha256(whose.encode()).hexdigest()[:24]}",
        name=f"{entry.name}/{holder.subject}",
        tenant=holder.tenant,
        role="call",
        created_at=0.0,
        services=frozenset(entry.services) or None,
        expires_at=holder.good_until,
        narrowing=entry.narrowing,
    )
