"""The Upstream that every call ends in: strip, write the key last, send, clean what comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Protocol
from urllib.parse import unquote_to_bytes

from proxy.bounds import ByService
from proxy.call import Call
from proxy.destinations import Target
from proxy.errors import InternalError, RelayError, Unavailable
from proxy.fields import add_via, request_fields, response_fields, with_defaults
from proxy.grant import Grant, Place
from proxy.injection import EchoMatcher, Message, inject
from proxy.memo import bounded_put
from proxy.messages import Fields, RequestBody, Response, lines
from proxy.services.model import Service, Slot
from proxy.services.slots import header_names
from proxy.trace import PARENT_FIELD
from proxy.upstream.redirects import Redirects
from proxy.upstream.transport import Deadlines, OutboundRequest
from proxy.upstream.wire.guards import opening
from vault import Credential, KeyRef, VaultError

REMEMBERED = 1024
"""How many headers, and how many keys, are remembered with what was worked out for them."""

_NO_KEY: Final[Credential] = {}


class OpensKeys(Protocol):
    """What is asked of the vault."""

    async def open_key(self, ref: KeyRef) -> Credential:
        """The parts of a key."""
        ...


class Leaf(Protocol):
    """What sends a prepared request."""

    def send(self, outbound: OutboundRequest) -> AbstractAsyncContextManager[Response]:
        """Enter: the header has arrived. Exit: the connection is back or closed."""
        ...


class KnowsSlots(Protocol):
    """What is asked of the services."""

    @property
    def credential_headers(self) -> frozenset[bytes]:
        """Lower-case names of every field in which a service carries its key."""
        ...


class Prepared:
    """What calls with equal headers have in common: all that is sent but the body, and what finds
    the key in an answer. It shows nothing of itself: the key stands in it."""

    __slots__ = ("credential", "echo", "fields", "grant", "opening", "target")

    def __init__(self, call: Call, grant: Grant, credential: Credential, message: Message) -> None:
        at = grant.target
        self.grant = grant
        self.credential = credential
        self.fields = message.fields
        self.target = Target(at.scheme, at.host, at.port, message.path, message.query)
        self.opening = opening(call.method, self.target, self.fields)
        self.echo: EchoMatcher | None = None

    def fits(self, grant: Grant, credential: Credential) -> bool:
        """Whether it was made from these very objects."""
        return self.grant is grant and self.credential is credential


@dataclass(frozen=True, slots=True)
class Forwarder:
    """Sends an authorised call with its key, exactly where the grant says.

    `services` know every field in which any of them carries a key.
    """

    transport: Leaf
    keys: OpensKeys
    services: KnowsSlots
    redirects: Redirects
    pseudonym: bytes
    deadlines: ByService[Deadlines]
    _passed: dict[bytes, tuple[Grant, Fields]] = field(default_factory=dict, repr=False)
    _prepared: dict[bytes, Prepared] = field(default_factory=dict, repr=False)
    _matchers: dict[KeyRef, tuple[Credential, EchoMatcher]] = field(
        default_factory=dict, repr=False
    )

    def forwarded(self, call: Call, grant: Grant) -> Fields:
        """The request fields that the destination gets, but for the key: what the cache keys."""
        known = self._passed.get(call.head)
        if known is not None and known[0] is grant:
            return known[1]
        fields = self._forwarded(call, grant)
        if call.head and not grant.own_credential:
            bounded_put(self._passed, call.head, (grant, fields), REMEMBERED)
        return fields

    def _forwarded(self, call: Call, grant: Grant) -> Fields:
        keep = header_names(_slots(call, grant)) if grant.own_credential else frozenset()
        fields = request_fields(call.fields, self.services.credential_headers, keep=keep)
        return with_defaults(fields, grant.service.defaults if grant.service else ())

    def send(self, call: Call, grant: Grant, body: RequestBody) -> Forwarding:
        """The cleaned response; see the seam for what it raises."""
        return Forwarding(self, call, grant, body)

    def forget(self) -> None:
        """Lets go of all that was worked out with keys: one of them may be gone."""
        self._prepared.clear()
        self._matchers.clear()

    async def prepare(self, call: Call, grant: Grant) -> Prepared:
        """All that is sent for a call but its body, remembered by the call's header."""
        credential = await self._credential(grant)
        known = self._prepared.get(call.head)
        if known is not None and known.fits(grant, credential):
            return known
        if known is not None:  # grants or keys have changed: the others are outdated too
            self._prepared.clear()
        message = self._message(call, grant, credential)
        made = Prepared(call, grant, credential, message)
        made.echo = self._matcher(grant, credential)
        if call.head and not grant.own_credential:
            bounded_put(self._prepared, call.head, made, REMEMBERED)
        return made

    async def _credential(self, grant: Grant) -> Credential:
        if grant.key is None:
            return _NO_KEY
        try:
            return await self.keys.open_key(grant.key)
        except VaultError as error:
            refusal = Unavailable("The key can't be opened now; ask the admin.", retry_after=5)
            raise refusal.because(error) from error

    def _message(self, call: Call, grant: Grant, credential: Credential) -> Message:
        fields = add_via(self.forwarded(call, grant), self.pseudonym)
        message = Message(fields, grant.target.path, grant.target.query)
        if grant.key is None:
            return message
        return _with_key(_slots(call, grant), credential, message, grant)

    def outbound(self, call: Call, prepared: Prepared, body: RequestBody) -> OutboundRequest:
        """What is prepared, with this body."""
        grant = prepared.grant
        fields, begun = prepared.fields, prepared.opening
        parent = call.parent if call.trace is None else call.trace.onward
        if parent:  # differs with every call, so it is in nothing that is prepared
            fields = (*fields, (PARENT_FIELD, parent))
            begun += lines(fields[-1:])
        return OutboundRequest(
            method=call.method,
            target=prepared.target,
            fields=fields,
            body=body,
            reach=grant.reach,
            own_allowed=grant.place is Place.BACKEND,
            deadlines=self.deadlines.of(grant),
            partition=grant.tenant,
            opening=begun,
        )

    def cleaned(self, call: Call, prepared: Prepared, answer: Response) -> Response:
        """The answer as the caller may see it; raises RedirectRefused."""
        echo = prepared.echo
        fields = answer.fields
        if echo is not None and _echoes(echo, b"\0".join([value for _, value in fields])):
            fields = tuple(field for field in fields if not _echoes(echo, field[1]))
        fields = response_fields(self.redirects.rewritten(prepared.grant, answer.status, fields))
        if echo is None or not _may_be_stored(call):
            return Response(
                answer.status,
                fields,
                answer.body,
                answer.complete_at_close,
                answer.upstream_seconds,
                content=answer.content,
            )
        scanner = echo.scanner()

        async def scanned() -> AsyncIterator[bytes]:
            async for chunk in answer.body:
                scanner.feed(chunk)
                yield chunk

        return answer._replace(
            fields=fields, body=scanned(), spoiled=lambda: scanner.found, content=None
        )

    def _matcher(self, grant: Grant, credential: Credential) -> EchoMatcher | None:
        """What finds this key in an answer; made once for a key that the vault has opened."""
        if grant.key is None:
            return None
        known = self._matchers.get(grant.key)
        if known is None or known[0] is not credential:
            known = (credential, EchoMatcher.of(credential, _service(grant)))
            bounded_put(self._matchers, grant.key, known, REMEMBERED)
        return known[1]


