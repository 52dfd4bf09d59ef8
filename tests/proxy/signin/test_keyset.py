"""Public keys and signatures of every algorithm (RFC 7517, RFC 7518, RFC 8037)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.signin.jwt import Unreadable, encode, parse
from proxy.signin.keyset import ALGORITHMS as KNOWN
from proxy.signin.keyset import KeySet, parse_keys, verified
from tests.support.issuer import ALGORITHMS, CURVES, Signer, number


def keys(*entries: Any) -> KeySet:
    return parse_keys(json.dumps({"keys": entries}).encode())


def only(entry: Any) -> bool:
    """Whether an entry is a key that can be used."""
    return len(keys(entry)) == 1


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_signature_is_checked_with_each_algorithm(alg: str) -> None:
    """A true one holds; no octet of what was signed or of the signature may differ."""
    signer = Signer(alg)
    token = parse(signer.sign({"sub": "ann"}).encode())
    key = keys(signer.jwk()).find(alg, "one")
    assert key is not None
    assert verified(token, key)
    assert not verified(token._replace(signed=token.signed + b"x"), key)
    flipped = bytes([token.signature[0] ^ 1]) + token.signature[1:]
    for signature in (flipped, token.signature[:-1], token.signature + b"\0", b"x"):
        assert not verified(token._replace(signature=signature), key)
    other = keys(Signer(alg, which="b").jwk()).find(alg, "one")
    assert other is not None
    assert not verified(token, other)


def test_there_is_no_algorithm_but_these() -> None:
    """None with a shared secret, and not `none`."""
    assert set(KNOWN) == set(ALGORITHMS)


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_key_is_for_its_own_algorithms_alone(alg: str) -> None:
    """By what it says, and by its kind where it says nothing."""
    signer = Signer(alg)
    entry = signer.jwk()
    said, silent = keys(entry), keys({k: v for k, v in entry.items() if k != "alg"})
    for other in ALGORITHMS:
        assert (said.find(other, "one") is not None) is (other == alg)
        alike = KNOWN[other].kind == KNOWN[alg].kind
        assert (silent.find(other, "one") is not None) is alike


def test_zeros_are_no_signature() -> None:
    """Both numbers of ECDSA are above zero."""
    for alg, (_, _, length) in CURVES.items():
        signer = Signer(alg)
        token = parse(signer.sign({}).encode())._replace(signature=bytes(2 * length))
        key = keys(signer.jwk()).find(alg, "one")
        assert key is not None
        assert not verified(token, key)


def test_a_token_names_its_key_or_there_is_a_single_one() -> None:
    """Two that fit are none: nobody guesses which was meant."""
    one, two = Signer(kid="one"), Signer(kid="two", which="b")
    both = keys(one.jwk(), two.jwk(), Signer("EdDSA").jwk())
    assert both.find("ES256", "two") is not None
    assert both.find("ES256", "three") is None
    assert both.find("ES256", None) is None
    assert both.find("EdDSA", None) is not None
    assert keys(one.jwk(), two.jwk(kid="one")).find("ES256", "one") is None
    assert keys(Signer(kid=None).jwk()).find("ES256", None) is not None


@pytest.mark.parametrize(
    "more",
    [
        {"use": "enc"},
        {"key_ops": ["sign"]},
        {"key_ops": "verify"},
        {"kid": 5},
        {"kid": "k" * 257},
        {"alg": 5},
        {"d": "AQ"},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "oct"},
        {"kty": "XYZ"},
        {"kty": ["EC"]},
        {"kty": None},
        {"crv": "P-255"},
        {"crv": "secp256k1"},
        {"crv": ["P-256"]},
        {"x": 5},
        {"x": ""},
        {"x": "AQ"},
        {"y": encode(bytes(32)).decode()},
        {"kty": "OKP"},
        {"kty": "RSA"},
    ],
)
def test_a_key_that_can_not_be_used_is_passed_over(more: dict[str, Any]) -> None:
    """For something else, private, of a kind that is not known, or on no curve; others stay."""
    assert not only(Signer().jwk(**more))
    assert len(keys(Signer().jwk(**more), Signer(kid="two").jwk())) == 1


@pytest.mark.parametrize(
    ("bits", "exponent", "good"),
    [
        (1024, 65537, False),
        (2047, 3, False),
        (2048, 3, True),
        (8192, 65537, True),
        (8193, 3, False),
        (2048, 1, False),
        (2048, 4, False),
        (2048, 2**33 + 1, False),
    ],
)
def test_a_key_of_rsa_is_neither_weak_nor_a_burden(bits: int, exponent: int, good: bool) -> None:
    """RFC 7518 section 3.3: 2048 bits or more; a huge one would cost every call its time."""
    modulus = (1 << (bits - 1)) + 1
    entry = {"kty": "RSA", "n": number(modulus), "e": number(exponent)}
    assert only(entry) is good
    assert not only({"kty": "RSA", "n": number(modulus)})


def test_a_key_of_another_edwards_curve_is_passed_over() -> None:
    """Ed25519 alone."""
    entry = Signer("EdDSA").jwk()
    assert only(entry)
    assert not only({**entry, "crv": "Ed448"})
    assert not only({**entry, "x": entry["x"][:-4]})


@pytest.mark.parametrize("octets", [b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[],"keys":[]}'])
def test_what_is_no_set_is_refused(octets: bytes) -> None:
    """As a whole."""
    with pytest.raises(Unreadable):
        parse_keys(octets)


def test_entries_that_are_no_keys_are_passed_over() -> None:
    """RFC 7517 section 5."""
    assert len(keys(1, None, "x", [], Signer().jwk())) == 1


def test_sets_tell_which_keys_are_gone() -> None:
    """Equal keys have equal marks, whatever stands beside them."""
    one = keys(Signer().jwk(x5t="abc"))
    assert one.marks == keys(Signer().jwk()).marks
    assert not one.marks <= keys(Signer(which="b").jwk()).marks
    assert one.marks <= keys(Signer(kid="two", which="b").jwk(), Signer().jwk()).marks
