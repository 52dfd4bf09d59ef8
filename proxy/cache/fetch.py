"""One call on its way through the cache, as a context: past it, from memory, or aboard a flight."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol

from proxy.cache.key import Keying
from proxy.cache.policy import Plan, Verdict
from proxy.cache.request import Request
from proxy.cache.spool import ReadBody, Rest
from proxy.call import Call
from proxy.grant import Grant
from proxy.messages import RequestBody, Response


class Answering(Protocol):
    """What is asked of the cache, in this order."""

    def plan(self, call: Call) -> Plan:
        """What a call does with the cache."""
        ...

    def passing(self, call: Call, plan: Plan) -> Verdict | None:
        """Why the cache has no part in this call."""
        ...

    def begin(self, call: Call, grant: Grant) -> Keying:
        """The call's key, without the body."""
        ...

    async def read(self, call: Call, keying: Keying) -> ReadBody:
        """The body, for its key and to be sent."""
        ...

    def unread(self, rest: Rest) -> Verdict:
        """The verdict on a call whose body was too much to be keyed."""
        ...

    def at_hand(self, request: Request) -> Response | None:
        """A hit from memory."""
        ...

    def answered(self, request: Request) -> AbstractAsyncContextManager[Response]:
        """A hit, or a seat in a flight."""
        ...

    def send(
        self, call: Call, grant: Grant, body: RequestBody
    ) -> AbstractAsyncContextManager[Response]:
        """The upstream's response, past the cache."""
        ...


class Fetch:
    """Enter: the response's header is there. Exit: what was opened is released, in reverse order.

    A class and no generator: an asynchronous generator costs more than a hit from memory.
    """

    __slots__ = ("_body", "_cache", "_call", "_grant", "_opened")

    def __init__(self, cache: Answering, call: Call, grant: Grant) -> None:
        self._cache = cache
        self._call = call
        self._grant = grant
        self._body: ReadBody | None = None
        self._opened: AbstractAsyncContextManager[Response] | None = None

    async def __aenter__(self) -> Response:
        cache, call = self._cache, self._call
        plan = cache.plan(call)
        verdict = cache.passing(call, plan)
        if verdict is not None:
            return await self._past(call.body, verdict)
        keying = cache.begin(call, self._grant)
        self._body = body = await cache.read(call, keying)
        try:
            return await self._through(plan, keying, body)
        except BaseException:
            body.release()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._opened is not None:
                await self._opened.__aexit__(kind, error, traceback)
        finally:
            if self._body is not None:
                self._body.release()

    async def _past(self, body: RequestBody, verdict: Verdict) -> Response:
        opened = self._cache.send(self._call, self._grant, body)
        response = await opened.__aenter__()
        self._opened = opened
        return response._replace(own=(verdict.field(),), verdict=verdict.name)

    async def _through(self, plan: Plan, keying: Keying, body: ReadBody) -> Response:
        cache = self._cache
        if body.rest is not None:
            return await self._past(body, cache.unread(body.rest))
        key = keying.digest()
        request = Request(self._call, self._grant, plan, keying, body, key, plan.forward)
        found = cache.at_hand(request)
        if found is not None:
            return found
        opened = cache.answered(request)
        response = await opened.__aenter__()
        self._opened = opened
        return response
