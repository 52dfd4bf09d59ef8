"""One call on its way through the cache."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.cache.flight import Seat
from proxy.cache.key import Keying
from proxy.cache.policy import Forward, Plan
from proxy.cache.spool import ReadBody
from proxy.call import Call
from proxy.grant import Grant


@dataclass(slots=True)
class Request:
    """What is known of the call, and what its look-ups have found so far."""

    call: Call
    grant: Grant
    plan: Plan
    keying: Keying
    body: ReadBody
    key: bytes = b""
    forward: Forward = Forward.URI_MISS
    detail: str | None = None
    hint: bytes | None = None
    alone: bool = False

    def seat(self) -> Seat:
        """A new place in a flight."""
        return Seat(
            self.call,
            self.grant,
            self.body,
            self.keying.select,
            self.plan.until,
            self.plan.lookup,
            self.hint,
        )
