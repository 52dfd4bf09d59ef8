"""An Upstream around an Upstream: no answer is larger than it may be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from proxy.bounds import BoundedOctets, ByService
from proxy.call import Call
from proxy.errors import AnswerTooLarge
from proxy.grant import Grant
from proxy.messages import RequestBody, Response, value
from proxy.upstream.seam import Upstream

_BODILESS = frozenset({204, 304})


class Sized:
    """Breaks off answers above so many octets; `octets` None: there is no bound."""

    def __init__(self, upstream: Upstream, octets: ByService[int | None]) -> None:
        self._upstream = upstream
        self._octets = octets

    def send(
        self, call: Call, grant: Grant, body: RequestBody
    ) -> AbstractAsyncContextManager[Response]:
        """As the seam has it; raises AnswerTooLarge too, and so does reading the body."""
        sent = self._upstream.send(call, grant, body)
        limit = self._octets.of(grant)
        return sent if limit is None else _sized(sent, call.method, limit)


@asynccontextmanager
async def _sized(
    sent: AbstractAsyncContextManager[Response], method: str, limit: int
) -> AsyncIterator[Response]:
    async with sent as response:
        bodiless = method == "HEAD" or response.status in _BODILESS
        yield response if bodiless else _bounded(response, limit)


def _bounded(response: Response, limit: int) -> Response:
    announced = value(response.fields, b"content-length")
    at_hand = response.content
    if (announced is not None and int(announced) > limit) or len(at_hand or b"") > limit:
        raise _too_large(limit)
    if at_hand is not None:
        return response
    return response._replace(body=BoundedOctets(response.body, limit, _too_large))


def _too_large(limit: int) -> AnswerTooLarge:
    return AnswerTooLarge(
        f"The destination's answer is larger than the {limit} octets that it may have; ask for "
        "less, or ask the admin for more."
    )
