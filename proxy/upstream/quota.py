"""An Upstream around an Upstream: each call takes from what its token and tenant may send."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final

from proxy.call import Call
from proxy.errors import DestinationRefused, Unavailable
from proxy.grant import Grant
from proxy.limits.limits import Limits
from proxy.limits.rules import Bill
from proxy.messages import RequestBody, Response
from proxy.upstream.admission import Admission, Admitted

_UNSENT: Final = (Unavailable, DestinationRefused)
"""Errors that say that no upstream has seen a call: no key that opens, no connection for it; an
address that it may not go to."""


class Quota:
    """Lets calls through that are within their limits; stands below the cache, so that a hit or a
    follower takes none."""

    def __init__(self, upstream: Admission, limits: Limits) -> None:
        self._upstream = upstream
        self._limits = limits

    def send(
        self, call: Call, grant: Grant, body: RequestBody
    ) -> AbstractAsyncContextManager[Response]:
        """As the seam has it; raises TooManyRequests and BudgetSpent too."""
        sent = self._upstream.send(call, grant, body)
        plan = self._limits.plan(grant)
        if plan is None or plan.upstream_calls is None:
            return sent
        return _Counted(self._limits, plan.upstream_calls, sent)


class _Counted:
    """One call that takes from its limits before it is sent."""

    __slots__ = ("_admitted", "_bill", "_limits")

    def __init__(self, limits: Limits, bill: Bill, admitted: Admitted) -> None:
        self._limits = limits
        self._bill = bill
        self._admitted = admitted

    async def __aenter__(self) -> Response:
        taken = await self._limits.spend(self._bill)
        try:
            return await self._admitted.__aenter__()
        except BaseException as error:
            if not self._admitted.sent or isinstance(error, _UNSENT):
                self._limits.give_back(self._bill, taken)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._admitted.__aexit__(kind, error, traceback)
