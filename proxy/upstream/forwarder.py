"""The Upstream that every call ends in: strip, write the key last, send, clean what comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import unquote_to_bytes

from proxy.call import Call
from proxy.destinations import Target
from proxy.errors import InternalError, RelayError, Unavailable
from proxy.fields import add_via, request_fields, response_fields, with_defaults
from proxy.grant import Grant, Place
from proxy.injection import EchoMatcher, Message, inject
from proxy.memo import bounded_put
from proxy.messages import Fields, RequestBody, Response
from proxy.services.model import Service, Slot
from proxy.services.slots import header_names
from proxy.upstream.redirects import Redirects
from proxy.upstream.transport import Deadlines, OutboundRequest
from vault import Credential, KeyRef, VaultError

REMEMBERED = 1024
"""How many headers, and how many keys, are remembered with what was worked out for them."""


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
    deadlines: Deadlines
    _passed: dict[bytes, tuple[Grant, Fields]] = field(default_factory=dict, repr=False)
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

    @asynccontextmanager
    async def send(self, call: Call, grant: Grant, body: RequestBody) -> AsyncIterator[Response]:
        """The cleaned response; see the seam for what it raises."""
        credential = await self._credential(grant)
        outbound = self._outbound(call, grant, body, credential)
        async with self.transport.send(outbound) as answer:
            yield self._cleaned(call, grant, answer, credential)

    async def _credential(self, grant: Grant) -> Credential:
        if grant.key is None:
            return {}
        try:
            return await self.keys.open_key(grant.key)
        except VaultError as error:
            raise Unavailable(
                "The key can't be opened now; ask the admin.", retry_after=5
            ) from error

    def _outbound(
        self, call: Call, grant: Grant, body: RequestBody, credential: Credential
    ) -> OutboundRequest:
        fields = add_via(self.forwarded(call, grant), self.pseudonym)
        message = Message(fields, grant.target.path, grant.target.query)
        if grant.key is not None:
            message = _with_key(_slots(call, grant), credential, message, grant)
        at = grant.target
        target = Target(at.scheme, at.host, at.port, message.path, message.query)
        return OutboundRequest(
            method=call.method,
            target=target,
            fields=message.fields,
            body=body,
            reach=grant.reach,
            own_allowed=grant.place is Place.BACKEND,
            deadlines=self.deadlines,
            partition=grant.tenant,
        )

    def _cleaned(
        self, call: Call, grant: Grant, answer: Response, credential: Credential
    ) -> Response:
        echo = self._matcher(grant, credential)
        fields = answer.fields
        if echo is not None and _echoes(echo, b"\0".join([value for _, value in fields])):
            fields = tuple(field for field in fields if not _echoes(echo, field[1]))
        fields = response_fields(self.redirects.rewritten(grant, answer.status, fields))
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
