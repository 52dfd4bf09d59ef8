"""The anchor: a small file that knows how far the vault has come, so that an older database
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
from typing import Final, NamedTuple

from vault.chain import State, seal_of
from vault.errors import RolledBack, StoreUnavailable
from vault.files import open_private, reason_of, write_private
from vault.sealing import KeyedHasher, encode

VARIABLE: Final = "KEYRELAY_ANCHOR_FILE"
FILE_NAME: Final = "vault.anchor"
_TEXT: Final = re.compile(
    rb"keyrelay anchor (?:1 (?P<first>[0-9]{20})|2 (?P<generation>[0-9]{20}) (?P<rows>[0-9]{20})) "
    rb"(?P<seal>[0-9a-f]{64})\n"
)


class Point(NamedTuple):
    """How far a vault has come: its changes, then the rows of its audit log.

    `rows` -1: its audit log was no chain yet. Every other point of it is earlier or later.
    """

    generation: int
    rows: int


def point_of(state: State) -> Point:
    """How far a state has come."""
    return Point(state.generation, -1 if state.head is None else state.head.rows)


def mark(hasher: KeyedHasher, point: Point) -> bytes:
    """What authenticates a point; only who has the master key can make it."""
    if point.rows < 0:  # as releases before the chain wrote it
        return seal_of(hasher, point.generation, None)
    return hasher.digest(encode("keyrelay anchor 2", *point))


@dataclass(frozen=True, slots=True)
class Anchor:
    """One anchor file. Its point only moves on, but where `reset` is told to accept another."""

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

    def point(self, octets: bytes, hasher: KeyedHasher) -> Point:
        """The point that the octets vouch for; raises RolledBack for what is none of ours."""
        found = _TEXT.fullmatch(octets)
        if found:
            point, seal = _point(found), bytes.fromhex(found["seal"].decode())
            if hmac.compare_digest(mark(hasher, point), seal):
                return point
        raise RolledBack(
            f"the anchor {self.path} was changed, or belongs to another vault; if you know why, "
            "go on with: keyrelay serve --accept-rollback"
        )

    def advance(self, point: Point, seal: bytes) -> None:
        """Notes a point, unless a later one is there; durable. Raises StoreUnavailable."""
        try:
            with self._locked() as file:
                found = _TEXT.fullmatch(os.pread(file, 4096, 0))
                if found is None or _point(found) < point:
                    # In place, in one write of one sector: a lock on the file stays meaningful.
                    os.pwrite(file, _text(point, seal), 0)
                    os.fsync(file)
        except OSError as error:
            raise self._unavailable(error) from error

    def reset(self, point: Point, seal: bytes) -> None:
        """Makes the file anew, with whatever point. Raises StoreUnavailable."""
        try:
            write_private(self.path, _text(point, seal))
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


def _point(found: re.Match[bytes]) -> Point:
    if found["first"] is not None:
        return Point(int(found["first"]), -1)
    return Point(int(found["generation"]), int(found["rows"]))


def _text(point: Point, seal: bytes) -> bytes:
    return f"keyrelay anchor 2 {point.generation:020} {point.rows:020} {seal.hex()}\n".encode()
