"""One cheap authenticated call that tells whether a key is good, and what its answer means."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.cli.failures import Failed
from proxy.cli.params import Which
from proxy.cli.session import Session
from proxy.cli.wiring import authorizer, forwarder
from proxy.health.probing import Prober, errand
from proxy.services import Service
from vault import KeyRef

_REFUSED = frozenset({401, 403})


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
    probe = errand(service, ref)
    if probe is None:
        return Verdict(None, "can't know: no cheap call is known for this service")
    async with forwarder(session) as upstream:
        return _verdict(
            await Prober(authorizer(session), upstream).send(probe, holdings, "key test")
        )


def _verdict(status: int) -> Verdict:
    if 200 <= status < 300:
        return Verdict(True, f"the provider takes it (status {status})", status)
    if status in _REFUSED:
        return Verdict(False, f"the provider refuses it (status {status})", status)
    return Verdict(None, f"can't know: the provider answered with status {status}", status)
