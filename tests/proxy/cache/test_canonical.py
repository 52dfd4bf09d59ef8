"""Bodies as the key sees them."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.cache.canonical import Octets, WithoutBoundary, WithoutSpace, is_json, split_boundary

Cuts = list[int]


def cut(octets: bytes, cuts: Cuts) -> list[bytes]:
    places = [0, *sorted(c % (len(octets) + 1) for c in cuts), len(octets)]
    return [octets[a:b] for a, b in itertools.pairwise(places) if a < b]


def folded(fold_of: Any, octets: bytes, cuts: Cuts = []) -> bytes:  # noqa: B006
    out = bytearray()
    fold = fold_of(out.extend)
    for chunk in cut(octets, cuts):
        fold.absorb(chunk)
    fold.finish()
    return bytes(out)


def multipart(boundary: bytes) -> Any:
    return lambda sink: WithoutBoundary(boundary, sink)


def a_form(boundary: bytes, parts: list[bytes]) -> bytes:
    lines = [b"--" + boundary + b"\r\nContent-Disposition: form-data\r\n\r\n" + p for p in parts]
    return b"\r\n".join([*lines, b"--" + boundary + b"--\r\n"])


def test_octets_stay_octets() -> None:
    """JSON and everything else goes into the key as it came."""
    assert folded(Octets, b"a b", [1]) == b"a b"


PARTS = st.lists(st.binary(max_size=40).filter(lambda b: b"--" not in b), max_size=4)
BOUNDARY = st.from_regex(rb"[a-z]{1,8}", fullmatch=True)
CUTS = st.lists(st.integers(0, 500), max_size=12)


@given(PARTS, BOUNDARY, BOUNDARY, CUTS, CUTS)
def test_multipart_boundaries_do_not_count(
    parts: list[bytes], one: bytes, other: bytes, cuts: Cuts, more: Cuts
) -> None:
    """Contract 6: boundaries are replaced before hashing, wherever the chunks end."""
    first = folded(multipart(one), a_form(one, parts), cuts)
    assert first == folded(multipart(other), a_form(other, parts), more)


@given(PARTS, PARTS, BOUNDARY)
def test_different_forms_stay_different(one: list[bytes], other: list[bytes], at: bytes) -> None:
    """The fold takes nothing but the boundary."""
    same = folded(multipart(at), a_form(at, one)) == folded(multipart(at), a_form(at, other))
    assert same == (one == other)


@settings(max_examples=200)
@given(
    st.text("ab\r\n-", max_size=24),
    st.text("ab\r\n-", max_size=24),
    st.sampled_from(["a", "b", "ab"]),
    CUTS,
)
def test_the_fold_loses_nothing(one: str, other: str, at: str, cuts: Cuts) -> None:
    """Two bodies with the same boundary fold alike only when they are equal."""
    first = folded(multipart(at.encode()), one.encode(), cuts)
    second = folded(multipart(at.encode()), other.encode())
    assert (first == second) == (one == other)


def test_content_can_not_pretend_to_be_a_delimiter() -> None:
    """The places where delimiters stood are part of the key."""
    real = folded(multipart(b"x"), b"--x\r\nA\r\n--x--")
    assert real != folded(multipart(b"y"), b"--x\r\nA\r\n--y--")


@pytest.mark.parametrize(
    ("content_type", "split"),
    [
        (b"multipart/form-data; boundary=abc", (b"multipart/form-data; boundary", b"abc")),
        (b'Multipart/Mixed;Boundary="a b"; x=1', (b"Multipart/Mixed; boundary; x=1", b"a b")),
        (b"multipart/form-data", None),
        (b"multipart/form-data; boundary=", None),
        (b"multipart/form-data; boundary=a; boundary=b", None),
        (b'multipart/form-data; x="; boundary=a"; boundary=b', None),
        (b"text/plain; boundary=abc", None),
    ],
)
def test_boundaries_are_found(content_type: bytes, split: tuple[bytes, bytes] | None) -> None:
    """RFC 2046 section 5.1.1; what is unclear is not folded."""
    assert split_boundary(content_type) == split


@pytest.mark.parametrize(
    ("content_type", "json_text"),
    [
        (b"application/json", True),
        (b"Application/JSON; charset=UTF-8", True),
        (b'application/vnd.api+json;charset="utf-8"', True),
        (b"application/json; charset=utf-16", False),
        (b"application/x-ndjson", False),
        (b"text/plain", False),
        (b"", False),
    ],
)
def test_json_is_known_by_its_type(content_type: bytes, json_text: bool) -> None:
    """RFC 8259; other charsets are left alone."""
    assert is_json(content_type) is json_text


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(VALUES, CUTS, CUTS, st.booleans())
def test_json_white_space_outside_strings_does_not_count(
    value: Any, cuts: Cuts, more: Cuts, ascii_only: bool
) -> None:
    """Contract 6: `json_whitespace: ignore`, wherever the chunks end."""
    dense = json.dumps(value, separators=(",", ":"), ensure_ascii=ascii_only).encode()
    loose = json.dumps(value, indent=3, ensure_ascii=ascii_only).encode()
    spread = b"\r\n\t" + loose + b" \n"
    assert folded(WithoutSpace, spread, cuts) == folded(WithoutSpace, dense, more) == dense


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a": " b"}', b'{"a": "b"}'),
        (b'{"a": "\\" b"}', b'{"a": "\\"b"}'),
        (b'["\\\\", " "]', b'["\\\\",""]'),
        (b"[1 2]", b"[12]"),
        (b"[1.0]", b"[1]"),
        (b'{"a":1,"b":2}', b'{"b":2,"a":1}'),
        (b"12 34", b"1234"),
    ],
)
def test_json_keeps_everything_else(one: bytes, other: bytes) -> None:
    """Contract 6: nothing else is folded: member order and number text can be meaning."""
    assert folded(WithoutSpace, one) != folded(WithoutSpace, other)


@given(st.text('ab" \\,1[]', max_size=20), CUTS)
def test_json_folds_alike_however_it_is_cut(text: str, cuts: Cuts) -> None:
    """Also where it is no JSON at all."""
    assert folded(WithoutSpace, text.encode(), cuts) == folded(WithoutSpace, text.encode())
