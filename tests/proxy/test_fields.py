from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.fields import (
    add_via,
    request_fields,
    response_fields,
    safety_fields,
    via_count,
    with_defaults,
    without_trace,
)
from proxy.messages import Fields

CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"xi-api-key", b"x-cmc_pro_api_key"})
NAMES = st.text("abcdefgx-_", min_size=1, max_size=12).map(str.encode)
FIELDS = st.lists(st.tuples(NAMES, st.just(b"v")), max_size=8).map(tuple)


def sent(*names: bytes) -> Fields:
    return tuple((name, b"v") for name in names)


def left(*names: bytes) -> list[bytes]:
    return [name for name, _ in request_fields(sent(*names), CREDENTIALS)]


def shown(*names: bytes) -> list[bytes]:
    fields = (*sent(*names), (b"content-type", b"application/json"))
    return [name for name, _ in response_fields(fields) if name != b"content-type"]


@pytest.mark.parametrize(
    "name",
    b"connection keep-alive proxy-connection proxy-authorization proxy-features te trailer upgrade"
    b" transfer-encoding content-length http2-settings expect host cookie cookie2 origin referer"
    b" sec-fetch-mode sec-ch-ua sec-websocket-key forwarded x-forwarded-for x-forwarded-host"
    b" x-forwarded x-real-ip x-client-ip true-client-ip cf-connecting-ip cf-ray x-original-url"
    b" proxy x-rewrite-url x-http-method-override x-http-method x-method-override x-relay-token"
    b" x-relay-request-id x_goog_api_key x_forwarded_for content_type authorization x-api-key"
    b" xi-api-key x-cmc_pro_api_key".split(),
)
def test_request_field_stays_here(name: bytes) -> None:
    """Contract section 5; RFC 9110 section 7.6.1."""
    assert left(name, b"accept") == [b"accept"]


@pytest.mark.parametrize(
    "name",
    b"accept accept-encoding content-type content-encoding user-agent anthropic-version via range"
    b" anthropic-beta x-goog-fieldmask x-stainless-lang idempotency-key if-none-match traceparent"
    b" x-request-id cache-control openai-organization section cf x-origin".split(),
)
def test_request_field_passes(name: bytes) -> None:
    """Everything end-to-end goes on as it came."""
    assert left(name) == [name]


def test_order_and_repetition_stay() -> None:
    """Equal names may come several times (RFC 9110 section 5.3)."""
    fields = ((b"b", b"1"), (b"a", b"2"), (b"b", b"3"))
    assert request_fields(fields, CREDENTIALS) == fields


def test_what_connection_names_is_dropped() -> None:
    """RFC 9110 section 7.6.1: options in any case, in any number of lines."""
    fields = (
        (b"connection", b"close, X-One ,,"),
        (b"connection", b"\tx-two"),
        *sent(b"x-one", b"x-two", b"x-three"),
    )
    assert request_fields(fields, CREDENTIALS) == sent(b"x-three")


def test_own_credential_is_kept() -> None:
    """Contract section 3: the caller's own key passes in its service's slot, and only there."""
    fields = sent(b"authorization", b"x-api-key", b"x-cmc_pro_api_key", b"x_other", b"cookie")
    keep = frozenset({b"x-api-key", b"x-cmc_pro_api_key", b"cookie"})
    assert request_fields(fields, CREDENTIALS, keep=keep) == sent(
        b"x-api-key", b"x-cmc_pro_api_key"
    )


def test_own_credential_that_connection_names_is_dropped() -> None:
    """`keep` lifts one rule, not that of hop-by-hop fields."""
    fields = ((b"connection", b"x-api-key"), *sent(b"x-api-key"))
    assert request_fields(fields, CREDENTIALS, keep=frozenset({b"x-api-key"})) == ()


@given(FIELDS, st.lists(NAMES, max_size=3))
def test_request_fields_are_a_clean_part_of_what_came(fields: Fields, named: list[bytes]) -> None:
    """Nothing is added or reordered, nothing named by Connection or a credential is left."""
    came = (*fields, (b"connection", b", ".join(named)))
    passed = request_fields(came, CREDENTIALS)
    rest = iter(came)
    assert all(field in rest for field in passed)
    assert not {name for name, _ in passed} & (CREDENTIALS | set(named) | {b"connection"})
    assert not any(b"_" in name for name, _ in passed)
    assert request_fields(passed, CREDENTIALS) == passed


@pytest.mark.parametrize(
    "name",
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade set-cookie"
    b" set-cookie2 strict-transport-security alt-svc access-control-allow-origin"
    b" access-control-expose-headers www-authenticate proxy-authenticate proxy-status"
    b" x-accel-redirect x-accel-buffering x-sendfile clear-site-data public-key-pins"
    b" public-key-pins-report-only report-to reporting-endpoints nel refresh x-relay-request-id"
    b" service-worker-allowed no-vary-search content-security-policy-report-only accept-ch"
    b" x-content-type-options sec-session-registration critical-ch expect-ct origin-agent-cluster"
    b" set-login use-as-dictionary x-lighttpd-send-file x-litespeed-location x-reproxy-url"
    b" x-sendfile2 attribution-reporting-register-source".split(),
)
def test_response_field_stays_here(name: bytes) -> None:
    """What acts on our origin, on a server before us, or on one connection."""
    assert shown(name, b"etag") == [b"etag"]


