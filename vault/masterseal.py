"""Seals the master keys' file to a passphrase: Argon2id (RFC 9106) makes the key, AES-GCM seals.

The file says how the key is made (memory, passes, lanes, salt); these are bounded, so that a file
that was changed can't make a start take hours, and authenticated with what is sealed.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from vault.errors import Invalid, MasterKeyMissing, Unopenable
from vault.passphrase import SHORTEST
from vault.sealing import KEY_LENGTH, decrypt, encode, encrypt
from vault.secret import Secret, octets_of

Ask = Callable[[], Secret]
"""Gives the passphrase, or raises MasterKeyMissing with the remedy."""

_KDF: Final = "argon2id"
_SALT_LENGTH: Final = 16


class Cost(NamedTuple):
    """What a guess costs."""

    memory_kib: int
    passes: int
    lanes: int


_COST = Cost(1 << 16, 3, 4)
"""RFC 9106, the second recommended choice: 64 MiB, a part of a second."""
_LEAST: Final = Cost(1 << 10, 1, 1)
_MOST: Final = Cost(1 << 18, 8, 16)
"""What is opened at all."""


class _Lock(NamedTuple):
    """How a passphrase becomes the key of a file."""

    cost: Cost
    salt: bytes

    def key(self, passphrase: Secret) -> AESGCM:
        memory, passes, lanes = self.cost
        try:
            derive = Argon2id(
                salt=self.salt,
                length=KEY_LENGTH,
                iterations=passes,
                lanes=lanes,
                memory_cost=memory,
            )
            return AESGCM(derive.derive(octets_of(passphrase)))
        except UnsupportedAlgorithm:
            raise MasterKeyMissing(
                "this OpenSSL has no Argon2id, which a passphrase needs; install the wheel of "
                "cryptography, or OpenSSL 3.2 or newer"
            ) from None

    def bound(self) -> bytes:
        return encode("keyrelay master seal", _KDF, *self.cost, self.salt)


class MasterSeal:
    """Seals and opens one file. The key is made once, and again only for another salt."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._held: tuple[_Lock, AESGCM] | None = None
        self._failed: tuple[bytes, Secret] | None = None

    def seal(self, text: str) -> bytes:
        """The file's octets; raises Invalid for a passphrase that is too short."""
        if self._held is None:
            passphrase = self._ask()
            require_length(passphrase)
            lock = _Lock(_COST, os.urandom(_SALT_LENGTH))
            self._held = lock, lock.key(passphrase)
        lock, key = self._held
        facts = {
            "kdf": _KDF,
            **lock.cost._asdict(),
            "salt": _text(lock.salt),
            "sealed": _text(encrypt(key, text.encode(), lock.bound())),
        }
        return (json.dumps(facts, indent=1) + "\n").encode()

    def opened(self, octets: str, name: str) -> str:
        """What was sealed; raises MasterKeyMissing, naming the file."""
        lock, sealed = _parsed(octets, name)
        if self._held is not None and self._held[0] == lock:
            return _plain(self._held[1], lock, sealed, name)
        passphrase = self._ask()
        attempt = (octets.encode(), passphrase)
        if attempt == self._failed:  # a server that asks again and again makes no key each time
            raise _other(name)
        self._failed = attempt
        key = lock.key(passphrase)
        text = _plain(key, lock, sealed, name)
        self._held, self._failed = (lock, key), None
        return text


def require_length(passphrase: Secret) -> None:
    """Raises Invalid for one that can be guessed."""
    if len(octets_of(passphrase)) < SHORTEST:
        raise Invalid(
            f"the passphrase is too short: use {SHORTEST} characters or more, such as six words"
        )


def _plain(key: AESGCM, lock: _Lock, sealed: bytes, name: str) -> str:
    try:
        return decrypt(key, sealed, lock.bound()).decode()
    except Unopenable:
        raise _other(name) from None


def _other(name: str) -> MasterKeyMissing:
    return MasterKeyMissing(
        f"the passphrase does not open the master key {name}: it is another one, or the file was "
        "changed; try again, or restore the file from your backup"
    )


def _parsed(octets: str, name: str) -> tuple[_Lock, bytes]:
    try:
        facts = json.loads(octets)
        cost = Cost(*(facts[field] for field in Cost._fields))
        lock, sealed = _Lock(cost, _octets(facts["salt"])), _octets(facts["sealed"])
        known = facts["kdf"] == _KDF and len(lock.salt) == _SALT_LENGTH and _bearable(cost)
    except (ValueError, TypeError, KeyError, RecursionError):
        known = False
    if not known:
        raise MasterKeyMissing(
            f"the master key {name} is not in a known format; restore it from your backup"
        )
    return lock, sealed


def _bearable(cost: Cost) -> bool:
    whole = all(type(number) is int for number in cost)
    return whole and all(
        low <= one <= high for low, one, high in zip(_LEAST, cost, _MOST, strict=True)
    )


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def _octets(text: Any) -> bytes:
    return base64.b64decode(text, validate=True)
