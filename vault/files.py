"""Writes a private file as a whole: at any moment its name holds the old octets or the new ones.
Reads one that nobody else can."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path
from typing import Final

_PRIVATE: Final = 0o600
_LARGEST: Final = 65536


def write_private(path: Path, octets: bytes) -> None:
    """Replaces or makes a file of mode 0600, durable when this returns; raises OSError.

    What root writes belongs to the owner of the directory: the server, which is not root, must be
    able to read it.
    """
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE), "wb") as file:
        _own(file.fileno(), path.parent)
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
    sync_directory(path.parent)


def open_private(path: Path) -> int:
    """A descriptor to read and write a file of mode 0600, made empty where there is none.

    Raises OSError.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, _PRIVATE)
    try:
        if os.fstat(file).st_size == 0:
            _own(file, path.parent)
            sync_directory(path.parent)
    except BaseException:
        os.close(file)
        raise
    return file


def read_private(path: Path, allowed: int, what: str, refusal: type[Exception]) -> str:
    """The text of a small file that is not more open than `allowed`, else raises `refusal`.

    Raises OSError, UnicodeDecodeError too. `what`: how the refusal names the file.
    """
    # The mode is asked of the opened file: no other can be put under the name meanwhile.
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & ~allowed & 0o777:
            remedy = f"chmod {allowed & 0o640:o} {shlex.quote(str(path))}"
            raise refusal(f"{what} {path} is open to others; run: {remedy}")
        return file.read(_LARGEST).decode()


def _own(file: int, directory: Path) -> None:
    os.fchmod(file, _PRIVATE)
    if os.geteuid() == 0:
        owner = directory.stat()
        os.fchown(file, owner.st_uid, owner.st_gid)


def sync_directory(path: Path) -> None:
    """Makes what was renamed in a directory durable; raises OSError."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def reason_of(error: Exception) -> str:
    """Why a file can't be used, in the system's words."""
    return ((error.strerror if isinstance(error, OSError) else None) or "not a text file").lower()
