"""Platform tokens as text."""

from __future__ import annotations

import hashlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault import describe_token, tokens
from vault.tokens import Malformed, ParsedToken

ALPHABET = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def test_a_minted_token_parses_to_its_id_and_digest() -> None:
    """The stored digest is the plain SHA-256 of the whole text."""
    minted = tokens.mint()
    digest = hashlib.sha256(minted.text.encode()).digest()
    assert tokens.parse(minted.text.encode()) == ParsedToken(minted.id, digest)
    assert (minted.digest, len(minted.text)) == (digest, 54)


def test_a_secret_has_at_least_190_bits() -> None:
    """32 characters of 62, and the whole range is used."""
    assert 32 * math.log2(62) > 190
    seen = {char for _ in range(200) for char in tokens.mint().text[16:48].encode()}
    assert seen == set(ALPHABET)


def test_tokens_differ() -> None:
    """Neither an id nor a secret comes twice."""
    minted = [tokens.mint() for _ in range(500)]
    assert len({one.id for one in minted}) == len({one.text[16:] for one in minted}) == 500


def test_a_token_hides_in_reprs() -> None:
    """Neither text nor digest is printed."""
    minted = tokens.mint()
    assert repr(minted) == f"Minted(id='{minted.id}')"
    assert repr(tokens.parse(minted.text.encode())) == f"ParsedToken(id='{minted.id}')"


@given(st.integers(0, 53), st.binary(min_size=1, max_size=1))
@settings(max_examples=200)
def test_one_changed_octet_is_a_typo(place: int, octet: bytes) -> None:
    """CRC32 finds every single error; one in the prefix makes it no token."""
    text = tokens.mint().text.encode()
    changed = text[:place] + octet + text[place + 1 :]
    if changed != text:
        expected = Malformed.NOT_A_TOKEN if place < 3 else Malformed.TYPO
        assert tokens.parse(changed) is expected


@given(st.binary(max_size=80))
@settings(max_examples=200)
def test_any_octets_can_be_parsed(text: bytes) -> None:
    """Nothing raises; only what begins like a token is taken for one."""
    expected = Malformed.TYPO if text.startswith(b"kr_") else Malformed.NOT_A_TOKEN
    assert tokens.parse(text) is expected
    assert tokens.looks_like_token(text) is text.startswith(b"kr_")


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: t + b"0", lambda t: t + b"\n"])
def test_a_cut_or_longer_token_is_a_typo(change) -> None:
    """The shape is matched as a whole."""
    assert tokens.parse(change(tokens.mint().text.encode())) is Malformed.TYPO


def test_the_checksum_is_stable() -> None:
    """CRC32 of the rest in base 62, six digits: tokens in use must stay good."""
    text = b"kr_000000000000_" + b"0" * 32
    assert isinstance(tokens.parse(text + tokens._checksum(text).encode()), ParsedToken)
    assert tokens._checksum(b"123456789") == "3jZRME"  # CRC32 cbf43926
    assert tokens._checksum(b"") == "000000"


def test_a_log_can_tell_a_typo_from_a_forgery() -> None:
    """And never shows the secret."""
    text = tokens.mint().text.encode()
    assert describe_token(b"sk-something") == "not a token"
    assert describe_token(text[:-1]) == "a token with a typo or a piece missing"
    assert "unknown, revoked, expired or forged" in describe_token(text)
    assert text[16:48].decode() not in describe_token(text)


def test_digests_are_compared_as_octets() -> None:
    """In constant time."""
    assert tokens.matches(b"\xff" * 32, b"\xff" * 32)
    assert not tokens.matches(b"\xff" * 32, b"\xfe" * 32)


def test_other_texts_have_the_same_checksum_behind_them() -> None:
    """Six characters, the same each time; a changed text or checksum does not check."""
    text = tokens.checked(b"kr_short_body")
    assert text == b"kr_short_body2sxBbz"
    assert tokens.checks(text)
    assert not tokens.checks(b"kr_short_bodz" + text[-6:])
    assert not tokens.checks(text[:-1] + b"y")
