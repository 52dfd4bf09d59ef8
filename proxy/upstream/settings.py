"""The section `limits` of the configuration, as the rooms around the upstream take it."""

from __future__ import annotations

from dataclasses import replace
from math import inf

from proxy.bounds import ByService
from proxy.config import CallLimits, Limits
from proxy.upstream.slots import SlotLimits
from proxy.upstream.transport import Deadlines


def deadlines(limits: Limits) -> ByService[Deadlines]:
    """Until when a call is given up."""
    named = {name: _deadlines(own) for name, own in limits.by_service().items()}
    return ByService(_deadlines(limits), named)


def request_octets(limits: Limits) -> ByService[int | None]:
    """The largest body of a request."""
    named = {name: own.max_request_bytes for name, own in limits.by_service().items()}
    return ByService(limits.max_request_bytes, named)


def response_octets(limits: Limits) -> ByService[int | None]:
    """The largest body of an answer."""
    named = {name: own.max_response_bytes for name, own in limits.by_service().items()}
    return ByService(limits.max_response_bytes, named)


def slot_limits(limits: Limits, workers: int = 1) -> SlotLimits:
    """How many calls at once, and how long the others wait; of several workers one has a share,
    rounded up, so that each may send at all."""

    def share(count: int | None) -> float:
        return inf if count is None else -(-count // workers)

    asked = limits.concurrency
    return SlotLimits(
        total=share(asked.total),
        per_tenant=share(asked.per_tenant),
        per_service=share(asked.per_service),
        tenants={name: share(count) for name, count in asked.tenants.items()},
        services={name: share(count) for name, count in asked.services.items()},
        queue_length=-(-limits.queue_length // workers),
        queue_timeout=limits.queue_timeout,
    )


def spanning_limits(limits: Limits, workers: int) -> SlotLimits:
    """The same where all instances share a Redis: what was named is of all of them together, the
    total that nobody named of one machine."""
    share, whole = slot_limits(limits, workers), slot_limits(limits)
    named = limits.concurrency.total is not None and "total" in limits.concurrency.model_fields_set
    total = whole.total if named else share.total
    length = share.queue_length
    return replace(whole, total=total, spans_total=named, queue_length=length)


def _deadlines(limits: CallLimits) -> Deadlines:
    """No part of a call may take longer than all of it."""
    total = limits.total_timeout
    longest = inf if total is None else total
    return Deadlines(
        connect=min(limits.connect_timeout, longest),
        first_byte=limits.first_byte_timeout,
        idle=limits.idle_timeout,
        total=total,
    )
