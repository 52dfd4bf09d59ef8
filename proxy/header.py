"""What one pass over a request's header finds, and the request's id. Pure, but for new ids."""

from __future__ import annotations

import itertools
import re
import secrets
from hashlib import blake2b
from typing import NamedTuple

from proxy.messages import Fields, value, values
from proxy.trace import PARENT_FIELD, is_parent

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_PROCESS = secrets.token_hex(10)
_NUMBERS = itertools.count(secrets.randbits(32))
_TELLING = frozenset({b"content-length", b"transfer-encoding", b"x-request-id", PARENT_FIELD})


MOST_OCTETS = 8192
"""Of a header that anything is remembered of: memories are bounded by number."""


class Seen(NamedTuple):
    """What one pass over a header finds. `hash` tells it from every other one, but for its
    Content-Length and `parent`: a traceparent that a trace can be continued from, which differs
    with every call and is no longer in `fields`. `length`: octets of the body, None: not known.
    `id`: the one that the caller gave, or empty.
    """

    hash: bytes
    length: int | None
    id: str
    fields: Fields
    parent: bytes


def look_over(method: str, target: bytes, fields: Fields) -> Seen:
    """One pass over the header; no field or target holds a NUL."""
    parts = [method.encode(), target]
    length: int | None = 0
    given = None
    traced = False
    for field in fields:
        name = field[0]
        if name in _TELLING:
            if name == b"content-length":
                length = int(field[1])  # the parser has judged it
                continue
            if name == b"transfer-encoding":
                length = None
            elif name == PARENT_FIELD:
                traced = True
                continue
            elif given is None:
                given = field[1]
        parts += field
    parent, rest = _parent_of(fields) if traced else (b"", fields)
    if traced and not parent:
        for text in values(fields, PARENT_FIELD):
            parts += (PARENT_FIELD, text)
    octets = b"\0".join(parts)
    digest = blake2b(octets, digest_size=32).digest() if len(octets) <= MOST_OCTETS else b""
    return Seen(digest, length, _well_formed(given), rest, parent)


def _parent_of(fields: Fields) -> tuple[bytes, Fields]:
    """The traceparent, and the fields without it; one that is passed on like any other field stays
    where it is."""
    found = values(fields, PARENT_FIELD)
    hop_by_hop = any(PARENT_FIELD in text.lower() for text in values(fields, b"connection"))
    if len(found) != 1 or not is_parent(found[0]) or hop_by_hop:
        return b"", fields
    return found[0], tuple([field for field in fields if field[0] != PARENT_FIELD])


def begin_ids() -> None:
    """Other ids from now on: for a process that is a copy of one that makes them too."""
    global _PROCESS  # noqa: PLW0603 - a fork can't be told from its parent otherwise
    _PROCESS = secrets.token_hex(10)


def request_id(fields: Fields) -> str:
    """The caller's id where it is well-formed (and no token: never echoed), else a new one."""
    return _well_formed(value(fields, b"x-request-id")) or new_id()


def new_id() -> str:
    """An id that no other request has."""
    return f"{_PROCESS}{next(_NUMBERS):012x}"


def _well_formed(given: bytes | None) -> str:
    if given is not None and _REQUEST_ID.fullmatch(given) and b"kr_" not in given:
        return given.decode()
    return ""
