"""The configuration's files, looked at again and again: keys.yaml, what it refers to, and what was
imported. A rename over one of them, and a swapped symbolic link, show as well as a write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from proxy.cli.desk import Desk
from proxy.config import IMPORTED, Config, ConfigError, read_document

State = tuple[tuple[int, int, int, int] | None, ...]

_REFERENCE = "file:"


class ConfigFiles:
    """What `reload` asks. A file that was there and is gone is a mistake, not an empty one."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._path = desk.config_path
        self._keys: tuple[Path, ...] = ()
        self._keys = tuple(self._referred())
        self._loaded = self._before = self._state()

    def changed(self) -> bool:
        """Whether a file is another than was loaded, and the same as at the last look: an editor
        that empties a file before it writes must not be met in between."""
        state = self._state()
        settled, self._before = state == self._before, state
        return settled and state != self._loaded

    def load(self) -> Config:
        """All of them; raises ConfigError."""
        self._path = self._path or self._desk.config_path
        self._keys = tuple(self._referred())
        self._loaded = self._before = self._state()
        if self._path is not None:
            self._desk.config_option = self._path  # also when it is gone: that must be said
        return self._desk.config("resolve")

    def _state(self) -> State:
        path = self._path or self._desk.config_path
        files = [self._desk.data / IMPORTED, *([path] if path else []), *self._keys]
        return tuple(map(_state, files))

    def _referred(self) -> Iterator[Path]:
        """The files with keys that the configuration names; as before where it can't be read."""
        if self._path is None:
            return
        try:
            document = read_document(self._path)
        except ConfigError:
            yield from self._keys
            return
        for text in _texts(document.get("keys")):
            if text.startswith(_REFERENCE):
                yield self._path.parent / Path(text.removeprefix(_REFERENCE)).expanduser()


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for member in value.values():
            yield from _texts(member)
    elif isinstance(value, list):
        for member in value:
            yield from _texts(member)


def _state(path: Path) -> tuple[int, int, int, int] | None:
    """What a replaced file can't share with the one before; links are followed."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
