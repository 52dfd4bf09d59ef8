"""A RelayError as the octets that a caller gets: RFC 9457, with the member that SDKs read. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from proxy.errors import RelayError
from proxy.messages import Field, Fields

MAX_RETRY_AFTER = 60
"""SDKs sleep as long as they are told; the true time stands in `detail`."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A whole response of ours."""

    status: int
    fields: Fields
    body: bytes


def problem(error: RelayError, request_id: str, instance: str | None = None) -> Problem:
    """The response for an error; `instance` is the path that was asked, without its query."""
    body = orjson.dumps(_document(error, request_id, instance))
    fields: list[Field] = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"proxy-status", _proxy_status(error)),
        *error.fields,
    ]
    if error.status == 401:
        fields.append((b"www-authenticate", b"Bearer"))
    if error.retry_after is not None:
        fields.append((b"retry-after", str(min(error.retry_after, MAX_RETRY_AFTER)).encode()))
    if not error.retry_helps:
        fields.append((b"x-should-retry", b"false"))
    return Problem(error.status, tuple(fields), body)


def _document(error: RelayError, request_id: str, instance: str | None) -> dict[str, object]:
    return {
        "type": f"/errors/{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        **({"instance": instance} if instance else {}),
        "request_id": request_id,
        **error.members,
        "error": {
            "message": error.detail,
            "type": error.kind,
            "code": error.code,
            "param": error.param,
        },
    }


def _proxy_status(error: RelayError) -> bytes:
    """The field of RFC 9209 section 2; its presence tells our errors from the upstream's."""
    return f"keyrelay; error={error.proxy_status}".encode()