@pytest.mark.parametrize(
    "name",
    b"content-length content-encoding etag vary cache-control age date server location link"
    b" retry-after x-request-id openai-processing-ms x-ratelimit-remaining-requests cache-status"
    b" server-timing via content-disposition sourcemap x_y content-security-policy".split(),
)
def test_response_field_passes(name: bytes) -> None:
    """Everything else goes back as it came."""
    assert shown(name) == [name]


def test_what_connection_names_is_dropped_from_responses() -> None:
    """RFC 9110 section 7.6.1, the other way."""
    fields = (
        (b"connection", b"X-Hop"),
        (b"content-type", b"text/plain"),
        *sent(b"x-hop", b"x-end"),
    )
    assert response_fields(fields) == ((b"content-type", b"text/plain"), (b"x-end", b"v"))
    twice = ((b"connection", b"x-hop"), (b"connection", b"x-end"), *fields[1:])
    assert response_fields(twice) == ((b"content-type", b"text/plain"),)


INERT = [
    b"application/json",
    b"Application/JSON; charset=utf-8",
    b"application/problem+json",
    b"text/event-stream",
    b"text/plain;charset=utf-8",
    b"application/octet-stream",
    b"image/png",
    b"audio/mpeg",
    b"video/mp4",
    b"application/x-ndjson",
    *b"application/ndjson application/jsonl application/json-seq application/javascript".split(),
    *b"application/jwt application/gzip application/zip application/x-www-form-urlencoded".split(),
    *b"application/x-protobuf application/protobuf application/grpc application/cbor".split(),
    *b"application/msgpack application/x-msgpack application/yaml text/csv text/markdown".split(),
    *b"text/css text/javascript font/woff2 model/gltf-binary".split(),
]
RENDERED = [
    b"text/html",
    b"TEXT/HTML; charset=utf-8",
    b"application/xhtml+xml",
    b"application/xml",
    b"text/xml",
    b"application/atom+xml",
    b"image/svg+xml",
    b"image/SVG+xml",
    b"application/pdf",
    b"multipart/x-mixed-replace",
    b"text/html, application/json",
    b"application/json, text/html",
    b"",
    b"html",
    b"text/unheard-of",
]


@pytest.mark.parametrize("content_type", INERT)
def test_nothing_runs_in_an_inert_type(content_type: bytes) -> None:
    """`nosniff` alone makes a browser keep to it; the upstream's policy may stay."""
    fields = ((b"content-type", content_type), (b"content-security-policy", b"default-src 'none'"))
    assert response_fields(fields) == fields
    assert safety_fields(fields) == ((b"x-content-type-options", b"nosniff"),)


@pytest.mark.parametrize(
    "types",
    [*([one] for one in RENDERED), [], [b"text/html", b"application/json"], INERT[:1] * 2],
)
def test_what_a_browser_would_render_is_sandboxed(types: list[bytes]) -> None:
    """Contract section 5: ours replaces the upstream's policy; no type, or two, may be anything."""
    told = tuple((b"content-type", one) for one in types)
    fields = (*told, (b"content-security-policy", b"sandbox allow-scripts allow-same-origin"))
    assert response_fields(fields) == told
    assert safety_fields(told) == (
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", b"sandbox"),
    )


@given(FIELDS)
def test_response_fields_are_a_clean_part_of_what_came(fields: Fields) -> None:
    """Nothing is added or reordered; cleaning twice changes nothing."""
    passed = response_fields(fields)
    rest = iter(fields)
    assert all(field in rest for field in passed)
    assert response_fields(passed) == passed


def test_a_default_gives_way_to_the_callers_own() -> None:
    """A version header is a default (contract section 5)."""
    defaults = ((b"anthropic-version", b"2023-06-01"), (b"x-second", b"2"))
    own = ((b"anthropic-version", b"2024-01-01"),)
    assert with_defaults(own, defaults) == (*own, (b"x-second", b"2"))
    assert with_defaults((), defaults) == defaults
    assert with_defaults(own, ()) == own


def test_a_trace_goes_as_a_whole() -> None:
    """Both fields of W3C Trace Context, however often they came."""
    fields = sent(b"accept", b"tracestate", b"traceparent", b"tracestate", b"baggage")
    assert without_trace(fields) == sent(b"accept", b"baggage")


def test_via_grows_at_its_end() -> None:
    """RFC 9110 section 7.6.3: each gateway appends itself."""
    fields = add_via(((b"via", b"1.0 fred"), (b"accept", b"*/*")), b"kr-1")
    assert fields[-1] == (b"via", b"1.1 kr-1")
    assert fields[0] == (b"via", b"1.0 fred")


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        ([], 0),
        ([b"1.1 other"], 0),
        ([b"1.1 kr-1"], 1),
        ([b"1.1 kr-12, 1.1 akr-1"], 0),
        ([b"1.1 kr-1, 1.1 other (a comment), 1.1 kr-1"], 2),
        ([b"1.1 kr-1", b"HTTP/2 kr-1:8080", b"1.1 (, 1.1 kr-1"], 3),
    ],
)
def test_via_counts_our_own_name(lines: list[bytes], count: int) -> None:
    """As a whole word, in any number of lines; no comment of the caller's can hide it."""
    assert via_count(tuple((b"via", line) for line in lines), b"kr-1") == count


@given(st.binary(max_size=20), st.integers(0, 4))
def test_each_round_counts_once(before: bytes, rounds: int) -> None:
    """Whatever a caller wrote into Via first."""
    fields: Fields = ((b"via", before),)
    for _ in range(rounds):
        fields = add_via(fields, b"kr-7f3a9c51d2e84b06")
    assert via_count(fields, b"kr-7f3a9c51d2e84b06") == rounds
