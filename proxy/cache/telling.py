"""An answer as records that another process can hear; pure.

A header comes first, then octets in pieces, then the end; an answer without an end is cut.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Final

from proxy.cache.flight import Told
from proxy.errors import Overloaded
from proxy.messages import Response

HEADER: Final = b"h"
OCTETS: Final = b"o"
KEPT: Final = b"k"
"""The end of an answer that is kept."""

UNKEPT: Final = b"u"
"""The end of one that is not."""

OVERLOADED: Final = b"w"
"""In place of a header: the call has waited too long; with what its callers are told."""


def header(response: Response, told: Told) -> bytes:
    """The record of a header."""
    pairs = [(name.decode("latin-1"), text.decode("latin-1")) for name, text in response.fields]
    times = told.requested_at, told.received_at, told.until
    rest = response.complete_at_close, response.upstream_seconds
    return HEADER + json.dumps((response.status, pairs, *rest, *times, told.variant.hex())).encode()


def read_header(record: bytes, body: AsyncIterator[bytes]) -> tuple[Response, Told]:
    """What `header` wrote."""
    status, pairs, at_close, seconds, requested_at, received_at, until, variant = json.loads(
        record[1:]
    )
    fields = tuple((name.encode("latin-1"), text.encode("latin-1")) for name, text in pairs)
    response = Response(status, fields, body, at_close, seconds)
    return response, Told(requested_at, received_at, until, bytes.fromhex(variant))


def overloaded(error: Overloaded) -> bytes:
    """The record of a leader that has waited in vain."""
    return OVERLOADED + json.dumps((error.detail, error.retry_after)).encode()


def read_overloaded(record: bytes) -> Overloaded:
    """What `overloaded` wrote."""
    detail, retry_after = json.loads(record[1:])
    return Overloaded(detail, retry_after=retry_after)
