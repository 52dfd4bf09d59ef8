"""What a request shows for itself: every text in every slot where a credential may stand. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass

from proxy.call import Call
from proxy.destinations import Target, parse_destination
from proxy.errors import BadCall, RelayError
from proxy.messages import Fields, values

OWN_SLOTS = (b"proxy-authorization", b"x-relay-token")
"""Slots that are ours alone; a token there leaves the provider's slot to the caller's own key."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One text that a caller presented, and where it stood."""

    slot: bytes
    text: bytes


def target_of(call: Call) -> Target | None:
    """Where the call wants to go, if that can be read; refusing it is for later."""
    if isinstance(call.directions, RelayError):
        return None
    try:
        return parse_destination(call.directions.url)
    except BadCall:
        return None


def in_fields(fields: Fields, credential_headers: frozenset[bytes]) -> Iterator[Shown]:
    """Every text in every slot: ours, Authorization, then those of the known services."""
    first = (*OWN_SLOTS, b"authorization")
    for slot in first:
        for value in values(fields, slot):
            yield from (Shown(slot, text) for text in _texts(value))
    for name, value in fields:
        if name in credential_headers and name not in first:
            yield from (Shown(name, text) for text in _texts(value))


def _texts(value: bytes) -> Iterator[bytes]:
    """What a value may carry: itself, what follows a scheme word, what Basic wraps (RFC 7617)."""
    yield value
    scheme, space, rest = value.partition(b" ")
    if not space:
        return
    rest = rest.strip()
    yield rest
    if scheme.lower() == b"basic":
        yield from _basic(rest)
    elif b"=" in rest:
        yield rest.partition(b"=")[2].strip(b'"')


def _basic(encoded: bytes) -> Iterator[bytes]:
    try:
        decoded = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return
    user, _, password = decoded.partition(b":")
    yield from (text for text in (password, user, decoded) if text)
