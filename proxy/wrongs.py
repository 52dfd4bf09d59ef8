"""Every place that judges a credential has the wrong ones counted by the address they come from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from proxy.errors import Unauthorized


class Wrongs(Protocol):
    """What is asked of whoever bounds wrong credentials by address."""

    def check(self, peer: str, credential: bytes) -> None:
        """Raises TooManyGuesses."""
        ...

    def right(self, credential: bytes) -> None:
        """One was good."""
        ...

    def wrong(self, peer: str, credential: bytes) -> None:
        """One was not."""
        ...


class Unbounded:
    """Every address may try as often as it likes."""

    def check(self, peer: str, credential: bytes) -> None:
        """Never too many."""

    def right(self, credential: bytes) -> None:
        """Noted by nobody."""

    def wrong(self, peer: str, credential: bytes) -> None:
        """Noted by nobody."""


UNBOUNDED: Final = Unbounded()


@contextmanager
def judged(wrongs: Wrongs, peer: str, credential: bytes) -> Iterator[None]:
    """Around the judging of one: raises TooManyGuesses instead where too many were wrong before.
    Who shows nothing guesses nothing."""
    if not credential:
        yield
        return
    wrongs.check(peer, credential)
    try:
        yield
    except Unauthorized:
        wrongs.wrong(peer, credential)
        raise
    wrongs.right(credential)
