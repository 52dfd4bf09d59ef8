"""Where a message ends: the framing that is sent, and the guard of the framing that comes. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from proxy.errors import UpstreamError
from proxy.messages import Fields, values

FRAMING_FIELDS = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection"})
_NOT_FOR_VALUES = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
METHODS_WITH_CONTENT = frozenset({"POST", "PUT", "PATCH"})


def request_fields(method: str, authority: str, fields: Fields, length: int | None) -> Fields:
    """The fields as sent: Host first, framing last (RFC 9112 sections 3.2 and 6).

    `length`: octets of the body; None for chunked.
    """
    return (*unframed(authority, fields), *framing(method, length))


def unframed(authority: str, fields: Fields) -> Fields:
    """All fields that don't depend on the body."""
    end_to_end = [field for field in fields if field[0] not in FRAMING_FIELDS]
    return ((b"host", authority.encode("ascii")), *end_to_end)


def framing(method: str, length: int | None) -> Fields:
    """The fields that tell where the body ends."""
    if length is None:
        return ((b"transfer-encoding", b"chunked"),)
    if length or method in METHODS_WITH_CONTENT:
        return ((b"content-length", b"%d" % length),)
    return ()


class Framing(NamedTuple):
    """How an answer's body ends: it has none, or by its framing, or only with the connection."""

    bodiless: bool
    complete_at_close: bool


def judge(method: str, status: int, version: bytes, fields: Fields) -> Framing:
    """The framing of an answer (RFC 9112 section 6.3); raises UpstreamError where it is doubtful.

    Stricter than the parser: what two programs could read as different lengths is refused, since a
    cache or a caller behind us might read the other one.
    """
    lengths = values(fields, b"content-length")
    codings = values(fields, b"transfer-encoding")
    if _NOT_FOR_VALUES.search(b" ".join([value for _, value in fields])):
        raise UpstreamError("The destination's answer has a control character in a header field.")
    if not 200 <= status <= 599:
        raise UpstreamError("The destination answered with a status that HTTP does not have.")
    if lengths and (len(set(lengths)) > 1 or not _plain_number(lengths[0])):
        raise UpstreamError("The destination's answer names its length in contradictory ways.")
    if codings and (lengths or version != b"HTTP/1.1" or len(codings) > 1):
        raise UpstreamError("The destination's answer names its length in contradictory ways.")
    if codings and codings[0].lower() != b"chunked":
        raise UpstreamError("The destination's answer has a transfer coding that nobody asked for.")
    bodiless = method == "HEAD" or status in (204, 304) or bool(lengths and not int(lengths[0]))
    return Framing(bodiless, not bodiless and not lengths and not codings)


def _plain_number(length: bytes) -> bool:
    return length.isdigit() and len(length) < 20
