"""What a call may take from the cache and leave in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.cache.policy import (
    CacheSettings,
    Forward,
    Plan,
    Verdict,
    announced_age,
    decide,
    forbids_storing,
    has_body,
    kept_fields,
    length,
    refusal,
)
from proxy.call import Directions
from proxy.messages import Response

NOW = 1_800_000_000.0
SETTINGS = CacheSettings(max_ttl=1000, max_entry_bytes=100)


def plan(cache: int | None, invalidate: bool = False, method: str = "GET") -> Plan:
    return decide(method, Directions("https://a/", None, cache, invalidate), NOW, SETTINGS)


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


def response(status: int = 200, *fields: tuple[bytes, bytes], **more: Any) -> Response:
    return Response(status, fields, _nothing(), **more)


def test_without_cache_nothing_is_looked_up_or_kept() -> None:
    """Contract 6: no `cache`."""
    assert plan(None) == Plan(False, None, Forward.BYPASS)
    assert not plan(None).keyed


def test_cache_in_the_future_looks_up_and_keeps_until_then() -> None:
    """Contract 6: `cache=T`, T in the future."""
    assert plan(int(NOW) + 10) == Plan(True, NOW + 10, Forward.URI_MISS)


def test_max_ttl_caps_the_time() -> None:
    """Contract 6: capped by `max_ttl`."""
    assert plan(int(NOW) + 5000).until == NOW + 1000


def test_cache_in_the_past_looks_up_and_keeps_nothing() -> None:
    """Contract 6: `cache=T`, T past."""
    assert plan(int(NOW) - 10) == Plan(True, None, Forward.URI_MISS)


def test_at_its_timestamp_a_time_is_over() -> None:
    """Contract 6: at its timestamp an entry is over."""
    assert plan(int(NOW)).until is None


def test_a_duration_is_told_to_be_a_point_in_time() -> None:
    """Contract 6: below 10^9 with a detail."""
    assert plan(3600).detail == "cache-is-a-point-in-time"
    assert plan(999_999_999).detail is not None
    assert plan(1_000_000_000).detail is None


def test_invalidate_with_cache_keeps_without_looking_up() -> None:
    """Contract 6: `cache=T&invalidate`."""
    assert plan(int(NOW) + 10, invalidate=True) == Plan(False, NOW + 10, Forward.REQUEST)


def test_invalidate_alone_neither_looks_up_nor_keeps() -> None:
    """Contract 6: `invalidate` alone."""
    assert plan(None, invalidate=True) == Plan(False, None, Forward.REQUEST)


def test_invalidate_with_a_past_time_neither_looks_up_nor_keeps() -> None:
    """Contract 6: both rules together."""
    assert not plan(int(NOW) - 10, invalidate=True).keyed


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_methods_that_are_kept(method: str) -> None:
    """Contract 6: GET, HEAD, POST."""
    assert plan(int(NOW) + 10, method=method).keyed


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "get"])
def test_other_methods_are_neither_looked_up_nor_kept(method: str) -> None:
    """Contract 6: GET, HEAD, POST."""
    assert plan(int(NOW) + 10, method=method) == Plan(False, None, Forward.METHOD)


@pytest.mark.parametrize("status", [200, 201, 202, 203, 204, 226, 299])
def test_complete_successes_are_kept(status: int) -> None:
    """Contract 6: complete 2xx except 206."""
    assert refusal("GET", response(status), False, SETTINGS) is None


@pytest.mark.parametrize("status", [206, 300, 301, 304, 404, 429, 500, 199])
def test_other_statuses_are_not_kept(status: int) -> None:
    """Contract 6: complete 2xx except 206."""
    assert refusal("GET", response(status), False, SETTINGS) == "status-not-kept"


def test_close_delimited_answers_are_not_kept() -> None:
    """Contract 6: never a response that was close-delimited."""
    closing = response(200, complete_at_close=True)
    assert refusal("GET", closing, False, SETTINGS) == "close-delimited"


def test_head_is_complete_without_a_body() -> None:
    """Contract 6: HEAD is complete without a body."""
    closing = response(200, (b"content-length", b"5000"), complete_at_close=True)
    assert refusal("HEAD", closing, False, SETTINGS) is None
    assert not has_body("HEAD", 200)
    assert not has_body("GET", 204)


@pytest.mark.parametrize("vary", [b"*", b"accept, *"])
def test_vary_star_is_not_kept(vary: bytes) -> None:
    """Contract 6: `Vary: *` is never stored."""
    assert refusal("GET", response(200, (b"vary", vary)), False, SETTINGS) == "vary-any"


def test_no_store_counts_only_where_the_service_honours_it() -> None:
    """Contract 6: the caller's `cache=` wins; a service can be set to honour `no-store`."""
    told = response(200, (b"cache-control", b"private, No-Store"))
    assert refusal("GET", told, False, SETTINGS) is None
    assert refusal("GET", told, True, SETTINGS) == "no-store"
    assert not forbids_storing(((b"cache-control", b'no-cache, x="no-store"'),))


