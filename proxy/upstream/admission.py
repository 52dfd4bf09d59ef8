"""An Upstream around an Upstream: each call holds a slot from before it is sent to its end."""

from __future__ import annotations

from types import TracebackType

from proxy.call import Call
from proxy.clock import Clock
from proxy.grant import Grant
from proxy.messages import RequestBody, Response
from proxy.upstream.seam import Upstream
from proxy.upstream.slots import Slot, Slots


class Admission:
    """Lets calls through while there is room for them; the others wait for their turn."""

    def __init__(self, upstream: Upstream, slots: Slots, clock: Clock) -> None:
        self.upstream = upstream
        self.slots = slots
        self.clock = clock

    def send(self, call: Call, grant: Grant, body: RequestBody) -> Admitted:
        """As the seam has it; the response knows how long the call has waited. Raises Overloaded
        too."""
        return Admitted(self, call, grant, body)


class Admitted:
    """One call with its slot. A class and no generator, which would cost more than the slot.

    `sent`: it has had one.
    """

    __slots__ = ("_admission", "_body", "_call", "_grant", "_sending", "_slot", "sent")

    def __init__(self, admission: Admission, call: Call, grant: Grant, body: RequestBody) -> None:
        self._admission = admission
        self._call = call
        self._grant = grant
        self._body = body
        self._slot: Slot | None = None
        self.sent = False

    async def __aenter__(self) -> Response:
        admission, grant = self._admission, self._grant
        slots = admission.slots
        service = grant.service.name if grant.service is not None else ""
        waited = 0.0
        slot = slots.take(grant.tenant, service)
        if slot is None:
            began = admission.clock.monotonic()
            trace = self._call.trace
            if trace is not None:
                trace.queued = began
            slot = await slots.wait(grant.tenant, service)
            ended = admission.clock.monotonic()
            waited = ended - began
            if trace is not None:
                trace.admitted = ended
        try:
            self.sent = True
            self._sending = admission.upstream.send(self._call, grant, self._body)
            response = await self._sending.__aenter__()
        except BaseException:
            slots.release(slot)
            raise
        self._slot = slot
        return response._replace(waited=waited) if waited else response

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        slot, self._slot = self._slot, None
        if slot is None:
            return
        try:
            await self._sending.__aexit__(kind, error, traceback)
        finally:
            self._admission.slots.release(slot)
