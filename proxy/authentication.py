"""Call and credentials to Client: who calls, by a platform token or by a key we handed out."""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf
from typing import Protocol

from proxy.call import Call, Directions
from proxy.clock import Clock
from proxy.destinations import (
    Target,
    parse_destination,
    query_parameter,
    without_parameters,
)
from proxy.errors import BadCall, BadRequest, Forbidden, RelayError, Unauthorized, Unavailable
from proxy.fields import request_fields
from proxy.grant import Allowance, Client, OwnLimits
from proxy.leaks import holds_token
from proxy.messages import Fields, values
from proxy.narrowing import check_origin
from proxy.services.model import Service
from proxy.services.slots import every_slot, query_names
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

OWN_SLOTS = (b"proxy-authorization", b"x-relay-token")
"""Slots that are ours alone; a token there leaves the provider's slot to the caller's own key."""

CALLING_ROLES = frozenset({"call", "admin"})

UNKNOWN_CALLER = (
    "Send a valid platform token, for example as 'Authorization: Bearer kr_...'; "
    "in a shell quote the URL, since an unquoted & cuts it and what follows is lost."
)

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


class Wrongs(Protocol):
    """What is asked of whoever bounds wrong credentials by address."""

    def check(self, peer: str, credential: bytes) -> None:
        """Raises TooManyGuesses."""
        ...

    def right(self, credential: bytes) -> None:
        """One was good."""
        ...

    def wrong(self, peer: str, credential: bytes) -> None:
        """One was not."""
        ...


class Unbounded:
    """Every address may try as often as it likes."""

    def check(self, peer: str, credential: bytes) -> None:
        """Never too many."""

    def right(self, credential: bytes) -> None:
        """Noted by nobody."""

    def wrong(self, peer: str, credential: bytes) -> None:
        """Noted by nobody."""


_UNBOUNDED = Unbounded()


@dataclass(frozen=True, slots=True)
class HandedOut:
    """The rules for callers that show a key instead of a token. `grace` in seconds."""

    accepted: bool = True
    grace: float = 3600.0


@dataclass(frozen=True, slots=True)
class Shown:
    """One text that a caller presented, and where it stood."""

    slot: bytes
    text: bytes


