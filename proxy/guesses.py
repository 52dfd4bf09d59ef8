"""Wrong credentials by the address that they come from: above a rate only familiar ones are judged.

What was good before is judged all the same, so that nobody locks others out who share an address.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from ipaddress import IPv6Address
from math import ceil
from typing import Final

from proxy.clock import Clock
from proxy.errors import TooManyGuesses
from proxy.forwarded import address_of
from proxy.limits.grammar import Rate
from proxy.memo import bounded_put

ADDRESSES: Final = 16_384
FAMILIAR: Final = 65_536
"""How many addresses and good credentials are remembered; of these only a hash."""


class Guesses:
    """Counts in windows that begin with the first wrong one. `rate` None: without a bound; of
    several processes each lets a share of it pass, and `processes` tells how many there are."""

    def __init__(
        self, rate: Rate | None, clock: Clock, machines: Callable[[], int] = lambda: 1
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._machines = machines
        self._wrong: dict[str, tuple[float, int]] = {}
        self._familiar: dict[bytes, bool] = {}
        self.tell: Callable[[str, bytes], None] | None = None
        """Who passes on to other processes what `hear` takes there."""

    def __len__(self) -> int:
        return len(self._wrong)

    def become(self, rate: Rate | None) -> None:
        """Another rate, from now on."""
        self._rate = rate

    def check(self, peer: str, credential: bytes) -> None:
        """Raises TooManyGuesses for one that was never good, from where too many were wrong."""
        if self._rate is None or not self._wrong:
            return
        ends, wrong = self._wrong.get(_source(peer), (0.0, 0))
        left = ends - self._clock.monotonic()
        passes = wrong * max(1, self._machines()) < self._rate.amount
        if passes or left <= 0 or _hashed(credential) in self._familiar:
            return
        wait = max(1, ceil(left))
        raise TooManyGuesses(
            f"Too many wrong tokens came from this address; try again in {wait} seconds, "
            "with a token that is good.",
            retry_after=wait,
        )

    def right(self, credential: bytes) -> None:
        """One was good."""
        if self._rate is not None:
            hashed = _hashed(credential)
            if hashed not in self._familiar:
                self._note("", hashed)

    def wrong(self, peer: str, credential: bytes) -> None:
        """One was not; an address that nobody knows is not counted."""
        if self._rate is None or not peer:
            return
        self._note(_source(peer), _hashed(credential))

    def _note(self, source: str, hashed: bytes) -> None:
        self.hear(source, hashed)
        if self.tell is not None:
            self.tell(source, hashed)

    def hear(self, source: str, hashed: bytes) -> None:
        """A wrong one, from somewhere; or from nowhere, a good one."""
        if self._rate is None:
            return
        if not source:
            bounded_put(self._familiar, hashed, True, FAMILIAR)
            return
        self._familiar.pop(hashed, None)
        now = self._clock.monotonic()
        ends, wrong = self._wrong.get(source, (0.0, 0))
        if ends <= now:
            ends, wrong = now + self._rate.seconds, 0
            self._wrong.pop(source, None)  # to stand behind those whose window ends before
        if source in self._wrong:
            self._wrong[source] = (ends, wrong + 1)
        else:
            bounded_put(self._wrong, source, (ends, wrong + 1), ADDRESSES)


def _hashed(credential: bytes) -> bytes:
    return blake2b(credential, digest_size=16).digest()


def _source(peer: str) -> str:
    """An address of IPv6 counts with its network: one caller has all of a /64."""
    address = address_of(peer)
    if isinstance(address, IPv6Address):
        return f"{int(address) >> 64:x}/64"
    return str(address or peer)
