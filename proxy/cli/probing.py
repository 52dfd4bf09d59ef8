"""One cheap authenticated call that tells whether a key is good, sent as a caller's would be."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.call import Call, Directions
from proxy.cli.failures import Failed
from proxy.cli.params import Which
from proxy.cli.session import Session
from proxy.cli.wiring import NoBody, authorizer, forwarder
from proxy.destinations import parse_destination
from proxy.grant import Client, Route
from proxy.services import Service
from vault import KeyRef

_REFUSED = frozenset({401, 403})
_FIELDS = ((b"accept", b"*/*"), (b"user-agent", b"keyrelay"))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a probe found. `good` None: it can't be known."""

    good: bool | None
    sentence: str
    status: int | None = None


def held_key(keys: tuple[KeyRef, ...], which: Which) -> KeyRef:
    """The key that is meant; raises Failed."""
    for ref in keys:
        if ref.alias == which.alias:
            return ref
    raise Failed(
        f"tenant {which.tenant} has no key {which.alias} for this service: see keyrelay key list"
    )


async def probe_key(session: Session, service: Service, which: Which) -> Verdict:
    """Asks the provider; raises RelayError where it can't be reached, Failed without such a key."""
    holdings = await session.vault.holdings(which.tenant)
    ref = held_key(holdings.keys.get(service.name, ()), which)
    base = _base(service, ref)
    if service.probe is None or base is None:
        return Verdict(None, "can't know: no cheap call is known for this service")
    directions = Directions(base + service.probe.path, service.name)
    call = Call(service.probe.method, directions, _FIELDS, NoBody(), "key-test")
    client = Client("key test", holdings, key_aliases={service.name: ref.alias})
    route = Route(directions, parse_destination(directions.url))
    grant = authorizer(session).authorize(client, call, route)
    async with forwarder(session) as upstream, upstream.send(call, grant, call.body) as answer:
        return _verdict(answer.status)


def _base(service: Service, ref: KeyRef) -> str | None:
    if service.origin is not None:
        return service.origin.rstrip("/")
    return f"https://{ref.hosts[0]}" if ref.hosts else service.base


def _verdict(status: int) -> Verdict:
    if 200 <= status < 300:
        return Verdict(True, f"the provider takes it (status {status})", status)
    if status in _REFUSED:
        return Verdict(False, f"the provider refuses it (status {status})", status)
    return Verdict(None, f"can't know: the provider answered with status {status}", status)
