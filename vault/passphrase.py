"""Seals octets to a passphrase: scrypt (RFC 7914) makes the key, AES-256-GCM seals under it.

The sealed octets are: format (1 octet), log2 of scrypt's N (1), salt (16), then what `sealing`
makes. N costs whoever guesses 128 MiB and a good part of a second for each guess.
"""

from __future__ import annotations

import os
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from vault.errors import Invalid, Unopenable
from vault.sealing import KEY_LENGTH, decrypt, encode, encrypt
from vault.secret import Secret, octets_of

SHORTEST: Final = 12
_FORMAT: Final = b"\x01"
_SALT_LENGTH: Final = 16
_HEAD_LENGTH: Final = 2 + _SALT_LENGTH
_COST = 17
_COSTS: Final = range(10, 21)
"""What is opened at all: a file from elsewhere must not take all memory."""


def seal(passphrase: Secret, plaintext: bytes, purpose: str) -> bytes:
    """Octets that open with the same passphrase and purpose; raises Invalid for a short one."""
    if len(octets_of(passphrase)) < SHORTEST:
        raise Invalid(
            f"the passphrase is too short: use {SHORTEST} characters or more, such as six words"
        )
    head = _FORMAT + bytes([_COST]) + os.urandom(_SALT_LENGTH)
    return head + encrypt(_key(passphrase, head), plaintext, _bound(head, purpose))


def opened(passphrase: Secret, sealed: bytes, purpose: str) -> bytes:
    """The plaintext; raises Unopenable for another passphrase, and for a change of any octet."""
    head = sealed[:_HEAD_LENGTH]
    if len(head) < _HEAD_LENGTH or not head.startswith(_FORMAT) or head[1] not in _COSTS:
        raise Unopenable("it is not in a known format")
    try:
        return decrypt(_key(passphrase, head), sealed[_HEAD_LENGTH:], _bound(head, purpose))
    except Unopenable:
        raise Unopenable("the passphrase is another one, or the octets were changed") from None


def _key(passphrase: Secret, head: bytes) -> AESGCM:
    derive = Scrypt(salt=head[2:], length=KEY_LENGTH, n=1 << head[1], r=8, p=1)
    return AESGCM(derive.derive(octets_of(passphrase)))


def _bound(head: bytes, purpose: str) -> bytes:
    return encode("keyrelay passphrase", head, purpose)
