"""What a provider saw of a call, so that two ways to it can be compared. Pure."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from tests.support.origin import Recorded

# Of the connection, not of the call; the one field that a proxy must add (RFC 9110 7.6.3); and what
# a JavaScript engine says of its page, which is never passed on.
_OF_THE_HOP = frozenset({"host", "connection", "keep-alive", "via", "sec-fetch-mode"})
# New in every call of the same client: there, but with any value.
_NEW_EACH_TIME = frozenset(
    {"idempotency-key", "x-idempotency-key", "x-deepgram-session-id", "traceparent", "x-request-id"}
)
_BOUNDARY = re.compile(r"boundary=\"?([^\";]+)")


@dataclass(frozen=True, slots=True)
class Seen:
    """A request without what is new in every call; `fields` sorted, names in lower case."""

    method: str
    path: str
    query: str
    fields: tuple[tuple[str, str], ...]
    body: bytes


def seen(request: Recorded) -> Seen:
    """The request in a form that is equal for equal calls."""
    boundary = _BOUNDARY.search(request.header("content-type") or "")
    mark = boundary[1] if boundary else ""
    fields = sorted(
        (name.lower(), _value(name.lower(), value, mark))
        for name, value in request.headers
        if name.lower() not in _OF_THE_HOP
    )
    body = request.body.replace(mark.encode(), b"BOUNDARY") if mark else request.body
    return Seen(request.method, request.path, request.query, tuple(fields), body)


def _value(name: str, value: str, boundary: str) -> str:
    if name in _NEW_EACH_TIME:
        return "ANY"
    return value.replace(boundary, "BOUNDARY") if boundary else value


def slots(request: Recorded, key: str) -> list[tuple[str, str]]:
    """Where a key stands, with what is around it: `("x-api-key", "{key}")`, `("?key", "{key}")`."""
    found = [
        (name.lower(), value.replace(key, "{key}"))
        for name, value in request.headers
        if key in value
    ]
    for pair in request.query.split("&"):
        name, _, value = pair.partition("=")
        if key in value:
            found.append((f"?{name}", value.replace(key, "{key}")))
    return found


def holds(request: Recorded, text: str) -> bool:
    """Whether a text stands anywhere in a request, plain or (as in Basic) in base64."""
    octets = request.raw + request.body
    if text.encode() in octets:
        return True
    return any(base64.b64encode(b"x" * pad + text.encode())[4:-4] in octets for pad in range(3))
