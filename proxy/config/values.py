"""The text of a secret to its octets: `${NAME}`, `file:PATH`, or the secret itself where that may
stand there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from vault import Secret

KeyValues = Literal["resolve", "leave", "import"]
"""`resolve`: references only; `leave`: references, not followed; `import`: keys may stand there."""

_REFERENCE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)
_UNRESOLVED: Final = b"?"
_MAX_FILE_OCTETS: Final = 65536


def resolve_key(text: str, mode: KeyValues, environ: Mapping[str, str], folder: Path) -> Secret:
    """The key that `text` stands for; raises ValueError with a sentence that never shows it."""
    if not _refers(text):
        return _plain(text, mode)
    return Secret(_UNRESOLVED) if mode == "leave" else Secret(_followed(text, environ, folder))


def resolve_url(text: str, environ: Mapping[str, str], folder: Path) -> str:
    """The URL of an engine: as a key's value, or as it is; raises ValueError that shows nothing."""
    if not _refers(text):
        return text
    try:
        return _followed(text, environ, folder).decode().strip()
    except UnicodeDecodeError:
        raise ValueError("expected a URL, found octets that are no text") from None


def variables_in(document: object) -> frozenset[str]:
    """The names of the environment variables that its values stand for."""
    names, seen, waiting = set[str](), set[int](), [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str) and (match := _REFERENCE.fullmatch(value)):
            names.add(match[1])
        elif isinstance(value, dict | list) and id(value) not in seen:
            seen.add(id(value))  # YAML lets a list hold itself
            waiting.extend(value.values() if isinstance(value, dict) else value)
    return frozenset(names)


def _refers(text: str) -> bool:
    return text.startswith("file:") or _REFERENCE.fullmatch(text) is not None


def _followed(text: str, environ: Mapping[str, str], folder: Path) -> bytes:
    match = _REFERENCE.fullmatch(text)
    if match is not None:
        return _from_environment(match[1], environ)
    return _from_file(seen_from(folder, Path(text.removeprefix("file:"))))


def seen_from(folder: Path, path: Path) -> Path:
    """A path that stands in a file of that folder; raises ValueError."""
    try:
        return folder / path.expanduser()
    except RuntimeError:
        raise ValueError("expected a path, found a ~ that is nobody's home") from None


def _plain(text: str, mode: KeyValues) -> Secret:
    if mode != "import":
        raise ValueError(
            "expected ${NAME} or file:PATH; keyrelay import FILE seals plain keys into the vault"
        )
    if "${" in text or not text:
        raise ValueError("expected a key, or ${NAME} or file:PATH as the whole value")
    return Secret(text.encode())


def _from_environment(name: str, environ: Mapping[str, str]) -> bytes:
    value = environ.get(name, "")
    if not value:
        raise ValueError(f"expected the environment variable {name} to be set")
    return value.encode("utf-8", "surrogateescape")


def _from_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            octets = file.read(_MAX_FILE_OCTETS + 3)  # a line end too; it may be endless
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise ValueError(f"expected a file with the key: {path}: {reason}") from None
    octets = octets.removesuffix(b"\n").removesuffix(b"\r")
    if not 0 < len(octets) <= _MAX_FILE_OCTETS:
        raise ValueError(f"expected a file with one key of at most 64 KiB: {path}")
    return octets
