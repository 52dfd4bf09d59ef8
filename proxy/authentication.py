"""Call and credentials to Client: who calls, by a platform token or by a key we handed out."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from math import inf
from typing import Protocol

from proxy.call import Call, Directions
from proxy.clock import Clock
from proxy.destinations import (
    Target,
    query_parameter,
    without_parameters,
)
from proxy.errors import BadRequest, Forbidden, TooManyGuesses, Unauthorized, Unavailable
from proxy.fields import request_fields
from proxy.grant import Allowance, Client, OwnLimits
from proxy.leaks import holds_token
from proxy.messages import Fields, values
from proxy.narrowing import check_origin
from proxy.services.model import Service
from proxy.services.slots import every_slot, query_names
from proxy.shown import OWN_SLOTS, Shown, in_fields, target_of
from proxy.wrongs import UNBOUNDED, Wrongs, judged
from vault import (
    Holdings,
    Narrowing,
    Recognised,
    Token,
    VaultError,
    describe_token,
    looks_like_token,
)

_log = logging.getLogger("keyrelay.authentication")

CALLING_ROLES = frozenset({"call", "admin"})

UNKNOWN_CALLER = (
    "Send a valid platform token, for example as 'Authorization: Bearer kr_...'; "
    "in a shell quote the URL, since an unquoted & cuts it and what follows is lost."
)

_NO_STORE = "The key store does not answer; try again."

COPIED_TOKEN = "The platform token also stands in a place that would be forwarded; send it once."  # noqa: S105


class Credentials(Protocol):
    """What is asked of the vault."""

    async def verify_token(self, text: bytes) -> Token | None:
        """The token, or None for every reason."""
        ...

    async def recognise(self, presented: bytes) -> tuple[Recognised, ...]:
        """The key versions that have these octets."""
        ...

    async def holdings(self, tenant: str) -> Holdings:
        """What a tenant holds."""
        ...


class KnownServices(Protocol):
    """What is asked of the services."""

    @property
    def credential_headers(self) -> frozenset[bytes]:
        """Lower-case names of every field in which a known service carries its key."""
        ...

    def get(self, name: str) -> Service | None:
        """The service of a name or alias."""
        ...

    def candidates(self, host: str) -> tuple[Service, ...]:
        """The services whose host it is."""
        ...

    def of_origin(self, target: Target) -> tuple[Service, ...]:
        """The services whose origin covers a destination."""
        ...


class SignsIn(Protocol):
    """What is asked of whoever knows the tokens of other people's logins."""

    def may_know(self, text: bytes) -> bool:
        """Whether a text is worth to be read, which costs more than the look at its form."""
        ...

    def knows(self, text: bytes) -> bool:
        """Whether a text is meant as one, good or not."""
        ...

    def describe(self, text: bytes) -> str:
        """For the log: why a text that is not known is none; empty: it looks like none."""
        ...

    async def verify(self, text: bytes) -> Token:
        """The token that it stands for; raises Unauthorized, Unavailable."""
        ...


class NobodySignsIn:
    """There are no tokens but ours."""

    def may_know(self, text: bytes) -> bool:  # noqa: ARG002 - as the others
        """Never."""
        return False

    def knows(self, text: bytes) -> bool:  # noqa: ARG002
        """Never."""
        return False

    def describe(self, text: bytes) -> str:  # noqa: ARG002
        """Nothing to say."""
        return ""

    async def verify(self, text: bytes) -> Token:  # noqa: ARG002
        """None is good."""
        raise Unauthorized(UNKNOWN_CALLER)


_NOBODY = NobodySignsIn()
_NOTHING = Shown(b"", b"")


@dataclass(frozen=True, slots=True)
class HandedOut:
    """The rules for callers that show a key instead of a token. `grace` in seconds."""

    accepted: bool = True
    grace: float = 3600.0


