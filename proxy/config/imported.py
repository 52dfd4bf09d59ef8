"""The services that `keyrelay import` registered: services.yaml in the data directory.

A service is no secret, so it needs no vault; but a server must know it after a restart, also when
the file that it came from is gone. `import` alone writes this file; it has the form of the section
`services` of keys.yaml.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from proxy.config.reading import read_document

IMPORTED: Final = "services.yaml"
"""The name of the file in the data directory."""
_HEAD: Final = "# Written by keyrelay import; a service in keys.yaml of the same name wins.\n"


def read_imported_services(data: Path) -> dict[str, Any]:
    """The entries by name; none where nothing was imported. Raises ConfigError."""
    path = data / IMPORTED
    return dict(read_document(path)) if path.exists() else {}


def services_of(document: Mapping[str, object]) -> dict[str, Any]:
    """The entries under `services` of a configuration, as they stand there."""
    section = document.get("services")
    return dict(section) if isinstance(section, dict) else {}


@contextmanager
def importing_alone(data: Path) -> Iterator[None]:
    """One import at a time: each adds to what the one before it registered."""
    lock = os.open(data / f"{IMPORTED}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def write_imported_services(data: Path, entries: Mapping[str, Any]) -> None:
    """Replaces the file as a whole; durable when this returns."""
    with staged_services(data, entries) as put:
        put()


@contextmanager
def staged_services(data: Path, entries: Mapping[str, Any]) -> Iterator[Callable[[], None]]:
    """The new file, durable beside the old one; the function that is given puts it in its place."""
    beside = data / f".{IMPORTED}.new"
    _write(beside, data, entries)
    try:
        yield lambda: _put(beside, data)
    finally:
        beside.unlink(missing_ok=True)


def _write(path: Path, data: Path, entries: Mapping[str, Any]) -> None:
    text = _HEAD + yaml.safe_dump(dict(entries), sort_keys=True, allow_unicode=True)
    path.unlink(missing_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "wb") as stream:
        if os.geteuid() == 0:  # the server, whose directory it is, must be able to read it
            owner = data.stat()
            os.fchown(file, owner.st_uid, owner.st_gid)
        stream.write(text.encode())
        stream.flush()
        os.fsync(stream.fileno())


def _put(beside: Path, data: Path) -> None:
    beside.rename(data / IMPORTED)
    directory = os.open(data, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
