"""A JSON Web Token from its text: read strictly, and believed in nothing yet. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

LONGEST: Final = 16_384
"""Octets of a text: it travels in a header field."""

LONGEST_NAME: Final = 256
_TYPES: Final = frozenset({"jwt", "at+jwt"})
_REFUSED: Final = ("crit", "b64", "zip", "enc", "cty", "jwk", "jku", "x5u", "x5c")
"""What asks for more than a plain signature, or says by itself with which key it is checked."""


class Unreadable(ValueError):
    """No token that is taken here; the words hold nothing of it."""


class Jwt(NamedTuple):
    """A token that nobody has verified. `signed`: the octets that the signature is of."""

    alg: str
    kid: str | None
    claims: Mapping[str, Any]
    signed: bytes
    signature: bytes


def looks_like_jwt(text: bytes) -> bool:
    """Whether it may be one: three parts, and an object first."""
    return text[:1] == b"e" and len(text) <= LONGEST and text.count(b".") == 2


def parse(text: bytes) -> Jwt:
    """The compact serialization of RFC 7515 section 3.1; raises Unreadable."""
    if not looks_like_jwt(text):
        raise Unreadable("no JWT")
    header, claims, signature = text.split(b".")
    alg, kid = _judged(read_object(decode(header)))
    signed = text[: len(header) + 1 + len(claims)]
    return Jwt(alg, kid, read_object(decode(claims)), signed, decode(signature))


def decode(text: bytes | str) -> bytes:
    """Base64url without padding (RFC 7515 section 2), in its one spelling; raises Unreadable."""
    octets = text.encode("utf-8", "replace") if isinstance(text, str) else text
    try:
        decoded = base64.b64decode(octets + b"=" * (-len(octets) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Unreadable("a part is not base64url") from None
    if not decoded or encode(decoded) != octets:
        raise Unreadable("a part is empty, or not base64url in its one spelling")
    return decoded


def encode(octets: bytes) -> bytes:
    """Octets as base64url without padding."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=")


def read_object(octets: bytes) -> dict[str, Any]:
    """A JSON object in which each member stands once (RFC 7519 section 4); raises Unreadable."""
    try:
        found = json.loads(octets.decode(), object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise Unreadable("no JSON object, or a member stands twice in it") from None
    if not isinstance(found, dict):
        raise Unreadable("no JSON object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a member stands twice")
    return found


def _no_number(_: str) -> None:
    raise ValueError("NaN and Infinity are no JSON")


def _judged(header: Mapping[str, Any]) -> tuple[str, str | None]:
    """Algorithm and key id. RFC 8725 sections 2.1, 3.1 and 3.10: what a token says of keys is not
    followed, and what is not understood is refused (RFC 7515 section 4.1.11)."""
    for name in _REFUSED:
        if name in header:
            raise Unreadable(f"its header has {name}, which is not taken here")
    alg, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(alg, str):
        raise Unreadable("its header names no algorithm")
    if kid is not None and not (isinstance(kid, str) and len(kid) <= LONGEST_NAME):
        raise Unreadable("its header has no kid that is a name")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
        raise Unreadable("its type is not JWT, nor at+jwt")
    return alg, kid
