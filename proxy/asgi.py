"""ASGI in and out: a request becomes a Call, a Response or an error becomes octets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from proxy import cors
from proxy.call import Call, Directions, parse_directions
from proxy.causes import frames, lineage
from proxy.clock import Clock
from proxy.cycle import RelayCycle
from proxy.errors import CallerGone, InternalError, RelayError, Unavailable
from proxy.fields import without_trace
from proxy.gateway import Gateway
from proxy.header import look_over, new_id
from proxy.inbound import HangUp, InboundBody
from proxy.memo import Memo
from proxy.messages import Fields, Response
from proxy.record import Account, CallRecord, Meter, Metering, Observer, unmetered
from proxy.reply import Reply, Writer
from proxy.services import CurrentServices
from proxy.trace import Trace

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_log = logging.getLogger("keyrelay")

TARGETS = 1024
LONGEST_REMEMBERED = 2048
"""How many request targets are remembered as read, and of how many octets at most."""


@dataclass(frozen=True, slots=True)
class Watching:
    """Who hears of every call once it is over, what reads along what answers say they used, and
    `traced`, where calls have a place in a trace: from the caller's traceparent and when a call
    began to that."""

    observers: tuple[Observer, ...] = ()
    metering: Metering = unmetered
    traced: Callable[[bytes, float], Trace] | None = None


class ProxyEndpoint:
    """The raw ASGI application behind `/proxy`. `origins`: pages that may read the answers.

    `in_flight`: calls that are being answered.
    """

    def __init__(
        self,
        gateway: Gateway,
        services: CurrentServices,
        writer: Writer,
        origins: frozenset[str] = frozenset(),
        watching: Watching | None = None,
    ) -> None:
        self._gateway = gateway
        self._services = services
        self._read: Memo[bytes, Directions] = Memo(TARGETS, lambda: services.now)
        self._clock: Clock = writer.clock
        self._origins = origins
        self._writer = writer
        self._watching = watching or Watching()
        self.in_flight = 0

    def allow(self, origins: frozenset[str]) -> None:
        """Pages on these origins, and no others, may read the answers from now on."""
        self._origins = origins

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        """One call from its first octet to its last."""
        fields: Fields = tuple(scope["headers"])
        wire: RelayCycle = scope["extensions"]["keyrelay"]
        method = scope["method"]
        seen = wire.seen or look_over(method, wire.target, fields)
        call_id = seen.id or new_id()
        if cors.is_preflight(method, fields):
            leave = cors.preflight_fields(fields, self._origins)
            Reply(wire, self._writer, (), call_id).whole(204, leave, b"")
            return
        page = cors.response_fields(fields, self._origins) if self._origins else ()
        reply = Reply(wire, self._writer, page, call_id)
        body = InboundBody(wire, seen.length)
        directions = self._directions(wire.target, call_id)
        notes = _Notes(body, scope)
        call = Call(
            method,
            directions,
            seen.fields,
            body,
            call_id,
            seen.hash,
            seen.parent,
            None,
            notes.address,
        )
        if self._watching.traced is not None:
            call = _traced(call, self._watching.traced(seen.parent, reply.began))
        self.in_flight += 1
        try:
            await self._answer(call, reply, notes)
        finally:
            self.in_flight -= 1

    def _directions(self, target: bytes, call_id: str) -> Directions | RelayError:
        known = self._read.get(target)
        if known is not None:
            return known
        basis = self._read.basis()
        try:
            directions = parse_directions(target, self._services)
        except RelayError as error:
            return error
        except Exception as error:
            return _unexpected(call_id, error)
        if len(target) <= LONGEST_REMEMBERED:
            self._read.put(target, directions, basis)
        return directions

    async def _answer(self, call: Call, reply: Reply, notes: _Notes) -> None:
        """The answer or the error; then those who watch hear of it."""
        try:
            with HangUp(reply.wire) as hang_up:
                await self._relay(call, reply, notes, hang_up)
        except CallerGone:
            reply.cut = bool(reply.status)
            _log.debug("the caller hung up", extra={"id": reply.id})
        except asyncio.CancelledError:  # only the end of the server cancels what is still wanted
            stopping = Unavailable("keyrelay is stopping; try again.", retry_after=1)
            await reply.fail(stopping, notes.account.standing, waits=False)
        except RelayError as error:
            await reply.fail(error, notes.account.standing)
        except Exception as error:
            await reply.fail(_unexpected(reply.id, error), _standing(notes.account, reply.id))
        finally:
            if self._watching.observers:
                self._tell(call, reply, notes)

    async def _relay(self, call: Call, reply: Reply, notes: _Notes, hang_up: HangUp) -> None:
        account = notes.account
        async with await self._gateway.exchange(call, account) as response:
            notes.response = response
            await reply.room()
            meter = notes.meter = self._watching.metering(response.status, response.fields)
            if response.content is not None:
                hang_up.stop()
                reply.give(response, response.content, account.standing)
                if meter is not None:
                    meter.feed(response.content)
            else:
                reply.start(response, account.standing)
                async for chunk in response.body:
                    if reply.stalled:
                        await reply.room()
                    reply.chunk(chunk)
                    if meter is not None:
                        meter.feed(chunk)
                hang_up.stop()
                reply.end()

    def _tell(self, call: Call, reply: Reply, notes: _Notes) -> None:
        record = self._record(call, reply, notes)
        for observer in self._watching.observers:
            try:
                observer(record)
            except Exception as error:  # whoever watches harms no call
                _tell_unexpected(reply.id, error)

    def _record(self, call: Call, reply: Reply, notes: _Notes) -> CallRecord:
        grant, client, response = notes.account.grant, notes.account.client, notes.response
        seconds = self._clock.monotonic() - reply.began
        return CallRecord(
            id=reply.id,
            began=self._clock.now() - seconds,
            tenant=grant.tenant if grant else client.tenant if client else "",
            token=grant.client if grant else client.name if client else "",
            token_id=grant.token_id if grant else client.token_id if client else "",
            service=grant.service.name if grant and grant.service else "",
            host=grant.target.host if grant else "",
            method=call.method,
            status=reply.status,
            code=reply.code,
            verdict=response.verdict if response else "",
            cut=reply.cut,
            received=notes.body.received,
            sent=reply.sent,
            seconds=seconds,
            waited=response.waited if response else 0.0,
            upstream_seconds=response.upstream_seconds if response else None,
            meter=notes.meter,
            key=grant.key.alias if grant and grant.key else "",
            answered=reply.answered,
            trace=call.trace,
            why=reply.why,
            address=notes.address,
        )


class _Notes:
    """What is known of a call so far, for its record."""

    __slots__ = ("account", "address", "body", "meter", "response")

    def __init__(self, body: InboundBody, scope: Scope) -> None:
        self.account = Account()
        self.address: str = scope["client"][0] if scope["client"] else ""
        self.body = body
        self.response: Response | None = None
        self.meter: Meter | None = None


def _traced(call: Call, trace: Trace) -> Call:
    """The call in its trace; what it says of one that can't be continued goes no further."""
    fields = call.fields if call.parent else without_trace(call.fields)
    return call._replace(fields=fields, trace=trace)


def _unexpected(call_id: str, error: Exception) -> InternalError:
    """What the caller hears of it; the log gets more."""
    _tell_unexpected(call_id, error)
    failure = InternalError(f"keyrelay failed; the admin finds the cause under the id {call_id}.")
    failure.__cause__ = error
    return failure


def _standing(account: Account, call_id: str) -> bytes:
    """How the call's limits stand, unless it is that which fails."""
    try:
        return account.standing
    except Exception as error:
        _tell_unexpected(call_id, error)
        return b""


def _tell_unexpected(call_id: str, error: Exception) -> None:
    """For the log: what it was and where it came from, without any value."""
    _log.error("unexpected %s", lineage(error), extra={"id": call_id, "at": frames(error)})


def raw_target(scope: Scope) -> bytes:
    """The request target as it came."""
    wire: RelayCycle = scope["extensions"]["keyrelay"]
    return wire.target
