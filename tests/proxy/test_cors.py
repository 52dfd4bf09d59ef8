"""Which page may read our answers (contract section 2, CORS)."""

from __future__ import annotations

from proxy.cors import is_preflight, preflight_fields, response_fields
from proxy.messages import Fields, value

PAGE = "https://app.example"
LISTED = frozenset({PAGE})
ASKED: Fields = (
    (b"origin", PAGE.encode()),
    (b"access-control-request-method", b"POST"),
    (b"access-control-request-headers", b"authorization,content-type"),
)


def test_only_an_options_with_both_fields_is_a_preflight() -> None:
    """Every other OPTIONS is forwarded."""
    assert is_preflight("OPTIONS", ASKED)
    assert not is_preflight("GET", ASKED)
    assert not is_preflight("OPTIONS", ASKED[:1])
    assert not is_preflight("OPTIONS", ASKED[1:])


def test_a_listed_page_gets_leave_for_what_it_asked() -> None:
    """Requested header names are echoed; the origin is named, never `*`."""
    answer = preflight_fields(ASKED, LISTED)
    assert value(answer, b"access-control-allow-origin") == PAGE.encode()
    assert value(answer, b"access-control-allow-headers") == b"authorization,content-type"
    assert b"POST" in (value(answer, b"access-control-allow-methods") or b"")
    assert value(answer, b"access-control-allow-credentials") is None


def test_an_unusual_method_is_echoed_too() -> None:
    """Every method that the parser knows is forwarded."""
    fields = ((b"origin", PAGE.encode()), (b"access-control-request-method", b"PROPFIND"))
    answer = preflight_fields(fields, LISTED)
    assert (value(answer, b"access-control-allow-methods") or b"").endswith(b", PROPFIND")
    assert value(answer, b"access-control-allow-headers") is None


def test_an_unlisted_page_gets_only_vary() -> None:
    """Origins are listed; none by default."""
    for fields in (preflight_fields(ASKED, frozenset()), response_fields(ASKED, LISTED - LISTED)):
        assert value(fields, b"access-control-allow-origin") is None
    other = ((b"origin", b"https://other.example"),)
    assert response_fields(other, LISTED) == ((b"vary", b"Origin"),)


def test_a_listed_page_may_read_our_fields() -> None:
    """The exposed fields of the contract."""
    exposed = value(response_fields(ASKED, LISTED), b"access-control-expose-headers") or b""
    names = ["Cache-Status", "Age", "X-Request-ID", "Retry-After", "Server-Timing", "Proxy-Status"]
    names += ["RateLimit", "RateLimit-Policy", "X-RateLimit-Remaining"]
    assert set(names) <= set(exposed.decode().split(", "))
