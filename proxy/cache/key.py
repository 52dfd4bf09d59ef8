"""A call to the key of its answer: everything that may change the answer, and no noise; pure.

The key is an HMAC, so that a stolen file can't be guessed at. Every part is preceded by its length,
so that no two different calls run together.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from proxy.cache.canonical import (
    Fold,
    Octets,
    WithoutBoundary,
    WithoutSpace,
    is_json,
    split_boundary,
)
from proxy.call import Call
from proxy.errors import RelayError
from proxy.grant import Grant
from proxy.memo import bounded_put
from proxy.messages import Field, Fields, values
from proxy.services.slots import every_slot, query_names
from proxy.trace import PARENT_FIELD
from vault import Hasher, Hashing

FORMAT = "keyrelay cache key 1"

NOISE = (
    "baggage",
    "cache-control",
    "date",
    "idempotency-key",
    "pragma",
    "priority",
    "sentry-trace",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-amzn-trace-id",
    "x-b3-*",
    "x-cloud-trace-context",
    "x-correlation-id",
    "x-datadog-*",
    "x-deepgram-session-id",
    "x-fern-*",
    "x-goog-api-client",
    "x-request-id",
    "x-server-timeout",
    "x-stainless-*",
)
"""Request fields that differ between equal calls: forwarded, and nothing to the cache."""

CALLS = 1024
"""How many headers are remembered with their part of the key."""

FRAMING = frozenset({b"content-length", b"transfer-encoding"})
CODINGS = frozenset({"br", "deflate", "gzip", "identity", "zstd"})

Forwarded = Callable[[Call, Grant], Fields]
"""The request fields that the upstream will get, before the key is written into them."""

Select = Callable[[bytes], bytes]
"""From the names that a stored answer varies by to what this call sends in them."""


class Noise:
    """Which request fields are not part of the key; `name-*` stands for a prefix."""

    def __init__(self, names: Iterable[str]) -> None:
        lowered = [name.lower() for name in names]
        self._exact = frozenset(name.encode() for name in lowered if not name.endswith("*"))
        self._prefixes = tuple(name[:-1].encode() for name in lowered if name.endswith("*"))
        self.holds = lru_cache(maxsize=1024)(self._holds)

    def _holds(self, name: bytes) -> bool:
        return name in self._exact or name.startswith(self._prefixes)


class Keyer:
    """Makes keys. `ignore_fields` and `fold_json` come from the settings."""

    def __init__(
        self,
        hasher: Hasher,
        forwarded: Forwarded,
        ignore_fields: Iterable[str] = (),
        fold_json: bool = False,
    ) -> None:
        self.hasher = hasher
        self.forwarded = forwarded
        ignored = sorted({name.lower() for name in ignore_fields})
        self.noise = Noise((*NOISE, *ignored))
        self._format = " ".join((FORMAT, *ignored)).encode()  # who ignores others shares nothing
        self.fold_json = fold_json
        self._begun: dict[bytes, _Begun] = {}

    def begin(self, call: Call, grant: Grant) -> Keying:
        """A key that still lacks the body."""
        begun = self._begun.get(call.head)
        if begun is None or begun.grant is not grant:
            begun = self._begin(call, grant)
            if call.head and not grant.own_credential:
                bounded_put(self._begun, call.head, begun, CALLS)
        return Keying(begun, self.hasher)

    def _begin(self, call: Call, grant: Grant) -> _Begun:
        forwarded = self.forwarded(call, grant)
        plain, content_type = _content(forwarded, self.noise)
        fold = _fold_of(plain, content_type, self.fold_json)
        hashing = self.hasher.begin()
        hashing.update(_encoded([self._format, *_head(call, grant, fold)]))
        return _Begun(grant, forwarded, fold, hashing)

    def vary(self, fields: Fields) -> bytes | None:
        """The names in `Vary` that the key itself does not hold, joined; None for `*`, and for
        what is another in every call.

        All other forwarded fields are in the key, so a stored answer's are equal anyway.
        """
        names = {
            name.strip().lower() for text in values(fields, b"vary") for name in text.split(b",")
        }
        if b"*" in names or PARENT_FIELD in names:
            return None
        return b",".join(sorted(name for name in names if self.noise.holds(name)))

    def parts(self, call: Call, grant: Grant) -> list[str]:
        """What the key of a call is made of, by name; never a value of a field."""
        plain, content_type = _content(self.forwarded(call, grant), self.noise)
        fold = _fold_of(plain, content_type, self.fold_json)
        fixed = ["tenant", "service", "key alias", "method", "target"]
        own = [f"own credential {name.decode()}" for name, _ in own_credential(call, grant)]
        fields = [f"field {name.decode()}" for name, _ in fold.fields]
        return [*fixed, *own, *fields, fold.title]


class Keying:
    """The making of one key: takes the body's octets as they are read."""

    def __init__(self, begun: _Begun, hasher: Hasher) -> None:
        self._hashing = begun.hashing.copy()
        self._fold = begun.fold.open(self._hashing.update)
        self._hasher = hasher
        self._forwarded = begun.forwarded
        self.absorb = self._fold.absorb

    def digest(self) -> bytes:
        """The key; call it once, after the last octet of the body."""
        self._fold.finish()
        return self._hashing.digest()

    def select(self, vary: bytes) -> bytes:
        """A digest of what this call sends in the named fields; empty for no names."""
        if not vary:
            return b""
        parts: list[bytes] = []
        for name in vary.split(b","):
            sent = values(self._forwarded, name)
            parts += [name, str(len(sent)).encode(), *sent]
        return self._hasher.digest(_encoded([b"vary", *parts]))


