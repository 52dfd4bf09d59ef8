"""Master keys, current and retired, that wrap the random data keys. Pure; their text form too."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vault.errors import MasterKeyMissing
from vault.sealing import KEY_LENGTH, DataKey, unwrap

_TEXT: Final = re.compile(r"[A-Za-z0-9_-]{43}=?")


class MasterKey:
    """32 random octets with an id that says nothing about them."""

    __slots__ = ("_cipher", "_octets", "id")

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._cipher = AESGCM(octets)
        self.id = sha256(b"keyrelay master key id\x00" + octets).hexdigest()[:16]

    @classmethod
    def random(cls) -> MasterKey:
        """A new master key."""
        return cls(os.urandom(KEY_LENGTH))

    @classmethod
    def parse(cls, text: str) -> MasterKey:
        """From its text form; raises MasterKeyMissing, never with the text in it."""
        if not _TEXT.fullmatch(text):
            raise MasterKeyMissing("a master key is 43 characters of base64url (32 octets)")
        try:
            return cls(base64.urlsafe_b64decode(text.rstrip("=") + "="))
        except binascii.Error:  # pragma: no cover - the shape above leaves nothing to fail
            raise MasterKeyMissing("a master key is 43 characters of base64url") from None

    def text(self) -> str:
        """The text form: base64url without padding. For the key file only."""
        return base64.urlsafe_b64encode(self._octets).rstrip(b"=").decode()

    def wrap(self, key: DataKey) -> bytes:
        """A data key, encrypted."""
        return key.wrapped_by(self._cipher)

    def unwrap(
        self, key_id: bytes, purpose: str, wrapped: bytes, marks: Sequence[bytes] = (b"",)
    ) -> DataKey:
        """A data key with one of these marks; raises Unopenable, naming it."""
        return unwrap(self._cipher, key_id, purpose, wrapped, marks)

    def __repr__(self) -> str:
        return f"MasterKey({self.id})"


@dataclass(frozen=True, slots=True)
class MasterKeys:
    """The master keys of one source: the current one wraps, the retired ones only unwrap."""

    current: MasterKey
    retired: tuple[MasterKey, ...] = ()

    @classmethod
    def parse(cls, words: list[str], source: str) -> MasterKeys:
        """From text forms, current first; `source` says in an error where they came from."""
        if not words:
            raise MasterKeyMissing(f"{source} holds no master key; restore it from your backup")
        try:
            current, *retired = [MasterKey.parse(word) for word in words]
        except MasterKeyMissing as error:
            raise MasterKeyMissing(f"{source} is malformed: {error}") from None
        return cls(current, tuple(retired))

    def by_id(self, key_id: str) -> MasterKey | None:
        """The key of that id, if it is among these."""
        for key in (self.current, *self.retired):
            if key.id == key_id:
                return key
        return None

    def file_text(self) -> str:
        """What the key file holds: one key per line, current first."""
        lines = [
            "# keyrelay master key, current first: whoever has it can open the vault; keep a copy",
            *(key.text() for key in (self.current, *self.retired)),
        ]
        return "\n".join(lines) + "\n"


def words_of_file(text: str) -> list[str]:
    """The keys of a key file: one per line; empty lines and `#` comments are skipped."""
    lines = (line.split("#", 1)[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def words_of_variable(text: str) -> list[str]:
    """The keys of an environment variable: separated by commas or white space."""
    return text.replace(",", " ").split()
