"""Which header fields pass, each way, and which are added. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from proxy.messages import Fields, values
from proxy.trace import PARENT_FIELD, STATE_FIELD

# RFC 9110 section 7.6.1; Content-Length is decided anew by whoever frames the request.
_HOP_BY_HOP: Final = frozenset(
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade".split()
)
_NOT_FOR_UPSTREAMS: Final = _HOP_BY_HOP | frozenset(
    b"content-length cookie cookie2 expect forwarded host http2-settings origin referer"
    b" proxy true-client-ip x-client-ip x-http-method x-http-method-override x-method-override"
    b" x-original-url x-real-ip x-rewrite-url".split()
)
_PREFIXES_NOT_FOR_UPSTREAMS: Final = (b"proxy-", b"sec-", b"x-forwarded", b"x-relay-", b"cf-")
# What acts on our origin in a browser, or on a web server before us.
_NOT_FOR_CALLERS: Final = _HOP_BY_HOP | frozenset(
    b"accept-ch alt-svc clear-site-data content-security-policy-report-only critical-ch expect-ct"
    b" nel no-vary-search origin-agent-cluster public-key-pins public-key-pins-report-only refresh"
    b" report-to reporting-endpoints service-worker-allowed set-cookie set-cookie2 set-login"
    b" strict-transport-security use-as-dictionary www-authenticate x-content-type-options"
    b" x-lighttpd-send-file x-litespeed-location x-reproxy-url x-sendfile x-sendfile2".split()
)
_PREFIXES_NOT_FOR_CALLERS: Final = (
    b"access-control-",
    b"attribution-reporting-",
    b"proxy-",
    b"sec-",
    b"x-accel-",
    b"x-relay-",
)
_CSP: Final = b"content-security-policy"
# With `nosniff` a browser shows or saves these without running anything in them.
_INERT: Final = re.compile(
    rb"application/(?:[a-z0-9.-]+\+)?json|application/(?:javascript|json-seq|jsonl|ndjson|x-ndjson|jwt|gzip|zip"
    rb"|octet-stream|x-www-form-urlencoded|x-protobuf|protobuf|grpc|cbor|msgpack|x-msgpack|yaml)"
    rb"|text/(?:plain|event-stream|csv|markdown|css|javascript)"
    rb"|(?:audio|video|font|model)/[a-z0-9.+-]+|image/(?!svg)[a-z0-9.-]+"
)
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def request_fields(
    fields: Fields, credential_headers: frozenset[bytes], *, keep: frozenset[bytes] = frozenset()
) -> Fields:
    """The caller's fields that an upstream may see (RFC 9110 section 7.6.1).

    `credential_headers`: lower-case names of every field in which any service carries a key; `keep`
    excepts those of the caller's own key. No name with `_` passes: WSGI merges it with `-`.
    """
    named = _named(b",".join(values(fields, b"connection")))
    return tuple(
        field
        for field in fields
        if field[0] not in named
        and field[0] not in _NOT_FOR_UPSTREAMS
        and not field[0].startswith(_PREFIXES_NOT_FOR_UPSTREAMS)
        and (field[0] in keep or (field[0] not in credential_headers and b"_" not in field[0]))
    )


def response_fields(fields: Fields) -> Fields:
    """The upstream's fields that a caller may see; `safety_fields` says what stands in for some."""
    gone = _not_for_callers(b",".join(values(fields, b"connection")), _renders(fields))
    return tuple(
        [
            field
            for field in fields
            if field[0] not in gone and not field[0].startswith(_PREFIXES_NOT_FOR_CALLERS)
        ]
    )


def safety_fields(fields: Fields) -> Fields:
    """What is added to an answer so that a browser does not let it act on our origin."""
    nosniff = (b"x-content-type-options", b"nosniff")
    return (nosniff, (_CSP, b"sandbox")) if _renders(fields) else (nosniff,)


def with_defaults(fields: Fields, defaults: Fields) -> Fields:
    """The fields with those defaults (a version) that the caller did not send."""
    sent = {name for name, _ in fields}
    return fields + tuple(field for field in defaults if field[0] not in sent)


def without_trace(fields: Fields) -> Fields:
    """The fields without those of a trace that can't be continued (W3C Trace Context)."""
    return tuple([field for field in fields if field[0] not in (PARENT_FIELD, STATE_FIELD)])


def add_via(fields: Fields, pseudonym: bytes) -> Fields:
    """The fields with our own line of Via (RFC 9110 section 7.6.3) behind those of others."""
    return (*fields, (b"via", b"1.1 " + pseudonym))


def via_count(fields: Fields, pseudonym: bytes) -> int:
    """How often a message has come through the install of this pseudonym.

    Counted as a word anywhere in Via, so that no comment or broken list before it can hide it.
    """
    return sum(_TOKEN.findall(via).count(pseudonym) for via in values(fields, b"via"))


@lru_cache(maxsize=64)
def _not_for_callers(connection: bytes, renders: bool) -> frozenset[bytes]:
    gone = _NOT_FOR_CALLERS | _named(connection)
    return gone | {_CSP} if renders else gone


@lru_cache(maxsize=64)
def _named(connection: bytes) -> frozenset[bytes]:
    """The members of a Connection field (RFC 9110 section 7.6.1)."""
    return frozenset(name.strip(b" \t").lower() for name in connection.split(b","))


def _renders(fields: Fields) -> bool:
    """Whether a browser may make a document of it: everything that isn't known to be inert."""
    types = values(fields, b"content-type")
    return len(types) != 1 or not _is_inert(types[0])


@lru_cache(maxsize=256)
def _is_inert(content_type: bytes) -> bool:
    return bool(_INERT.fullmatch(content_type.partition(b";")[0].strip().lower()))
