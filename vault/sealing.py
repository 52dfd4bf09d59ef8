"""Seals and opens octets under a data key, bound to associated data; and hashes under one.

AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce, made here and nowhere a parameter.
A sealed blob is: format version (1 octet), data key id (8), nonce (12), ciphertext with tag.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vault.errors import Unopenable

KEY_LENGTH: Final = 32
ID_LENGTH: Final = 8
_FORMAT: Final = b"\x01"
_NONCE_LENGTH: Final = 12
_TAG_LENGTH: Final = 16
_HEAD_LENGTH: Final = len(_FORMAT) + ID_LENGTH


def encode(*parts: str | bytes | int) -> bytes:
    """One octet string for several parts, length-prefixed: no two lists of parts encode alike."""
    octets = [_octets(part) for part in parts]
    return b"".join(len(piece).to_bytes(8, "big") + piece for piece in octets)


def _octets(part: str | bytes | int) -> bytes:
    return part if isinstance(part, bytes) else str(part).encode()


def encrypt(key: AESGCM, plaintext: bytes, aad: bytes) -> bytes:
    """Nonce, ciphertext and tag."""
    nonce = os.urandom(_NONCE_LENGTH)
    return nonce + key.encrypt(nonce, plaintext, aad)


def decrypt(key: AESGCM, encrypted: bytes, aad: bytes) -> bytes:
    """The plaintext; raises Unopenable for any change of key, octets or associated data."""
    if len(encrypted) < _NONCE_LENGTH + _TAG_LENGTH:
        raise Unopenable("the sealed octets are cut")
    try:
        return key.decrypt(encrypted[:_NONCE_LENGTH], encrypted[_NONCE_LENGTH:], aad)
    except InvalidTag:
        raise Unopenable(
            "the sealed octets do not open: they were changed, moved or replayed"
        ) from None


class DataKey:
    """A random key for one purpose. The octets don't show in its repr.

    `mark`: what its wrapping vouches for beside id and purpose; empty: nothing.
    """

    __slots__ = ("_cipher", "_octets", "id", "mark", "purpose")

    def __init__(self, key_id: bytes, purpose: str, octets: bytes, mark: bytes = b"") -> None:
        self.id = key_id
        self.purpose = purpose
        self.mark = mark
        self._octets = octets
        self._cipher = AESGCM(octets)

    @classmethod
    def random(cls, purpose: str) -> DataKey:
        """A new key with a new id."""
        return cls(os.urandom(ID_LENGTH), purpose, os.urandom(KEY_LENGTH))

    def seal(self, plaintext: bytes, aad: bytes) -> bytes:
        """A blob that names its format and this key."""
        head = _FORMAT + self.id
        return head + encrypt(self._cipher, plaintext, self._bound(aad))

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """The plaintext of a blob that names this key; raises Unopenable."""
        return decrypt(self._cipher, sealed[_HEAD_LENGTH:], self._bound(aad))

    def _bound(self, aad: bytes) -> bytes:
        return encode("keyrelay sealed", _FORMAT, self.purpose, self.id, aad)

    def hashing(self) -> hmac.HMAC:
        """An incremental HMAC-SHA-256 (RFC 2104)."""
        return hmac.new(self._octets, digestmod=sha256)

    def marked(self, mark: bytes) -> DataKey:
        """The same key with another mark."""
        return DataKey(self.id, self.purpose, self._octets, mark)

    def wrapped_by(self, master: AESGCM) -> bytes:
        """This key's octets, encrypted under a master key and bound to purpose, id and mark."""
        return encrypt(master, self._octets, _wrapping(self.purpose, self.id, self.mark))

    def __repr__(self) -> str:
        return f"DataKey({self.id.hex()}, {self.purpose!r})"


def unwrap(
    master: AESGCM, key_id: bytes, purpose: str, wrapped: bytes, marks: Sequence[bytes] = (b"",)
) -> DataKey:
    """The data key that `wrapped_by` wrapped, with the one of these marks that it was wrapped with.

    Raises Unopenable, naming the data key.
    """
    for mark in marks:
        with suppress(Unopenable):
            octets = decrypt(master, wrapped, _wrapping(purpose, key_id, mark))
            return DataKey(key_id, purpose, octets, mark)
    raise Unopenable(
        f"data key {key_id.hex()} ({purpose}) does not open; restore the database from a backup"
    )


def _wrapping(purpose: str, key_id: bytes, mark: bytes) -> bytes:
    parts = ("keyrelay data key", _FORMAT, purpose, key_id)
    return encode(*parts, mark) if mark else encode(*parts)


def key_id_of(sealed: bytes) -> bytes:
    """Which data key a blob names; raises Unopenable for another format."""
    if len(sealed) < _HEAD_LENGTH or not sealed.startswith(_FORMAT):
        raise Unopenable("the sealed octets are not in a known format")
    return sealed[len(_FORMAT) : _HEAD_LENGTH]


class KeyedSealer:
    """Seals under the current data key of a purpose, opens under any that is known."""

    __slots__ = ("_current", "_known")

    def __init__(self, current: DataKey, known: Mapping[bytes, DataKey]) -> None:
        self._current = current
        self._known = known

    def seal(self, plaintext: bytes, aad: bytes) -> bytes:
        """A blob bound to `aad`."""
        return self._current.seal(plaintext, aad)

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """The plaintext; raises Unopenable, also for a blob of another purpose."""
        key_id = key_id_of(sealed)
        key = self._current if key_id == self._current.id else self._known.get(key_id)
        if key is None or key.purpose != self._current.purpose:
            raise Unopenable(f"the sealed octets name data key {key_id.hex()}, which is not here")
        return key.open(sealed, aad)


class KeyedHasher:
    """HMAC-SHA-256 under one data key."""

    __slots__ = ("_key",)

    def __init__(self, key: DataKey) -> None:
        self._key = key

    def digest(self, data: bytes) -> bytes:
        """The 32 octets of the HMAC."""
        hashing = self._key.hashing()
        hashing.update(data)
        return hashing.digest()

    def begin(self) -> hmac.HMAC:
        """An incremental HMAC: .update(data), .digest()."""
        return self._key.hashing()
