"""The configuration's files, looked at again and again: keys.yaml, what it refers to, and what was
imported. A rename over one of them, and a swapped symbolic link, show as well as a write."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from stat import S_ISFIFO, S_ISSOCK
from typing import Any

from proxy.cli.desk import Desk
from proxy.cli.lastgood import LastGood, TooLarge
from proxy.config import (
    IMPORTED,
    Config,
    ConfigError,
    load_config,
    read_document,
    read_imported_services,
    seen_from,
)

State = tuple[tuple[int, int, int, int] | None, ...]

Documents = tuple[dict[str, object] | None, dict[str, Any]]
"""keys.yaml, if there is one, and what was imported, as it stands there."""

_REFERENCE = "file:"


class ConfigFiles:
    """What `reload` asks. A file that was there and is gone is a mistake, not an empty one; a pipe
    is one too, since it is read twice. Raises ConfigError."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._path = desk.config_path
        self._keys: tuple[Path, ...] = ()
        _refuse_pipes(self._watched())
        self._keys = tuple(self._referred())
        self._loaded = self._before = self._state()
        self._read = b""
        self._good = LastGood()
        self._again: Config | None = None

    def changed(self) -> bool:
        """Whether a file is another than was loaded, and the same as at the last look: an editor
        that empties a file before it writes must not be met in between."""
        state = self._state()
        settled, self._before = state == self._before, state
        return settled and state != self._loaded

    def load(self) -> Config:
        """All of them; raises ConfigError. First what was begun with, where they were not there."""
        if (again := self._again) is not None:
            self._again, self._loaded = None, ()
            return again
        self._path = self._path or self._desk.config_path
        _refuse_pipes(self._watched())
        self._keys = tuple(self._referred())
        self._loaded = self._before = self._state()
        _refuse_pipes(self._keys)
        if self._path is not None:
            self._desk.config_option = self._path  # also when it is gone: that must be said
        found = self._documents()
        config = self._of(found)
        self._read = pickle.dumps(found)
        return config

    def taken(self) -> None:
        """What was loaded last is what processes go by."""
        if self._read:
            self._good.keep(self._read)

    def begun(self, at_start: Config) -> Config:
        """For a process that begins now: what the files say, else what was taken up last. Raises
        ConfigError."""
        try:
            return self._desk.config("resolve")
        except ConfigError as error:
            try:
                kept = self._good.read()
            except TooLarge:
                raise error from None
        if kept is None:
            return at_start
        self._path, self._loaded = self._path or self._desk.config_path, ()
        self._again = self._of(pickle.loads(kept))  # noqa: S301 - it is our own memory
        return self._again

    def _documents(self) -> Documents:
        own = None if self._path is None else read_document(self._path)
        return own, read_imported_services(self._desk.data)

    def _of(self, found: Documents) -> Config:
        own, imported = found
        return load_config(self._path, self._desk.environ, imported=imported, document=own)

    def _state(self) -> State:
        return tuple(map(_state, [*self._watched(), *self._keys]))

    def _watched(self) -> list[Path]:
        path = self._path or self._desk.config_path
        return [self._desk.data / IMPORTED, *([path] if path else [])]

    def _referred(self) -> Iterator[Path]:
        """The files with keys that the configuration names; as before where it can't be read."""
        if self._path is None:
            return
        try:
            document = read_document(self._path)
        except ConfigError:
            yield from self._keys
            return
        for text in _texts(document.get("keys"), set()):
            if text.startswith(_REFERENCE):
                with suppress(ValueError):
                    yield seen_from(self._path.parent, Path(text.removeprefix(_REFERENCE)))


def _texts(value: object, seen: set[int]) -> Iterator[str]:
    """Every text in it; what is named several times, or lies in itself, once."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list) and id(value) not in seen:
        seen.add(id(value))
        for member in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(member, seen)


def _refuse_pipes(paths: Iterable[Path]) -> None:
    """Reading one waits for somebody who writes, and finds nothing the second time."""
    for path in paths:
        with suppress(OSError, ValueError):
            mode = path.stat().st_mode
            if S_ISFIFO(mode) or S_ISSOCK(mode):
                raise ConfigError((f"{path}: expected a regular file, found a pipe",))


def _state(path: Path) -> tuple[int, int, int, int] | None:
    """What a replaced file can't share with the one before; links are followed."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # of a name that no file can have
        return None
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
