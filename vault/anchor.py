"""The anchor: a small file that knows how often the vault was changed, so that an older database
under the same name is seen. Outside the data directory it also guards that as a whole.
"""

from __future__ import annotations

import fcntl
import hmac
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vault.errors import RolledBack, StoreUnavailable
from vault.files import open_private, reason_of, write_private
from vault.sealing import KeyedHasher, encode

VARIABLE: Final = "KEYRELAY_ANCHOR_FILE"
FILE_NAME: Final = "vault.anchor"
_TEXT: Final = re.compile(rb"keyrelay anchor 1 ([0-9]{20}) ([0-9a-f]{64})\n")


def mark(hasher: KeyedHasher, generation: int) -> bytes:
    """What authenticates a number of changes; only who has the master key can make it."""
    return hasher.digest(encode("keyrelay generation 1", generation))


def authentic(hasher: KeyedHasher, generation: int, found: object) -> bool:
    """Whether this is the mark of this generation."""
    return isinstance(found, bytes) and hmac.compare_digest(mark(hasher, generation), found)


def judge_seal(hasher: KeyedHasher, generation: int, seal: object) -> None:
    """Raises RolledBack where the number of changes is not the one that keyrelay wrote."""
    if not authentic(hasher, generation, seal):
        raise RolledBack(
            "the row vault_state of the vault's database was changed or replayed by somebody who "
            "does not have its master key; restore the database from a backup, or go on with: "
            "keyrelay serve --accept-rollback"
        )


@dataclass(frozen=True, slots=True)
class Anchor:
    """One anchor file. Its number only grows, but where `reset` is told to accept another."""

    path: Path
    outside: bool

    @classmethod
    def find(cls, data: Path, environ: Mapping[str, str]) -> Anchor:
        """Where KEYRELAY_ANCHOR_FILE says, else in the data directory."""
        named = environ.get(VARIABLE)
        return cls(Path(named), True) if named else cls(data / FILE_NAME, False)

    def octets(self) -> bytes | None:
        """The file, unjudged; None where there is none, or one that is just being made.

        Raises StoreUnavailable.
        """
        try:
            return self.path.read_bytes() or None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unavailable(error) from error

    def generation(self, octets: bytes, hasher: KeyedHasher) -> int:
        """The number that the octets vouch for; raises RolledBack for what is none of ours."""
        found = _TEXT.fullmatch(octets)
        if found and authentic(hasher, int(found[1]), bytes.fromhex(found[2].decode())):
            return int(found[1])
        raise RolledBack(
            f"the anchor {self.path} was changed, or belongs to another vault; if you know why, "
            "go on with: keyrelay serve --accept-rollback"
        )

    def advance(self, generation: int, seal: bytes) -> None:
        """Notes a number, unless a greater one is there; durable. Raises StoreUnavailable."""
        try:
            with self._locked() as file:
                found = _TEXT.fullmatch(os.pread(file, 4096, 0))
                if found is None or int(found[1]) < generation:
                    # In place, in one write of one sector: a lock on the file stays meaningful.
                    os.pwrite(file, _text(generation, seal), 0)
                    os.fsync(file)
        except OSError as error:
            raise self._unavailable(error) from error

    def reset(self, generation: int, seal: bytes) -> None:
        """Makes the file anew, with whatever number. Raises StoreUnavailable."""
        try:
            write_private(self.path, _text(generation, seal))
        except OSError as error:
            raise self._unavailable(error) from error

    @contextmanager
    def _locked(self) -> Iterator[int]:
        file = open_private(self.path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)

    def _unavailable(self, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(
            f"the anchor {self.path} can't be used ({reason_of(error)}); see that its folder is "
            "there and belongs to the user that runs this"
        )


def _text(generation: int, seal: bytes) -> bytes:
    return f"keyrelay anchor 1 {generation:020} {seal.hex()}\n".encode()