class Authenticator:
    """Finds the credential, asks the vault, and answers every failure alike."""

    def __init__(
        self,
        vault: Credentials,
        services: KnownServices,
        clock: Clock,
        handed_out: HandedOut,
        wrongs: Wrongs = UNBOUNDED,
    ) -> None:
        self._vault = vault
        self._services = services
        self._clock = clock
        self._handed_out = handed_out
        self._wrongs = wrongs
        self._sign_in: SignsIn = _NOBODY

    def also_by(self, sign_in: SignsIn) -> None:
        """Takes the tokens of other people's logins too."""
        self._sign_in = sign_in

    async def authenticate(self, call: Call) -> Client:
        """Who calls. Raises Unauthorized, Forbidden, BadRequest; TooManyGuesses where too many were
        wrong before; Unavailable without a vault."""
        if len(values(call.fields, b"authorization")) > 1:
            raise BadRequest("Send one Authorization field, not several.")
        shown = self._shown(call)
        token = self._token_in(shown, call.peer)
        decides = token or next(iter(shown), _NOTHING)
        with judged(self._wrongs, call.peer, decides.text):
            return await self._client(call, token, shown)

    async def _client(self, call: Call, token: Shown | None, shown: list[Shown]) -> Client:
        try:
            if token is not None:
                return await self._by_token(call, token, shown)
            return await self._by_handed_out_key(call, shown)
        except VaultError as error:
            raise Unavailable(_NO_STORE, retry_after=5).because(error) from error

    def become(self, handed_out: HandedOut) -> None:
        """Other rules for keys that we handed out, from now on."""
        self._handed_out = handed_out

    async def holder(self, fields: Fields, peer: str = "") -> Token:
        """Whose token a page is asked with, whatever its role; a handed-out key is none.

        Raises Unauthorized, TooManyGuesses; Forbidden for one that is for calls alone, and for a
        page of another origin than the token names; Unavailable without a vault.
        """
        shown = list(in_fields(fields, frozenset()))
        token = self._token_in(shown, peer)
        decides = token or next(iter(shown), _NOTHING)
        with judged(self._wrongs, peer, decides.text):
            try:
                found = await self._verified(decides.text)
            except VaultError as error:
                raise Unavailable(_NO_STORE, retry_after=5) from error
            except Unauthorized as error:
                _log.info("token refused: %s", error.why)  # pages are no calls
                raise
        if found.short is not None or not looks_like_token(decides.text):
            raise Forbidden(
                "A short-lived or sign-in token is for calls alone; use a platform token."
            )
        check_origin(found.narrowing, fields)
        return found

    async def _verified(self, text: bytes) -> Token:
        """The token that a text is; one answer for every reason, the log is told which."""
        if self._sign_in.knows(text):
            return await self._sign_in.verify(text)
        token = await self._vault.verify_token(text)
        if token is None:
            refused = Unauthorized(UNKNOWN_CALLER)
            refused.why = self._sign_in.describe(text) or describe_token(text)
            raise refused
        return token

    def _token_in(self, shown: list[Shown], peer: str) -> Shown | None:
        """The first that looks like a token."""
        return next((one for one in shown if self._is_token(one.text, peer)), None)

    def _is_token(self, text: bytes, peer: str) -> bool:
        if looks_like_token(text):
            return True
        return self._is_read(text, peer) and self._sign_in.knows(text)

    def _is_read(self, text: bytes, peer: str) -> bool:
        """Whether it is looked into what may be a sign-in token: not where a flood of wrong ones
        comes from, unless it was good before. What decides then is refused, whatever it is."""
        if not self._sign_in.may_know(text):
            return False
        try:
            self._wrongs.check(peer, text)
        except TooManyGuesses:
            return False
        return True

    def _shown(self, call: Call) -> list[Shown]:
        shown = list(in_fields(call.fields, self._services.credential_headers))
        target = target_of(call)
        if target is not None:
            for name in self._parameters(call, target):
                text = query_parameter(target.query, name)
                if text:
                    shown.append(Shown(b"?", text.encode()))
        return shown

    def _parameters(self, call: Call, target: Target) -> frozenset[str]:
        """The parameters in which the called service carries its key."""
        service = call.directions.service if isinstance(call.directions, Directions) else None
        called = self._services.get(service) if service else None
        known = (called,) if called else self._services.of_origin(target)
        known = known or self._services.candidates(target.host)
        return query_names(slot for one in known for slot in every_slot(one))

    async def _by_token(self, call: Call, decides: Shown, shown: list[Shown]) -> Client:
        token = await self._verified(decides.text)
        if token.role not in CALLING_ROLES:
            raise Forbidden(f"A token with the role {token.role} can't call; use one that may.")
        self._refuse_copies(call, decides.text)
        return Client(
            name=token.name,
            token_id=token.id,
            holdings=await self._vault.holdings(token.tenant),
            services=token.services,
            key_aliases=token.key_aliases,
            may_bring_own=decides.slot in OWN_SLOTS and not self._holds_tokens(call, shown),
            good_until=inf if token.expires_at is None else token.expires_at,
            limits=_own_limits(token),
            narrowings=_narrowings(token),
        )

    async def _by_handed_out_key(self, call: Call, shown: list[Shown]) -> Client:
        found: dict[str, list[Recognised]] = {}
        for one in shown if self._handed_out.accepted else ():
            for key in await self._vault.recognise(one.text):
                if await self._is_good(key):
                    found.setdefault(key.ref.tenant, []).append(key)
            if found:
                break
        if len(found) > 1:
            raise Unauthorized("This key belongs to several tenants; send X-Relay-Token as well.")
        if not found:
            refused = Unauthorized(UNKNOWN_CALLER)
            refused.why = next(
                filter(None, (self._sign_in.describe(one.text) for one in shown)), ""
            )
            raise refused
        self._refuse_copies(call, b"")
        [(tenant, keys)] = found.items()
        return Client(
            name=f"key:{keys[0].ref.service}/{keys[0].ref.alias}",
            holdings=await self._vault.holdings(tenant),
            handed_out=tuple(key.ref for key in keys),
            good_until=min(map(self._end, keys)),
        )

    async def _is_good(self, key: Recognised) -> bool:
        if self._clock.now() >= self._end(key):
            return False
        backends = (await self._vault.holdings(key.ref.tenant)).backends
        return any(backend.service == key.ref.service for backend in backends)

    def _end(self, key: Recognised) -> float:
        return inf if key.retired_at is None else key.retired_at + self._handed_out.grace

    def _refuse_copies(self, call: Call, text: bytes) -> None:
        """No platform token, whosever, and not the text that decided, may travel on in a place
        that is forwarded (contract section 3)."""
        forwarded = request_fields(call.fields, self._services.credential_headers)
        places = [content for _, content in forwarded]
        target = target_of(call)
        if target is not None:
            query = without_parameters(target.query, self._parameters(call, target))
            places.append(replace(target, query=query).url.encode())
        if any(holds_token(place, text) for place in places):
            raise BadRequest(COPIED_TOKEN)

    def _holds_tokens(self, call: Call, shown: list[Shown]) -> bool:
        """Whether a token stands where else a caller's own key would, and be forwarded."""
        target = target_of(call)
        in_target = target is not None and holds_token(target.url.encode())
        return in_target or any(
            one.slot not in OWN_SLOTS and (holds_token(one.text) or self._sign_in.knows(one.text))
            for one in shown
        )


def _own_limits(token: Token) -> OwnLimits | None:
    allowance = None
    if token.short is not None and token.short.calls is not None:
        until = inf if token.expires_at is None else token.expires_at
        allowance = Allowance(token.short.serial, token.short.calls, until)
    own = OwnLimits(token.limits, token.upstream_limits, token.budget, allowance, token.calls)
    return None if own == OwnLimits() else own


def _narrowings(token: Token) -> tuple[Narrowing, ...]:
    """What holds of them: its own, and that of the token which a short-lived one was made with."""
    both = (token.narrowing, token.short.narrowing) if token.short else (token.narrowing,)
    return tuple(one for one in both if any(one))
