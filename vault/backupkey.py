"""The key of backups, 32 random octets in a file of its own: seals octets in a passphrase's place.

The sealed octets are: format (1 octet), then what `sealing` makes.
"""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vault.errors import Invalid, StoreUnavailable, Unopenable
from vault.files import read_private, reason_of, write_private
from vault.sealing import KEY_LENGTH, decrypt, encode, encrypt

FORMAT: Final = b"\x02"
_TEXT: Final = re.compile(r"backup-([A-Za-z0-9_-]{43})")
"""The word keeps a master key, which looks the same, from being taken for one of backups."""


class BackupKey:
    """Seals backups, and opens them."""

    __slots__ = ("_cipher",)

    def __init__(self, octets: bytes) -> None:
        self._cipher = AESGCM(octets)

    @classmethod
    def make(cls, path: Path) -> BackupKey:
        """A new key, in a new file of mode 0600; raises Invalid, StoreUnavailable."""
        if path.exists():
            raise Invalid(f"{path} is there already; seal to it with --to-key, or name another")
        octets = os.urandom(KEY_LENGTH)
        text = base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
        note = "# keyrelay backup key: it opens your backups; keep a copy, apart from them"
        try:
            write_private(path, f"{note}\nbackup-{text}\n".encode())
        except OSError as error:
            raise StoreUnavailable(f"{path} can't be written ({reason_of(error)})") from error
        return cls(octets)

    @classmethod
    def read(cls, path: Path) -> BackupKey:
        """The key of a file; raises Invalid, never with what is in it."""
        try:
            text = read_private(path, 0o750, "the backup key", Invalid)
        except (OSError, UnicodeDecodeError) as error:
            raise Invalid(f"the backup key {path} can't be read ({reason_of(error)})") from None
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        found = _TEXT.fullmatch(lines[0]) if len(lines) == 1 else None
        if found is None:
            raise Invalid(f"{path} holds no backup key; make one with: keyrelay backup --new-key")
        return cls(base64.urlsafe_b64decode(found[1] + "="))

    def seal(self, plaintext: bytes, purpose: str) -> bytes:
        """Octets that open with the same key and purpose."""
        return FORMAT + encrypt(self._cipher, plaintext, _bound(purpose))

    def opened(self, sealed: bytes, purpose: str) -> bytes:
        """The plaintext; raises Unopenable for another key, and for a change of any octet."""
        if not sealed.startswith(FORMAT):
            raise Unopenable("it is not sealed to a key; leave --key out, and give its passphrase")
        try:
            return decrypt(self._cipher, sealed[1:], _bound(purpose))
        except Unopenable:
            raise Unopenable("the key is another one, or the octets were changed") from None


def _bound(purpose: str) -> bytes:
    return encode("keyrelay backup key", FORMAT, purpose)
