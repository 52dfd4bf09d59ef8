"""A backup as octets: what is needed to use the vault, sealed to a passphrase or key. Pure."""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from vault import passphrase as sealed_to
from vault.backupkey import FORMAT, BackupKey
from vault.errors import Invalid, Unopenable
from vault.secret import Secret

_MAGIC: Final = b"keyrelay backup 1\n"
_PURPOSE: Final = "keyrelay backup 1"
_NAME: Final = re.compile(r"[a-z][a-z.]{0,63}", re.ASCII)
_LARGEST: Final = 1 << 30

Lock = Secret | BackupKey
"""What a backup is sealed to: a passphrase, or a key."""


@dataclass(frozen=True, slots=True)
class Archive:
    """The files of a data directory by name, as they were at one moment (Unix seconds)."""

    made_at: float
    files: Mapping[str, bytes] = field(repr=False)

    def sealed(self, lock: Lock) -> bytes:
        """The octets of the backup; raises Invalid."""
        files = {name: base64.b64encode(octets).decode() for name, octets in self.files.items()}
        plain = zlib.compress(json.dumps({"made_at": self.made_at, "files": files}).encode())
        if len(plain) > _LARGEST:
            raise Invalid("the vault is too large for a backup file; stop the server and copy it")
        if isinstance(lock, BackupKey):
            return _MAGIC + lock.seal(plain, _PURPOSE)
        return _MAGIC + sealed_to.seal(lock, plain, _PURPOSE)

    @classmethod
    def opened(cls, octets: bytes, lock: Lock) -> Archive:
        """The files again; raises Unopenable."""
        if not octets.startswith(_MAGIC):
            raise Unopenable("the file is no backup of keyrelay, or one of a newer release")
        try:
            return cls._parsed(_plain(octets[len(_MAGIC) :], lock))
        except Unopenable as error:
            raise Unopenable(f"the backup does not open: {error}") from None

    @classmethod
    def _parsed(cls, plain: bytes) -> Archive:
        try:
            found = json.loads(zlib.decompress(plain))
            files = {name: base64.b64decode(text) for name, text in found["files"].items()}
            made_at = float(found["made_at"])
        except (ValueError, TypeError, KeyError, AttributeError, zlib.error, binascii.Error):
            raise Unopenable("it is not in a known format") from None
        if not all(map(_NAME.fullmatch, files)):
            raise Unopenable("it holds a file of another directory")
        return cls(made_at, files)


def _plain(sealed: bytes, lock: Lock) -> bytes:
    if isinstance(lock, BackupKey):
        return lock.opened(sealed, _PURPOSE)
    if sealed.startswith(FORMAT):
        raise Unopenable("it is sealed to a key; name the file of that with --key")
    return sealed_to.opened(lock, sealed, _PURPOSE)