def test_an_answer_announced_too_large_is_not_kept() -> None:
    """Contract 6: up to `max_entry_bytes`."""
    assert refusal("GET", response(200, (b"content-length", b"100")), False, SETTINGS) is None
    large = response(200, (b"content-length", b"101"))
    assert refusal("GET", large, False, SETTINGS) == "answer-too-large"


def test_the_entry_limit_is_the_smallest_bound() -> None:
    """A body that no quota has room for is not kept."""
    assert CacheSettings(max_entry_bytes=5, disk_bytes=9, tenant_bytes=7).entry_limit == 5
    assert CacheSettings(max_entry_bytes=50, disk_bytes=9, tenant_bytes=7).entry_limit == 7
    assert CacheSettings(max_entry_bytes=50, disk_bytes=9).entry_limit == 9


@pytest.mark.parametrize(
    ("text", "number"), [(b"12", 12), (b"", None), (b"-1", None), (b"1" * 30, None), (b"x", None)]
)
def test_announced_lengths_are_numbers_or_nothing(text: bytes, number: int | None) -> None:
    """RFC 9110 section 8.6."""
    assert length(((b"content-length", text),)) == number


def test_age_is_read_and_not_kept() -> None:
    """RFC 9111 section 5.1: `Age` is computed anew on every hit."""
    fields = ((b"age", b"7"), (b"set-cookie", b"a"), (b"etag", b"x"))
    assert announced_age(fields) == 7
    assert announced_age(()) == 0
    assert kept_fields(fields) == ((b"etag", b"x"),)


def test_a_verdict_is_a_cache_status_field() -> None:
    """RFC 9211 section 2."""
    assert Verdict(ttl=12).field() == (b"cache-status", b"keyrelay; hit; ttl=12")
    whole = Verdict(Forward.URI_MISS, 200, stored=True, collapsed=True, ttl=3, detail="store-error")
    text = b"keyrelay; fwd=uri-miss; fwd-status=200; stored; collapsed; ttl=3; detail=store-error"
    assert whole.field() == (b"cache-status", text)
    assert Verdict(Forward.BYPASS).field()[1] == b"keyrelay; fwd=bypass"


@pytest.mark.parametrize(
    ("verdict", "name"),
    [
        (Verdict(ttl=12), "hit"),
        (Verdict(Forward.URI_MISS, stored=True, collapsed=True), "collapsed"),
        (Verdict(Forward.STALE, stored=True), "stored"),
        (Verdict(Forward.VARY_MISS), "miss"),
        (Verdict(Forward.BYPASS), "bypass"),
    ],
)
def test_a_verdict_has_a_name_for_those_who_count(verdict: Verdict, name: str) -> None:
    """One word for each call."""
    assert verdict.name == name
