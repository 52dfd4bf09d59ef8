"""A secret value that does not show itself."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Final

_SHOWN: Final = 4
_LONG_ENOUGH_TO_SHOW: Final = 16


class Secret:
    """Octets that print as `Secret(…)`, don't pickle, and come out by `reveal` only."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The octets themselves. Called where a key is written into a request, nowhere else."""
        return self._value

    def masked(self) -> str:
        """What a list may show: the last four characters of a long secret, else only dots."""
        if len(self._value) < _LONG_ENOUGH_TO_SHOW:
            return "…"
        return "…" + self._value[-_SHOWN:].decode("ascii", "replace")

    def __repr__(self) -> str:
        return "Secret(…)"

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a Secret can't be pickled or copied")


Credential = Mapping[str, Secret]
"""A provider key by its parts: mostly only `key`; `username` and `password`; `key` and `secret`."""


def octets_of(secret: Secret) -> bytes:
    """The octets, for sealing and fingerprints inside the vault; not a name of its front door."""
    return secret._value
