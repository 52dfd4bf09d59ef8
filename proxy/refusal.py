"""Refusals of a connection, or of a call before anybody reads it: whole answers, as octets."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from proxy.errors import RelayError, TooManyConnections
from proxy.problems import problem

_REASONS: Final = {
    400: b"Bad Request",
    408: b"Request Timeout",
    431: b"Request Header Fields Too Large",
    503: b"Service Unavailable",
}
_RETRY_SECONDS: Final = 5


def crowded() -> TooManyConnections:
    """There are as many connections as may be."""
    text = "There are too many connections, or calls from one address; try again in a while."
    return TooManyConnections(text, retry_after=_RETRY_SECONDS)


def whole_response(error: RelayError) -> bytes:
    """The last words on a connection."""
    name = secrets.token_hex(16)
    answer = problem(error, name)
    lines = [b"HTTP/1.1 %d %s" % (answer.status, _REASONS[answer.status])]
    lines += [field + b": " + value for field, value in answer.fields]
    lines += [b"%b: %b" % field for field in _ids(name)]
    return b"\r\n".join([*lines, b"connection: close", b"", answer.body])


async def refuse_crowd(
    _scope: object,
    _receive: object,
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """An ASGI application for one call too many: the connection stays, for it is a proxy's."""
    name = secrets.token_hex(16)
    answer = problem(crowded(), name)
    fields = [*answer.fields, *_ids(name)]
    await send({"type": "http.response.start", "status": answer.status, "headers": fields})
    await send({"type": "http.response.body", "body": answer.body})


def _ids(name: str) -> tuple[tuple[bytes, bytes], ...]:
    return (b"x-request-id", name.encode()), (b"x-relay-request-id", name.encode())
