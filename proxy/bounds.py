"""The bounds of a call that its caller meets: how much it may send, and how long it wants to wait.

They stand around everything behind the spine. A caller's own deadline ends that caller's waiting
alone: a call to the upstream that others wait for as well goes on.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

from proxy.call import Call
from proxy.errors import BadRequest, BodyTooLarge, CallTimeout, RelayError
from proxy.grant import Grant
from proxy.messages import Fields, RequestBody, Response, values

TIMEOUT_FIELD: Final = b"x-relay-timeout"
_SECONDS: Final = re.compile(rb"[0-9]{1,6}(?:\.[0-9]{1,6})?")

T = TypeVar("T")


@dataclass(slots=True)
class ByService(Generic[T]):
    """A setting: as it is for most services, and what differs by name."""

    usual: T
    named: Mapping[str, T] = field(default_factory=dict)

    def become(self, other: ByService[T]) -> None:
        """Another one from now on, for whoever holds this."""
        self.usual, self.named = other.usual, other.named

    def of(self, grant: Grant) -> T:
        """The one for a call."""
        if not self.named or grant.service is None:
            return self.usual
        return self.named.get(grant.service.name, self.usual)


class Fetching(Protocol):
    """What answers calls."""

    def fetch(self, call: Call, grant: Grant) -> AbstractAsyncContextManager[Response]:
        """The response; a context that may raise a RelayError on its way in."""
        ...


class Bounded:
    """Fetches within bounds. `octets`: the largest body of a request; None: there is no bound."""

    def __init__(self, fetching: Fetching, octets: ByService[int | None]) -> None:
        self._fetching = fetching
        self._octets = octets

    def fetch(self, call: Call, grant: Grant) -> AbstractAsyncContextManager[Response]:
        """The response; raises BadRequest and BodyTooLarge at once, and CallTimeout on the way."""
        seconds = patience(call.fields)
        limit = self._octets.of(grant)
        if limit is not None and call.body.length != 0:
            call = call._replace(body=_BoundedBody(call.body, limit))
        fetched = self._fetching.fetch(call, grant)
        return fetched if seconds is None else _in_time(fetched, seconds)


def patience(fields: Fields) -> float | None:
    """The seconds that the caller gives us, None where it says nothing; raises BadRequest."""
    given = values(fields, TIMEOUT_FIELD)
    if not given:
        return None
    seconds = float(given[0]) if len(given) == 1 and _SECONDS.fullmatch(given[0]) else 0.0
    if not seconds:
        text = "Send one X-Relay-Timeout, in seconds above 0 such as 30 or 2.5."
        raise BadRequest(text, param="X-Relay-Timeout")
    return seconds


@asynccontextmanager
async def _in_time(
    fetched: AbstractAsyncContextManager[Response], seconds: float
) -> AsyncIterator[Response]:
    """From here to the end of the answer, which is relayed inside."""
    deadline = asyncio.timeout(seconds)
    try:
        async with deadline, fetched as response:
            yield response
            if not deadline.expired():  # what is over is cleaned up in peace
                deadline.reschedule(None)
    except TimeoutError as error:
        if not deadline.expired():  # somebody else's
            raise
        text = f"The call took longer than the {seconds:g} s of X-Relay-Timeout; allow more."
        raise CallTimeout(text) from error


class BoundedOctets:
    """Octets up to a limit; those beyond raise what `refusal` makes of it."""

    def __init__(
        self, octets: AsyncIterator[bytes], limit: int, refusal: Callable[[int], RelayError]
    ) -> None:
        self._octets = octets
        self._limit = limit
        self._refusal = refusal
        self._taken = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The octets as they arrive."""
        return self

    async def __anext__(self) -> bytes:
        """The next octets."""
        octets = await anext(self._octets)
        self._taken += len(octets)
        if self._taken > self._limit:
            raise self._refusal(self._limit)
        return octets


class _BoundedBody:
    """A request's body, refused as soon as it is known to be too large."""

    def __init__(self, body: RequestBody, limit: int) -> None:
        self._body = body
        self._limit = limit
        self.length = body.length
        self._check(self.length)

    def at_hand(self) -> bytes | None:
        """All of it, where it has come already."""
        octets = self._body.at_hand()
        self._check(None if octets is None else len(octets))
        return octets

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The octets as they arrive."""
        return BoundedOctets(aiter(self._body), self._limit, _too_large)

    def _check(self, length: int | None) -> None:
        if length is not None and length > self._limit:
            raise _too_large(self._limit)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"Keep the body of the request below {limit} octets.")
