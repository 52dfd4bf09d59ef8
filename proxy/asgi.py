"""ASGI in and out: a request becomes a Call, a Response or an error becomes octets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from email.utils import formatdate
from hashlib import blake2b
from typing import Any

from proxy import cors
from proxy.call import Call, Directions, parse_directions
from proxy.clock import Clock
from proxy.cycle import RelayCycle
from proxy.errors import CallerGone, InternalError, RelayError, Unavailable, frames, lineage
from proxy.fields import safety_fields
from proxy.gateway import Gateway
from proxy.inbound import HangUp, InboundBody, Receive, request_id
from proxy.memo import Memo
from proxy.messages import Field, Fields, Response
from proxy.problems import problem
from proxy.services import CurrentServices

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_log = logging.getLogger("keyrelay")

_REPLACED = frozenset({b"x-content-type-options"})
_REPLACED_BODILESS = _REPLACED | {b"content-length"}

TARGETS = 1024
LONGEST_REMEMBERED = 2048
"""How many request targets are remembered as read, and of how many octets at most."""


class ProxyEndpoint:
    """The raw ASGI application behind `/proxy`. `origins`: pages that may read the answers."""

    def __init__(
        self,
        gateway: Gateway,
        services: CurrentServices,
        clock: Clock,
        origins: frozenset[str] = frozenset(),
        pseudonym: bytes = b"keyrelay",
    ) -> None:
        self._gateway = gateway
        self._services = services
        self._read: Memo[bytes, Directions] = Memo(TARGETS, lambda: services.now)
        self._clock = clock
        self._origins = origins
        self._via: Field = (b"via", b"1.1 " + pseudonym)
        self._dates = Dates(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One call from its first octet to its last."""
        fields: Fields = tuple(scope["headers"])
        if cors.is_preflight(scope["method"], fields):
            answer = Answer(scope, send, self._clock, ())
            await answer.whole(204, cors.preflight_fields(fields, self._origins), b"")
            return
        answer = Answer(scope, send, self._clock, cors.response_fields(fields, self._origins))
        body = InboundBody(receive, fields)
        try:
            with HangUp(answer.wire) as hang_up:
                await self._relay(self._call(scope, fields, body, answer.id), answer, hang_up)
        except CallerGone:
            _log.debug("%s: the caller hung up", answer.id)
        except asyncio.CancelledError:  # only the end of the server cancels what is still wanted
            await answer.fail(Unavailable("keyrelay is stopping; try again.", retry_after=1))
        except RelayError as error:
            await answer.fail(error)
        except Exception as error:
            _log.error("%s: unexpected %s at %s", answer.id, lineage(error), frames(error))
            text = f"keyrelay failed; the admin finds the cause under the id {answer.id}."
            failure = InternalError(text)
            failure.__cause__ = error
            await answer.fail(failure)

    def _call(self, scope: Scope, fields: Fields, body: InboundBody, call_id: str) -> Call:
        return Call(
            method=scope["method"],
            directions=self._directions(raw_target(scope)),
            fields=fields,
            body=body,
            id=call_id,
            head=_hashed(scope["method"].encode(), raw_target(scope), fields),
        )

    def _directions(self, target: bytes) -> Directions | RelayError:
        known = self._read.get(target)
        if known is not None:
            return known
        basis = self._read.basis()
        try:
            directions = parse_directions(target, self._services)
        except RelayError as error:
            return error
        if len(target) <= LONGEST_REMEMBERED:
            self._read.put(target, directions, basis)
        return directions

    async def _relay(self, call: Call, answer: Answer, hang_up: HangUp) -> None:
        async with self._gateway.exchange(call) as response:
            fields = self._outgoing(response, answer)
            if response.content is not None:
                hang_up.stop()
                await answer.whole(response.status, fields, response.content)
                return
            await answer.start(response.status, fields)
            async for chunk in response.body:
                await answer.chunk(chunk)
            hang_up.stop()
            await answer.end()

    def _outgoing(self, response: Response, answer: Answer) -> Fields:
        # the length of a 204 or 304 would announce a body that never comes
        gone = _REPLACED_BODILESS if response.status in (204, 304) else _REPLACED
        fields = [field for field in response.fields if field[0] not in gone]
        fields += safety_fields(response.fields)
        fields += (self._via, answer.timing(response.upstream_seconds))
        names = {field[0] for field in fields}
        if b"date" not in names:
            fields.append(self._dates.field())
        if b"x-request-id" not in names:
            fields.append((b"x-request-id", answer.id.encode()))
        return tuple(fields)


