"""POST /tokens: for a platform token a narrower one that is over in minutes, made for browsers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from proxy import cors
from proxy.admin.answers import Handler, answering, fields_of, peer_of
from proxy.authentication import CALLING_ROLES
from proxy.clock import Clock
from proxy.errors import BadRequest, Forbidden, Unacceptable, Unavailable, UnknownService
from proxy.messages import Fields, values
from proxy.narrowing import narrowing_of, wider
from proxy.services import CurrentServices
from vault import Invalid, NewShortLived, Token, VaultError

if TYPE_CHECKING:
    from proxy.admin.asked import ShortLivedAsked

PATH: Final = "/tokens"
USUAL_SECONDS: Final = 600
_TOO_LONG: Final = (
    "The token would be too long. Name fewer things; where this token itself is narrowed to many, "
    "name those that are needed: the others are not written into it then."
)


class Holders(Protocol):
    """What is asked of the authentication."""

    async def holder(self, fields: Fields, peer: str) -> Token:
        """Whose token a request brings; raises Unauthorized, Forbidden, Unavailable."""
        ...


class Issues(Protocol):
    """What is asked of the vault."""

    async def issue_short_lived(self, parent: Token, new: NewShortLived) -> tuple[Token, str]:
        """A short-lived token, and its text; raises Invalid."""
        ...


class Witness(Protocol):
    """Hears of tokens that are given."""

    def short_lived(self, parent: Token, given: Token) -> None:
        """One was made with another one."""
        ...


@dataclass(frozen=True, slots=True)
class Witnessed:
    """A vault whose short-lived tokens somebody hears of."""

    vault: Issues
    witness: Witness

    async def issue_short_lived(self, parent: Token, new: NewShortLived) -> tuple[Token, str]:
        """A short-lived token, and its text; raises Invalid."""
        given = await self.vault.issue_short_lived(parent, new)
        self.witness.short_lived(parent, given[0])
        return given


@dataclass(frozen=True, slots=True)
class Terms:
    """`origins`: pages that may read the answers; `longest`: seconds that a token may be good."""

    origins: frozenset[str]
    longest: float


class Exchange:
    """The page, on terms that can change."""

    def __init__(
        self, holders: Holders, vault: Issues, known: CurrentServices, clock: Clock, terms: Terms
    ) -> None:
        self._holders = holders
        self._vault = vault
        self._known = known
        self._clock = clock
        self._terms = terms

    def become(self, terms: Terms) -> None:
        """Other terms, from now on."""
        self._terms = terms

    def routes(self) -> Sequence[BaseRoute]:
        """Where it is found."""
        return (
            Route(PATH, self._readable(answering(self._answer)), methods=["POST"]),
            Route(PATH, self._preflight, methods=["OPTIONS"]),
        )

    async def _preflight(self, request: Request) -> Response:
        fields = cors.preflight_fields(fields_of(request), self._terms.origins)
        return _with(Response(status_code=204), fields)

    def _readable(self, handler: Handler) -> Handler:
        """Its answers and errors can be read by the pages that may."""

        async def answer(request: Request) -> Response:
            leave = cors.response_fields(fields_of(request), self._terms.origins)
            return _with(await handler(request), leave)

        return answer

    async def _answer(self, request: Request) -> Response:
        from proxy.admin.asked import ShortLivedAsked  # noqa: PLC0415 - most servers never need it
        from proxy.admin.reading import read_json  # noqa: PLC0415

        fields = fields_of(request)
        if len(values(fields, b"authorization")) > 1:
            raise BadRequest("Send one Authorization field, not several.")
        who = await self._holders.holder(fields, peer_of(request))
        if who.role not in CALLING_ROLES:
            raise Forbidden(f"A token with the role {who.role} can't call, nor one made with it.")
        new = self._new(who, await read_json(request, ShortLivedAsked))
        try:
            token, text = await self._vault.issue_short_lived(who, new)
        except Invalid as error:
            raise Unacceptable(_TOO_LONG) from error
        except VaultError as error:
            raise Unavailable("The key store does not answer; try again.", retry_after=5) from error
        told = _told(token, text, self._clock.now())
        return Response(told, 201, media_type="application/json")

    def _new(self, who: Token, asked: ShortLivedAsked) -> NewShortLived:
        """What was asked for, if the token that asks has it; raises Forbidden, Unacceptable."""
        longest = self._terms.longest
        seconds = min(USUAL_SECONDS, longest) if asked.seconds is None else asked.seconds
        if seconds > longest:
            raise Unacceptable(f"Ask for {longest:g} seconds at most: server.short_lived_max.")
        try:
            narrowing = narrowing_of(asked.narrowing)
        except ValueError as error:
            raise Unacceptable(f"It can't be narrowed to that: {error}.") from error
        services = self._services(asked.services) if asked.services else None
        beyond = wider(who.narrowing, narrowing)
        if who.services is not None and services is not None and not services <= who.services:
            beyond = "services"
        if beyond:
            raise Forbidden(f"This token has not all of these {beyond} itself; name some it has.")
        return NewShortLived(self._clock.now() + seconds, services, narrowing, asked.calls)

    def _services(self, names: Sequence[str]) -> frozenset[str]:
        found = [self._known.get(name) for name in names]
        if None in found:
            raise UnknownService("No service has one of these names; see: keyrelay service list")
        return frozenset(one.name for one in found if one is not None)


def _told(token: Token, text: str, now: float) -> str:
    from proxy.admin.given import ShortLivedGiven  # noqa: PLC0415

    ends, short = token.expires_at or now, token.short
    members = short.narrowing._asdict() if short else {}
    return ShortLivedGiven(
        token=text,
        expires=datetime.fromtimestamp(int(ends), UTC),
        seconds=int(ends - now),
        services=None if token.services is None else sorted(token.services),
        **{name: list(texts) for name, texts in members.items()},
        calls=short.calls if short else None,
    ).model_dump_json()


def _with(response: Response, fields: Fields) -> Response:
    for name, value in fields:
        response.headers[name.decode()] = value.decode("latin-1")
    return response
