"""An Upstream around an Upstream: each call takes from what its token and tenant may send."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType

from proxy.call import Call
from proxy.errors import Unavailable
from proxy.grant import Grant
from proxy.limits.limits import Limits
from proxy.limits.rules import Plan
from proxy.messages import RequestBody, Response
from proxy.upstream.seam import Upstream


class Quota:
    """Lets calls through that are within their limits; stands below the cache, so that a hit or a
    follower takes none."""

    def __init__(self, upstream: Upstream, limits: Limits) -> None:
        self._upstream = upstream
        self._limits = limits

    def send(
        self, call: Call, grant: Grant, body: RequestBody
    ) -> AbstractAsyncContextManager[Response]:
        """As the seam has it; raises TooManyRequests and BudgetSpent too."""
        sent = self._upstream.send(call, grant, body)
        plan = self._limits.plan(grant)
        if plan is None or not plan.limits_upstream:
            return sent
        return _Counted(self._limits, plan, sent)


class _Counted:
    """One call that takes from its limits before it is sent."""

    __slots__ = ("_limits", "_plan", "_sent")

    def __init__(
        self, limits: Limits, plan: Plan, sent: AbstractAsyncContextManager[Response]
    ) -> None:
        self._limits = limits
        self._plan = plan
        self._sent = sent

    async def __aenter__(self) -> Response:
        await self._limits.spend(self._plan)
        try:
            return await self._sent.__aenter__()
        except Unavailable:  # ours: no slot, no place in the queue, no key; nothing was sent
            self._limits.give_back(self._plan)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._sent.__aexit__(kind, error, traceback)
