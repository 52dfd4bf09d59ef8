"""Which page may read our answers (the Fetch standard's CORS protocol, section 3.2). Pure."""

from __future__ import annotations

from proxy.messages import Field, Fields, value

EXPOSED = (
    b"Cache-Status, Age, X-Request-ID, X-Relay-Request-ID, Retry-After, Server-Timing, Proxy-Status"
    b", RateLimit, RateLimit-Policy, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset"
)
_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
_MAX_AGE = b"600"
_VARY: Field = (b"vary", b"Origin")


def is_preflight(method: str, fields: Fields) -> bool:
    """Whether a browser asks for leave; every other OPTIONS is a call like any other."""
    return (
        method == "OPTIONS"
        and value(fields, b"origin") is not None
        and value(fields, b"access-control-request-method") is not None
    )


def preflight_fields(fields: Fields, allowed: frozenset[str]) -> Fields:
    """The fields of the answer to a preflight; for an origin that isn't listed only Vary."""
    origin = _listed_origin(fields, allowed)
    vary = (b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
    if origin is None:
        return (vary,)
    asked = value(fields, b"access-control-request-headers")
    method = value(fields, b"access-control-request-method") or b""
    methods = _METHODS if method in _METHODS.split(b", ") else _METHODS + b", " + method
    echoed: Fields = ((b"access-control-allow-headers", asked),) if asked else ()
    return (
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-methods", methods),
        *echoed,
        (b"access-control-max-age", _MAX_AGE),
        vary,
    )


def response_fields(fields: Fields, allowed: frozenset[str]) -> Fields:
    """What every answer and every error of ours carries for the page that asked."""
    if not allowed:
        return ()
    origin = _listed_origin(fields, allowed)
    if origin is None:
        return (_VARY,)
    return (
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", EXPOSED),
        _VARY,
    )


def _listed_origin(fields: Fields, allowed: frozenset[str]) -> bytes | None:
    origin = value(fields, b"origin")
    if origin is not None and origin.decode("latin-1") in allowed:
        return origin
    return None
