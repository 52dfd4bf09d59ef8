"""What stands around the cache and around the upstream, where calls are traced: notes when."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol

from proxy.call import Call
from proxy.clock import Clock
from proxy.grant import Grant
from proxy.messages import RequestBody, Response
from proxy.trace import Trace
from proxy.upstream.seam import Upstream

Answer = AbstractAsyncContextManager[Response]


class LooksUp(Protocol):
    """What is asked of the cache."""

    def fetch(self, call: Call, grant: Grant) -> Answer:
        """The response; a context that may raise a RelayError on its way in."""
        ...

    def looks_up(self, call: Call) -> bool:
        """Whether what is stored may answer a call."""
        ...


class MarksLookUps:
    """A cache whose look-ups are timed, to the answer that was found or waited for."""

    def __init__(self, cache: LooksUp, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock

    def fetch(self, call: Call, grant: Grant) -> Answer:
        """As the cache does."""
        fetched = self._cache.fetch(call, grant)
        trace = call.trace
        if trace is None or not trace.sampled or not self._cache.looks_up(call):
            return fetched
        return _LookUp(fetched, trace, self._clock)


class _LookUp:
    """One call to the cache."""

    __slots__ = ("_clock", "_fetched", "_trace")

    def __init__(self, fetched: Answer, trace: Trace, clock: Clock) -> None:
        self._fetched = fetched
        self._trace = trace
        self._clock = clock

    async def __aenter__(self) -> Response:
        self._trace.asked = self._clock.monotonic()
        response = await self._fetched.__aenter__()
        self._trace.found = self._clock.monotonic()
        return response

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._fetched.__aexit__(kind, error, traceback)


class MarksUpstream:
    """An Upstream around an Upstream: when a call was sent, answered, and over."""

    def __init__(self, upstream: Upstream, clock: Clock) -> None:
        self._upstream = upstream
        self._clock = clock

    def send(self, call: Call, grant: Grant, body: RequestBody) -> Answer:
        """As the seam has it."""
        sending = self._upstream.send(call, grant, body)
        if call.trace is None or not call.trace.sampled:
            return sending
        return _Sending(sending, call.trace, self._clock)


class _Sending:
    """One call on its way."""

    __slots__ = ("_clock", "_sending", "_trace")

    def __init__(self, sending: Answer, trace: Trace, clock: Clock) -> None:
        self._sending = sending
        self._trace = trace
        self._clock = clock

    async def __aenter__(self) -> Response:
        trace, clock = self._trace, self._clock
        trace.sent = clock.monotonic()
        try:
            response = await self._sending.__aenter__()
        except BaseException:
            trace.ended = clock.monotonic()
            raise
        trace.answered = clock.monotonic()
        trace.status = response.status
        return response

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            return await self._sending.__aexit__(kind, error, traceback)
        finally:
            self._trace.ended = self._clock.monotonic()
