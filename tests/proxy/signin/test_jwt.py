"""Sign-in tokens as text: read strictly (RFC 7515, RFC 7519, RFC 8725)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.signin.jwt import (
    LONGEST,
    Unreadable,
    decode,
    encode,
    looks_like_jwt,
    parse,
    read_object,
)
from tests.support.issuer import Signer

CLAIMS = {"iss": "https://login.example.com", "sub": "ann"}


def text(header: object, claims: object = CLAIMS, signature: bytes = b"signed") -> bytes:
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return b".".join(map(encode, parts))


def test_a_token_is_read_into_its_parts() -> None:
    """What is signed is the text itself up to the second dot."""
    whole = Signer().sign(CLAIMS).encode()
    found = parse(whole)
    assert (found.alg, found.kid, found.claims) == ("ES256", "one", CLAIMS)
    assert found.signed + b"." + encode(found.signature) == whole


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt", "AT+JWT"])
def test_the_type_of_an_access_or_identity_token_is_taken(kind: str) -> None:
    """In any case of letters, with or without application/ (RFC 7515 section 4.1.9, RFC 9068)."""
    assert parse(text({"alg": "RS256", "typ": kind})).kid is None


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "RS256", "crit": ["exp"]},
        {"alg": "RS256", "crit": ["b64"], "b64": False},
        {"alg": "RS256", "zip": "DEF"},
        {"alg": "RSA-OAEP", "enc": "A256GCM"},
        {"alg": "RS256", "cty": "JWT"},
        {"alg": "RS256", "jwk": {"kty": "RSA"}},
        {"alg": "RS256", "jku": "https://evil.example/keys"},
        {"alg": "RS256", "x5u": "https://evil.example/chain"},
        {"alg": "RS256", "x5c": ["MII"]},
        {"alg": "RS256", "typ": "dpop+jwt"},
        {"alg": "RS256", "typ": "logout+jwt"},
        {"alg": "RS256", "typ": 1},
        {"alg": "RS256", "kid": 1},
        {"alg": "RS256", "kid": "k" * 257},
        {"alg": 1},
        {"kid": "one"},
        {},
        [],
        "alg",
        None,
    ],
)
def test_a_header_that_asks_for_more_is_refused(header: object) -> None:
    """RFC 8725 section 3.1 and 3.10: no key and no place of keys is taken from a token."""
    with pytest.raises(Unreadable):
        parse(text(header))


@pytest.mark.parametrize(
    "octets",
    [
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"b":1}}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b"[" * 9000,
        b'{"a":' * 3000,
        b'{"a":' + b"9" * 5000 + b"}",
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":"\xff"}',
        b"{}{}",
        b"1",
        b"",
    ],
)
def test_an_object_has_each_member_once_and_is_json(octets: bytes) -> None:
    """Two parsers could read anything else differently (RFC 7519 section 4)."""
    with pytest.raises(Unreadable):
        read_object(octets)


@pytest.mark.parametrize("part", [b"YQ==", b"YR", b"Y", b"Y Q", b"Y+", b"Y/", b"", "Ü", b"YQ\n"])
def test_base64url_has_one_spelling(part: bytes | str) -> None:
    """RFC 7515 section 2: no padding, no other alphabet, no bits left over."""
    with pytest.raises(Unreadable):
        decode(part)


@pytest.mark.parametrize(
    "whole",
    [
        b"",
        b"kr_x.y.z",
        b"e.e",
        b"e.e.e.e",
        b"eyJhbGciOiJub25lIn0.e30.",
        b"e..e",
        b"e" + b"." * 2,
        b"e" * LONGEST + b"..",
        text({"alg": "RS256"}) + b"=",
        text({"alg": "RS256"}).replace(b".", b" .", 1),
        text({"alg": "RS256"}, []),
    ],
)
def test_what_is_no_token_is_none(whole: bytes) -> None:
    """Three parts, none of them empty: an unsigned token is not even read."""
    with pytest.raises(Unreadable):
        parse(whole)


def test_a_huge_token_is_not_looked_at() -> None:
    """The bound stands before any decoding."""
    assert looks_like_jwt(b"e" * (LONGEST - 2) + b"..")
    assert not looks_like_jwt(b"e" * (LONGEST - 1) + b"..")


@given(st.binary(max_size=300))
def test_whatever_comes_is_read_or_refused(octets: bytes) -> None:
    """No other exception, and what is read is written the same."""
    for whole in (octets, b".".join(encode(part) for part in octets.split(b"."))):
        try:
            found = parse(whole)
        except Unreadable:
            continue
        assert found.signed + b"." + encode(found.signature) == whole


@given(st.binary(min_size=1, max_size=100))
def test_octets_survive_base64url(octets: bytes) -> None:
    """And only their own spelling is read."""
    assert decode(encode(octets)) == decode(encode(octets).decode()) == octets
