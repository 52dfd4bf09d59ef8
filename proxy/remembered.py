"""Grants by the header of the call: an equal header means the same, until something changes."""

from __future__ import annotations

from collections.abc import Callable

from proxy.call import Call
from proxy.clock import Clock
from proxy.grant import Client, Grant
from proxy.memo import Memo

CALLS = 4096
"""How many headers are remembered; only their hashes are, so that no credential lies here."""


class RememberedGrants:
    """`basis`: the generation of the vault and the registry of services."""

    def __init__(self, clock: Clock, basis: Callable[[], object]) -> None:
        self._clock = clock
        self._kept: Memo[bytes, tuple[Grant, float]] = Memo(CALLS, basis)

    def grant(self, call: Call) -> Grant | None:
        """The grant that an equal header got, while its credential is good."""
        kept = self._kept.get(call.head)
        if kept is None or self._clock.now() >= kept[1]:
            return None
        return kept[0]

    def basis(self) -> object:
        """To be read before a caller is authenticated."""
        return self._kept.basis()

    def keep(self, call: Call, client: Client, grant: Grant, basis: object) -> None:
        """Remembers a grant, unless what it was made from has changed meanwhile."""
        if call.head:
            self._kept.put(call.head, (grant, client.good_until), basis)
