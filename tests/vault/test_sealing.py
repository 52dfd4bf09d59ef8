"""Sealing and hashing under a data key."""

from __future__ import annotations

import hmac

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from vault import Unopenable
from vault.sealing import DataKey, KeyedHasher, KeyedSealer, encode, key_id_of, unwrap

PARTS = st.lists(st.one_of(st.text(max_size=8), st.integers()), max_size=5)


def sealer(key: DataKey, *others: DataKey) -> KeyedSealer:
    return KeyedSealer(key, {one.id: one for one in (key, *others)})


@given(st.binary(max_size=200), st.binary(max_size=50))
@settings(max_examples=100)
def test_what_was_sealed_opens(plaintext: bytes, aad: bytes) -> None:
    """Under the same key and associated data; the blob names format and key."""
    key = DataKey.random("keys")
    sealed = sealer(key).seal(plaintext, aad)
    assert sealer(key).open(sealed, aad) == plaintext
    assert sealed[0] == 1
    assert key_id_of(sealed) == key.id


def test_every_octet_of_a_blob_counts() -> None:
    """One flipped bit anywhere, or one octet fewer or more, and it does not open."""
    key = DataKey.random("keys")
    sealed = sealer(key).seal(b"value", b"row")
    flipped = [
        sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]
        for place in range(len(sealed))
    ]
    for wrong in [*flipped, *(sealed[:end] for end in range(len(sealed))), sealed + b"x"]:
        with pytest.raises(Unopenable):
            sealer(key).open(wrong, b"row")


def test_a_blob_opens_only_where_it_belongs() -> None:
    """Other associated data, another key, another purpose: all Unopenable."""
    key, other = DataKey.random("keys"), DataKey.random("keys")
    foreign = DataKey.random("cache-bodies")
    sealed = sealer(key).seal(b"value", b"row")
    with pytest.raises(Unopenable):
        sealer(key).open(sealed, b"another row")
    with pytest.raises(Unopenable, match="is not here"):
        sealer(other).open(sealed, b"row")
    with pytest.raises(Unopenable, match="is not here"):
        sealer(foreign, key).open(sealed, b"row")


def test_an_older_key_of_the_purpose_still_opens() -> None:
    """While it is known."""
    old, new = DataKey.random("keys"), DataKey.random("keys")
    assert sealer(new, old).open(sealer(old).seal(b"value", b"row"), b"row") == b"value"


def test_nothing_is_sealed_alike_twice() -> None:
    """The nonce is random."""
    key = DataKey.random("keys")
    assert len({sealer(key).seal(b"value", b"row") for _ in range(100)}) == 100


@given(PARTS, PARTS)
@settings(max_examples=200)
def test_lists_of_parts_encode_alike_only_if_equal(one: list, other: list) -> None:
    """Length-prefixed, so that no part can reach into its neighbour."""
    same = [str(part) for part in one] == [str(part) for part in other]
    assert (encode(*one) == encode(*other)) is same


def test_a_data_key_unwraps_only_as_what_it_is() -> None:
    """Under its master key, its id and its purpose."""
    master = AESGCM(bytes(32))
    key = DataKey.random("keys")
    wrapped = key.wrapped_by(master)
    again = unwrap(master, key.id, "keys", wrapped)
    assert sealer(again).open(sealer(key).seal(b"value", b""), b"") == b"value"
    wrong = [
        (AESGCM(bytes([1] * 32)), key.id, "keys", wrapped),
        (master, bytes(8), "keys", wrapped),
        (master, key.id, "cache-keys", wrapped),
        (master, key.id, "keys", wrapped[:20]),
    ]
    for case in wrong:
        with pytest.raises(Unopenable, match=rf"data key {case[1].hex()} \({case[2]}\)"):
            unwrap(*case)


def test_a_mark_of_the_wrapping_can_not_be_taken_off() -> None:
    """It is bound: what was wrapped with one never unwraps without, nor the other way round."""
    master = AESGCM(bytes(32))
    plain = DataKey.random("keys")
    marked = plain.marked(b"sealed")
    assert (plain.mark, marked.mark) == (b"", b"sealed")
    assert unwrap(master, plain.id, "keys", plain.wrapped_by(master)).mark == b""
    for marks in ((b"sealed",), (b"", b"sealed"), (b"sealed", b"")):
        again = unwrap(master, plain.id, "keys", marked.wrapped_by(master), marks)
        assert again.mark == b"sealed"
        assert sealer(again).open(sealer(plain).seal(b"value", b""), b"") == b"value"
    for marks in ((b"",), (b"other", b"")):
        with pytest.raises(Unopenable, match=f"data key {plain.id.hex()}"):
            unwrap(master, plain.id, "keys", marked.wrapped_by(master), marks)
    with pytest.raises(Unopenable):
        unwrap(master, plain.id, "keys", plain.wrapped_by(master), (b"sealed",))