class Dates:
    """When a message was made (RFC 9110 section 6.6.1); written once a second."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._second = -1
        self._field: Field = (b"date", b"")

    def field(self) -> Field:
        """The field of this second."""
        second = int(self._clock.now())
        if second != self._second:
            self._second = second
            self._field = (b"date", formatdate(second, usegmt=True).encode())
        return self._field


def _hashed(method: bytes, target: bytes, fields: Fields) -> bytes:
    """What tells one header from another; no field or target holds a NUL."""
    parts = [method, target]
    for field in fields:
        if field[0] != b"content-length":
            parts += field
    return blake2b(b"\0".join(parts), digest_size=32).digest()


class Answer:
    """What goes back to one caller: at most one start, and never a whole look for a cut body."""

    def __init__(self, scope: Scope, send: Send, clock: Clock, page_fields: Fields) -> None:
        self.wire: RelayCycle = scope["extensions"]["keyrelay"]
        self._send = send
        self._clock = clock
        self._page_fields = page_fields
        self._started = False
        self._began = clock.monotonic()
        self.id = request_id(tuple(scope["headers"]))

    async def start(self, status: int, fields: Fields) -> None:
        """The header."""
        self._started = True
        own: tuple[Field, ...] = ((b"x-relay-request-id", self.id.encode()), *self._page_fields)
        message = {"type": "http.response.start", "status": status, "headers": [*fields, *own]}
        await self._send(message)

    async def chunk(self, octets: bytes) -> None:
        """A part of the body, at the caller's pace; raises CallerGone where the server says so."""
        if self.wire.gone:
            raise CallerGone
        await self._send({"type": "http.response.body", "body": octets, "more_body": True})

    async def end(self) -> None:
        """The end of a whole body."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def whole(self, status: int, fields: Fields, body: bytes) -> None:
        """A response of ours in one go."""
        await self.start(status, fields)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def fail(self, error: RelayError) -> None:
        """The error as a response; after the start the transfer is broken instead."""
        if error.status >= 500:
            _log.warning("%s: %s: %s", self.id, error.code, lineage(error.__cause__))
        if self._started:
            self.wire.abort()
            return
        path = self.wire.target.partition(b"?")[0]
        instance = "/proxy" if path.startswith(b"/proxy") else None
        answer = problem(error, self.id, instance)
        extra: list[Field] = [(b"x-request-id", self.id.encode())]
        extra.append(Dates(self._clock).field())
        if error.status in (405, 501):
            extra.append((b"connection", b"close"))
        await self.whole(answer.status, (*answer.fields, *extra), answer.body)

    def timing(self, upstream_seconds: float | None) -> Field:
        """Server-Timing (W3C): our share and the upstream's until its header, in milliseconds."""
        total = self._clock.monotonic() - self._began
        upstream = upstream_seconds or 0.0
        text = f"relay;dur={max(total - upstream, 0.0) * 1000:.1f}"
        if upstream_seconds is not None:
            text += f", upstream;dur={upstream * 1000:.1f}"
        return (b"server-timing", text.encode())


def raw_target(scope: Scope) -> bytes:
    """The request target as it came."""
    wire: RelayCycle = scope["extensions"]["keyrelay"]
    return wire.target
