"""What a call may take from the cache and leave in it, and how that is told; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Literal, NamedTuple

from proxy.call import Directions
from proxy.messages import Field, Fields, Response, value, values

KEPT_METHODS = frozenset({"GET", "HEAD", "POST"})
EARLIEST_TIME = 1_000_000_000
"""Seconds below this are no date after September 2001: somebody meant a duration."""

NOT_STORED_FIELDS = frozenset(
    {
        b"age",
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"set-cookie",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields of one connection, caller or moment; `Age` is computed anew (RFC 9111 section 3.1)."""

_VARIES_ANYHOW = re.compile(rb"\*|\btraceparent\b", re.IGNORECASE)
"""In Vary: what is another in every call."""


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """The bounds of the cache. Times in seconds, sizes in octets.

    `tenant_bytes` None: no quota below `disk_bytes`. `ignore_fields`: more request fields that are
    not part of the key, in lower case, `x-name-*` for a prefix.
    """

    max_ttl: float = 30 * 86_400
    max_entry_bytes: int = 32 << 20
    memory_bytes: int = 64 << 20
    disk_bytes: int = 1 << 30
    tenant_bytes: int | None = None
    max_keyed_body_bytes: int = 32 << 20
    spool_memory_bytes: int = 1 << 20
    ignore_fields: tuple[str, ...] = ()
    json_whitespace: Literal["keep", "ignore"] = "keep"

    @property
    def quota(self) -> int:
        """Octets on disk that one tenant may hold."""
        return self.disk_bytes if self.tenant_bytes is None else self.tenant_bytes

    @property
    def entry_limit(self) -> int:
        """Octets of the largest body that is kept."""
        return min(self.max_entry_bytes, self.disk_bytes, self.quota)


class Forward(StrEnum):
    """Why a call was forwarded: the values of `fwd` (RFC 9211 section 2.2)."""

    BYPASS = "bypass"
    METHOD = "method"
    REQUEST = "request"
    URI_MISS = "uri-miss"
    VARY_MISS = "vary-miss"
    STALE = "stale"


class Plan(NamedTuple):
    """What one call does with the cache. `until`: the time that its answer is kept to, if it is."""

    lookup: bool
    until: float | None
    forward: Forward
    detail: str | None = None

    @property
    def keyed(self) -> bool:
        """Whether the call needs a key at all."""
        return self.lookup or self.until is not None


_PASSING = Plan(False, None, Forward.BYPASS)
_REFRESHING = Plan(False, None, Forward.REQUEST)


def decide(method: str, directions: Directions, now: float, settings: CacheSettings) -> Plan:
    """The plan for a call, by its `cache` and `invalidate`."""
    asked, invalidate = directions.cache, directions.invalidate
    detail = None
    if asked is not None and asked < EARLIEST_TIME:
        detail = "cache-is-a-point-in-time"
    if asked is None:
        return _REFRESHING if invalidate else _PASSING
    if method not in KEPT_METHODS:
        return Plan(False, None, Forward.METHOD, detail)
    until = min(float(asked), now + settings.max_ttl) if asked > now else None
    if invalidate:
        return Plan(False, until, Forward.REQUEST, detail)
    return Plan(True, until, Forward.URI_MISS, detail)


def refusal(
    method: str, response: Response, honour_no_store: bool, settings: CacheSettings
) -> str | None:
    """Why a response is not kept, as far as its header tells; None: it is, once it is whole."""
    if not 200 <= response.status < 300 or response.status == 206:
        return "status-not-kept"
    if response.complete_at_close and has_body(method, response.status):
        return "close-delimited"
    if any(map(_VARIES_ANYHOW.search, values(response.fields, b"vary"))):
        return "vary-any"
    if honour_no_store and forbids_storing(response.fields):
        return "no-store"
    if has_body(method, response.status) and (length(response.fields) or 0) > settings.entry_limit:
        return "answer-too-large"
    return None


def has_body(method: str, status: int) -> bool:
    """Whether a response may have a body at all (RFC 9110 section 6.4.1)."""
    return method != "HEAD" and status not in {204, 304}


def forbids_storing(fields: Fields) -> bool:
    """Whether the upstream sent `no-store` (RFC 9111 section 5.2.2.5)."""
    directives = b",".join(values(fields, b"cache-control")).lower().split(b",")
    return any(directive.strip() == b"no-store" for directive in directives)


def length(fields: Fields) -> int | None:
    """The announced octets of the body, or None."""
    return _number(value(fields, b"content-length"))


def kept_fields(fields: Fields) -> Fields:
    """The response fields that are stored."""
    return tuple(field for field in fields if field[0] not in NOT_STORED_FIELDS)


def announced_age(fields: Fields) -> int:
    """Seconds that an answer had spent in other caches (RFC 9111 section 5.1)."""
    return _number(value(fields, b"age")) or 0


def _number(text: bytes | None) -> int | None:
    return int(text) if text is not None and text.isdigit() and len(text) < 19 else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the cache did with one call; `forward` None: a hit."""

    forward: Forward | None = None
    status: int | None = None
    stored: bool = False
    collapsed: bool = False
    ttl: int | None = None
    detail: str | None = None

    def field(self) -> Field:
        """The verdict as a Cache-Status field (RFC 9211)."""
        parts = ["keyrelay", "hit" if self.forward is None else f"fwd={self.forward.value}"]
        if self.status is not None:
            parts.append(f"fwd-status={self.status}")
        if self.stored:
            parts.append("stored")
        if self.collapsed:
            parts.append("collapsed")
        if self.ttl is not None:
            parts.append(f"ttl={self.ttl}")
        if self.detail is not None:
            parts.append(f"detail={self.detail}")
        return (b"cache-status", "; ".join(parts).encode())

    @property
    def name(self) -> str:
        """The verdict in one word, as in CallRecord."""
        if self.forward is None:
            return "hit"
        if self.collapsed:
            return "collapsed"
        if self.stored:
            return "stored"
        return "miss" if self.forward in _MISSES else "bypass"


_MISSES = frozenset({Forward.URI_MISS, Forward.VARY_MISS, Forward.STALE, Forward.REQUEST})


@lru_cache(maxsize=64)
def passed(forward: Forward, detail: str | None) -> Verdict:
    """The verdict on a call that the cache has no part in."""
    return Verdict(forward, detail=detail)


def hit_field(ttl: int, detail: str | None) -> Field:
    """The Cache-Status of a hit, as `Verdict` has it; hits are many."""
    if detail is not None:
        return Verdict(ttl=ttl, detail=detail).field()
    return (b"cache-status", b"keyrelay; hit; ttl=%d" % ttl)
