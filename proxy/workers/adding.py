"""Adds trees of numbers up: what several processes counted, whatever it is that they count."""

from __future__ import annotations

from typing import Any


def added(one: Any, other: Any) -> Any:
    """The sum, member by member; what only one has stands for itself."""
    if isinstance(one, dict):
        return {
            **one,
            **{key: added(one[key], it) if key in one else it for key, it in other.items()},
        }
    if isinstance(one, list | tuple):
        return [added(here, there) for here, there in zip(one, other, strict=True)]
    return one + other


def newest(one: Any, other: Any) -> Any:
    """The larger, member by member."""
    if isinstance(one, dict):
        return {
            **one,
            **{key: newest(one[key], it) if key in one else it for key, it in other.items()},
        }
    return max(one, other)
