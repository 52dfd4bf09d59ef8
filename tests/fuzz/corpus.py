"""What a target begins with: the cases found before, kept in files, and the suite's vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

_HERE: Final = Path(__file__).parent
FOLDER: Final = _HERE / "corpus"
"""One folder per target, one file per case; what the fuzzer finds is put here."""
_VECTORS: Final = {"call": ("calls.yaml", "target"), "destination": ("destinations.yaml", "url")}


def cases(target: str) -> dict[str, bytes]:
    """The kept cases by the name of their file."""
    return {path.name: path.read_bytes() for path in sorted((FOLDER / target).iterdir())}


def seeds(target: str) -> Iterator[bytes]:
    """Every kept case, and the vectors that the target has."""
    yield from cases(target).values()
    for vector in _vectors(target):
        yield vector.encode(errors="replace")


def _vectors(target: str) -> list[str]:
    if target not in _VECTORS:
        return []
    name, member = _VECTORS[target]
    rows: list[dict[str, Any]] = yaml.safe_load((_HERE.parent / "vectors" / name).read_text())
    return [row[member] for row in rows]