class Authenticator:
    """Finds the credential, asks the vault, and answers every failure alike."""

    def __init__(
        self,
        vault: Credentials,
        services: KnownServices,
        clock: Clock,
        handed_out: HandedOut,
        wrongs: Wrongs = _UNBOUNDED,
    ) -> None:
        self._vault = vault
        self._services = services
        self._clock = clock
        self._handed_out = handed_out
        self._wrongs = wrongs

    async def authenticate(self, call: Call) -> Client:
        """Who calls. Raises Unauthorized, Forbidden, BadRequest; TooManyGuesses where too many were
        wrong before; Unavailable without a vault."""
        if len(values(call.fields, b"authorization")) > 1:
            raise BadRequest("Send one Authorization field, not several.")
        shown = self._shown(call)
        token = next((one for one in shown if looks_like_token(one.text)), None)
        if not shown:
            return await self._client(call, token, shown)
        decides = (token or shown[0]).text
        self._wrongs.check(call.peer, decides)
        try:
            client = await self._client(call, token, shown)
        except Unauthorized:
            self._wrongs.wrong(call.peer, decides)
            raise
        self._wrongs.right(decides)
        return client

    async def _client(self, call: Call, token: Shown | None, shown: list[Shown]) -> Client:
        try:
            if token is not None:
                return await self._by_token(call, token, shown)
            return await self._by_handed_out_key(call, shown)
        except VaultError as error:
            raise Unavailable("The key store does not answer; try again.", retry_after=5) from error

    def become(self, handed_out: HandedOut) -> None:
        """Other rules for keys that we handed out, from now on."""
        self._handed_out = handed_out

    async def holder(self, fields: Fields) -> Token:
        """Whose token a page is asked with, whatever its role; a handed-out key is none.

        Raises Unauthorized; Forbidden for a short-lived one, and for a page of another origin
        than the token names; Unavailable without a vault.
        """
        shown = _in_fields(fields, frozenset())
        text = next((one.text for one in shown if looks_like_token(one.text)), b"")
        try:
            token = await self._vault.verify_token(text)
        except VaultError as error:
            raise Unavailable("The key store does not answer; try again.", retry_after=5) from error
        if token is None:
            _log.info("token refused: %s", describe_token(text))  # pages are no calls
            raise Unauthorized(UNKNOWN_CALLER)
        if token.short is not None:
            raise Forbidden("A short-lived token is for calls alone; use the one it was made with.")
        check_origin(token.narrowing, fields)
        return token

    def _shown(self, call: Call) -> list[Shown]:
        shown = list(_in_fields(call.fields, self._services.credential_headers))
        target = _target_of(call)
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
        token = await self._vault.verify_token(decides.text)
        if token is None:
            raise _refused(decides.text)
        if token.role not in CALLING_ROLES:
            raise Forbidden(f"A token with the role {token.role} can't call; use one that may.")
        self._refuse_copies(call)
        return Client(
            name=token.name,
            token_id=token.id,
            holdings=await self._vault.holdings(token.tenant),
            services=token.services,
            key_aliases=token.key_aliases,
            may_bring_own=decides.slot in OWN_SLOTS and not _holds_tokens(call, shown),
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
            raise Unauthorized(UNKNOWN_CALLER)
        self._refuse_copies(call)
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

    def _refuse_copies(self, call: Call) -> None:
        """No token, whosever, may travel on in a place that is forwarded (contract section 3)."""
        forwarded = request_fields(call.fields, self._services.credential_headers)
        places = [content for _, content in forwarded]
        target = _target_of(call)
        if target is not None:
            query = without_parameters(target.query, self._parameters(call, target))
            places.append(replace(target, query=query).url.encode())
        if any(map(holds_token, places)):
            raise BadRequest(COPIED_TOKEN)


def _refused(text: bytes) -> Unauthorized:
    """One answer for every reason; the log is told which."""
    error = Unauthorized(UNKNOWN_CALLER)
    error.why = describe_token(text)
    return error


def _own_limits(token: Token) -> OwnLimits | None:
    allowance = None
    if token.short is not None and token.short.calls is not None:
        until = inf if token.expires_at is None else token.expires_at
        allowance = Allowance(token.short.serial, token.short.calls, until)
    own = OwnLimits(token.limits, token.upstream_limits, token.budget, allowance)
    return None if own == OwnLimits() else own


def _narrowings(token: Token) -> tuple[Narrowing, ...]:
    """What holds of them: its own, and that of the token which a short-lived one was made with."""
    both = (token.narrowing, token.short.narrowing) if token.short else (token.narrowing,)
    return tuple(one for one in both if any(one))


def _holds_tokens(call: Call, shown: list[Shown]) -> bool:
    """Whether a token stands where else a caller's own key would, and be forwarded."""
    target = _target_of(call)
    in_target = target is not None and holds_token(target.url.encode())
    return in_target or any(one.slot not in OWN_SLOTS and holds_token(one.text) for one in shown)


def _target_of(call: Call) -> Target | None:
    """Where the call wants to go, if that can be read; refusing it is for later."""
    if isinstance(call.directions, RelayError):
        return None
    try:
        return parse_destination(call.directions.url)
    except BadCall:
        return None


def _in_fields(fields: Fields, credential_headers: frozenset[bytes]) -> Iterator[Shown]:
    """Every text in every slot: ours, Authorization, then those of the known services."""
    first = (*OWN_SLOTS, b"authorization")
    for slot in first:
        for value in values(fields, slot):
            yield from (Shown(slot, text) for text in _texts(value))
    for name, value in fields:
        if name in credential_headers and name not in first:
            yield from (Shown(name, text) for text in _texts(value))


def _texts(value: bytes) -> Iterator[bytes]:
    """What a value may carry: itself, what follows a scheme word, what Basic wraps (RFC 7617)."""
    yield value
    scheme, space, rest = value.partition(b" ")
    if not space:
        return
    rest = rest.strip()
    yield rest
    if scheme.lower() == b"basic":
        yield from _basic(rest)
    elif b"=" in rest:
        yield rest.partition(b"=")[2].strip(b'"')


def _basic(encoded: bytes) -> Iterator[bytes]:
    try:
        decoded = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return
    user, _, password = decoded.partition(b":")
    yield from (text for text in (password, user, decoded) if text)
