"""What may be told of an unexpected error: kinds and places, never a text or a value."""

from __future__ import annotations

import traceback


def lineage(error: BaseException | None) -> str:
    """What led to an error, by its causes' names: their texts may hold an upstream's octets."""
    names: list[str] = []
    while error is not None and len(names) < 8:
        names.append(type(error).__name__)
        error = error.__cause__ or error.__context__
    return " from ".join(names) or "nothing"


def frames(error: BaseException) -> str:
    """Where an error and its causes came from: files, lines and functions, without any value."""
    places: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(places) < 8:
        found = traceback.extract_tb(cause.__traceback__)
        places.append(" < ".join(f"{one.filename}:{one.lineno} {one.name}" for one in found[::-1]))
        cause = cause.__cause__ or cause.__context__
    return " from ".join(places)