class Forwarding:
    """One call on its way. A class and no generator, which would cost more than it does."""

    __slots__ = ("_body", "_call", "_forwarder", "_grant", "_sending")

    def __init__(self, forwarder: Forwarder, call: Call, grant: Grant, body: RequestBody) -> None:
        self._forwarder = forwarder
        self._call = call
        self._grant = grant
        self._body = body
        self._sending: AbstractAsyncContextManager[Response] | None = None

    async def __aenter__(self) -> Response:
        forwarder, call = self._forwarder, self._call
        prepared = await forwarder.prepare(call, self._grant)
        sending = forwarder.transport.send(forwarder.outbound(call, prepared, self._body))
        answer = await sending.__aenter__()
        try:
            response = forwarder.cleaned(call, prepared, answer)
        except BaseException as error:
            await sending.__aexit__(type(error), error, error.__traceback__)
            raise
        self._sending = sending
        return response

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._sending is not None:
            await self._sending.__aexit__(kind, error, traceback)


def _with_key(
    slots: tuple[Slot, ...], credential: Credential, message: Message, grant: Grant
) -> Message:
    """The message with the key in it; one in the path stands below the prefix that the grant is
    for, since above it the same server may have other readers."""
    rest = Message(message.fields, message.path.removeprefix(grant.prefix) or "/", message.query)
    written = inject(slots, credential, rest, grant.target.host)
    path = message.path if written.path == rest.path else grant.prefix + written.path
    return Message(written.fields, path, written.query)


def _echoes(echo: EchoMatcher, octets: bytes) -> bool:
    """Whether a field's value holds the key, in whatever percent-encoding."""
    return echo.in_value(octets) or (b"%" in octets and echo.in_value(unquote_to_bytes(octets)))


def _slots(call: Call, grant: Grant) -> tuple[Slot, ...]:
    service = _service(grant)
    if grant.place is Place.BACKEND:
        return service.backend_slots
    return service.slots_for(grant.target.host, call.fields)


def _service(grant: Grant) -> Service:
    if grant.service is None:
        raise InternalError("a key without a service")
    return grant.service


def _may_be_stored(call: Call) -> bool:
    return not isinstance(call.directions, RelayError) and call.directions.cache is not None