def own_credential(call: Call, grant: Grant) -> list[Field]:
    """The caller's own credential in the places where its service looks for one."""
    if not grant.own_credential or grant.service is None:
        return []
    slots = (*every_slot(grant.service), *grant.service.backend_slots)
    headers = {s.name.lower().encode() for s in slots if s.carrier == "header"}
    found = [field for field in call.fields if field[0] in headers | {b"authorization"}]
    return found + [
        (name.encode(), text.encode())
        for name, text in _parameters(call)
        if name in query_names(slots)
    ]


@lru_cache(maxsize=256)
def folded_codings(value: bytes) -> bytes:
    """Accept-Encoding reduced to the codings that servers use (RFC 9110 section 12.5.3)."""
    if b"*" in value:
        return value.lower()
    kept = set()
    for member in value.decode("latin-1").lower().split(","):
        coding, _, weight = (part.strip() for part in member.partition(";"))
        coding = coding.removeprefix("x-")
        if coding in CODINGS and not _is_zero(weight):
            kept.add(coding)
        elif coding == "identity":
            kept.add("identity;q=0")
    return ", ".join(sorted(kept)).encode()


def _is_zero(weight: str) -> bool:
    name, _, number = weight.partition("=")
    return name.strip() == "q" and number.strip().rstrip("0") in {"", "0.", "."}


@dataclass(frozen=True, slots=True)
class _FoldOf:
    """The fields of the key, and how the body goes into it."""

    fields: Fields
    tag: bytes
    title: str
    open: Callable[[Callable[[bytes], None]], Fold]


@dataclass(frozen=True, slots=True)
class _Begun:
    """A key up to the body: the same for every call of an equal header and the same grant."""

    grant: Grant
    forwarded: Fields
    fold: _FoldOf
    hashing: Hashing


def _content(forwarded: Fields, noise: Noise) -> tuple[list[Field], bytes]:
    """The fields that count, by name; those of one name in their order. And the content type."""
    kept = [f for f in forwarded if f[0] not in FRAMING and not noise.holds(f[0])]
    kept.sort(key=lambda field: field[0])
    codings = b", ".join(values(forwarded, b"accept-encoding"))
    plain = [field for field in kept if field[0] != b"accept-encoding"]
    if len(plain) < len(kept):
        plain.append((b"accept-encoding", folded_codings(codings)))
    types = values(forwarded, b"content-type")
    coded = [c for c in values(forwarded, b"content-encoding") if c.lower() != b"identity"]
    return plain, types[0] if len(types) == 1 and not coded else b""


def _fold_of(plain: list[Field], content_type: bytes, fold_json: bool) -> _FoldOf:
    split = split_boundary(content_type)
    if split is not None:
        bare, boundary = split
        fields = tuple((n, bare) if n == b"content-type" else (n, v) for n, v in plain)
        title = "body without its multipart boundary"
        return _FoldOf(fields, b"multipart", title, lambda sink: WithoutBoundary(boundary, sink))
    if fold_json and is_json(content_type):
        return _FoldOf(tuple(plain), b"json", "body without JSON white space", WithoutSpace)
    return _FoldOf(tuple(plain), b"octets", "body", Octets)


def _head(call: Call, grant: Grant, fold: _FoldOf) -> list[bytes]:
    service = grant.service.name if grant.service else ""
    own = own_credential(call, grant)
    parts = [
        grant.tenant.encode(),
        service.encode(),
        (grant.key.alias if grant.key else "").encode(),
        call.method.encode(),
        grant.target.url.encode(),
        fold.tag,
        str(len(own)).encode(),
    ]
    for name, text in (*own, *fold.fields):
        parts += (name, text)
    return [*parts, b"end"]


def _encoded(parts: list[bytes]) -> bytes:
    """All parts behind their number and lengths: no two lists encode alike."""
    lengths = struct.pack(f">{len(parts) + 1}Q", len(parts), *map(len, parts))
    return lengths + b"".join(parts)


def _parameters(call: Call) -> Iterable[tuple[str, str]]:
    if isinstance(call.directions, RelayError):
        return
    query = call.directions.url.partition("#")[0].partition("?")[2]
    for parameter in query.split("&"):
        name, _, text = parameter.partition("=")
        yield name, text
