"""Which stored answers are over before their time: purged, or replaced by one not written."""

from __future__ import annotations

from proxy.cache.entry import Entry
from proxy.grant import Grant
from vault import Purge

REMEMBERED = 4096
"""Unwritten answers that are remembered; beyond it the longest known are forgotten."""


class Purges:
    """The newest purge of each reach; `None` reaches every tenant or service."""

    def __init__(self) -> None:
        self._at: dict[tuple[str | None, str | None], float] = {}

    def add(self, purge: Purge) -> bool:
        """Takes a purge; whether it says anything new."""
        if self.know(purge):
            return False
        self._at[purge.tenant, purge.service] = purge.at
        return True

    def know(self, purge: Purge) -> bool:
        """Whether a purge, or a later one of its reach, was taken before."""
        return purge.at <= self._at.get((purge.tenant, purge.service), float("-inf"))

    def take(self) -> tuple[Purge, ...]:
        """All of them, and forgets them."""
        taken = tuple(Purge(at, *reach) for reach, at in self._at.items())
        self._at.clear()
        return taken

    def cover(self, tenant: str, service: str, requested_at: float) -> bool:
        """Whether an answer that was requested then is over."""
        return requested_at <= self._newest(tenant, service)

    def end(self, tenant: str, service: str, requested_at: float, now: float) -> bool:
        """Whether a stored answer has to go: it is over, or one of those reaches it, and a clock
        that ran ahead says that it is still to come."""
        newest = self._newest(tenant, service)
        return newest > float("-inf") and not newest < requested_at <= now

    def newest_of(self, grant: Grant) -> float:
        """When what is kept for such calls was last purged."""
        return self._newest(grant.tenant, grant.service.name if grant.service else "")

    def _newest(self, tenant: str, service: str) -> float:
        reaches = ((None, None), (tenant, None), (None, service), (tenant, service))
        return max(self._at.get(reach, float("-inf")) for reach in reaches)


class Unwritten:
    """Answers that came but could not be written: what the store holds of their keys is older."""

    def __init__(self) -> None:
        self._at: dict[bytes, float] = {}

    def add(self, entry: Entry) -> None:
        """Remembers when the answer was requested."""
        self.forget(entry)
        self._at[entry.key] = entry.requested_at
        if len(self._at) > REMEMBERED:
            del self._at[next(iter(self._at))]

    def forget(self, entry: Entry) -> None:
        """A later answer of the key has been written."""
        self._at.pop(entry.key, None)

    def outdate(self, entry: Entry) -> bool:
        """Whether a stored answer was to be replaced."""
        return entry.requested_at <= self._at.get(entry.key, float("-inf"))