def test_a_data_key_does_not_show_itself() -> None:
    """Its repr has id and purpose."""
    key = DataKey(b"12345678", "keys", bytes(32))
    assert repr(key) == "DataKey(3132333435363738, 'keys')"


def test_hashing_is_hmac_sha_256() -> None:
    """At once or piece by piece."""
    hasher = KeyedHasher(DataKey(b"12345678", "cache-keys", b"k" * 32))
    expected = hmac.digest(b"k" * 32, b"onetwo", "sha256")
    hashing = hasher.begin()
    hashing.update(b"one")
    hashing.update(b"two")
    assert hasher.digest(b"onetwo") == hashing.digest() == expected


# What lies on disks already: these octets never change while format 1 is read.


def test_parts_are_encoded_with_their_length() -> None:
    """Eight octets, big-endian; octets as they are, all else as text."""
    assert encode("ü", b"\xff", 12) == (
        b"\0\0\0\0\0\0\0\2\xc3\xbc" + b"\0\0\0\0\0\0\0\1\xff" + b"\0\0\0\0\0\0\0\00212"
    )
    assert encode() == b""


def test_a_row_that_was_sealed_long_ago_opens() -> None:
    """Format, key id, nonce; bound to what it is for, format, purpose, key id and its place."""
    bound = encode("keyrelay sealed", b"\1", "keys", b"12345678", b"row")
    nonce = b"n" * 12
    sealed = b"\x0112345678" + nonce + AESGCM(b"k" * 32).encrypt(nonce, b"value", bound)
    key = DataKey(b"12345678", "keys", b"k" * 32)
    assert KeyedSealer(key, {}).open(sealed, b"row") == b"value"


def test_a_data_key_that_was_wrapped_long_ago_unwraps() -> None:
    """Bound to what it is for, format, purpose and id."""
    master, nonce = AESGCM(b"m" * 32), b"n" * 12
    bound = encode("keyrelay data key", b"\1", "keys", b"12345678")
    key = unwrap(master, b"12345678", "keys", nonce + master.encrypt(nonce, b"k" * 32, bound))
    expected = hmac.digest(b"k" * 32, b"x", "sha256")
    assert KeyedHasher(key).digest(b"x") == expected


def test_a_marked_data_key_that_was_wrapped_long_ago_unwraps() -> None:
    """The mark stands behind the rest of what it is bound to."""
    master, nonce = AESGCM(b"m" * 32), b"n" * 12
    bound = encode("keyrelay data key", b"\1", "keys", b"12345678", b"sealed")
    wrapped = nonce + master.encrypt(nonce, b"k" * 32, bound)
    assert unwrap(master, b"12345678", "keys", wrapped, (b"", b"sealed")).mark == b"sealed"


@pytest.mark.parametrize(
    ("sealed", "sentence"),
    [
        (b"", "the sealed octets are not in a known format"),
        (b"\x0112345", "the sealed octets are not in a known format"),
        (b"\x0212345678" + bytes(40), "the sealed octets are not in a known format"),
        (b"\x0112345678" + bytes(27), "the sealed octets are cut"),
        (
            b"\x0112345678" + bytes(28),
            "the sealed octets do not open: they were changed, moved or replayed",
        ),
        (
            b"\x01" + bytes(8) + bytes(28),
            "the sealed octets name data key 0000000000000000, which is not here",
        ),
    ],
)
def test_what_does_not_open_is_said_in_words(sealed: bytes, sentence: str) -> None:
    """For the admin, who has to find the row."""
    with pytest.raises(Unopenable) as refusal:
        sealer(DataKey(b"12345678", "keys", bytes(32))).open(sealed, b"row")
    assert str(refusal.value) == sentence


def test_the_shortest_blob_names_its_key() -> None:
    """Format and id are all that is needed for it."""
    assert key_id_of(b"\x0112345678") == b"12345678"
