"""What is known here of budgets and short-lived tokens that several instances count together."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from proxy.clock import Clock
from proxy.limits.script import Total

SWEEP_SECONDS: Final = 60.0

RECENT: Final = 10
"""For so many beats after a call it is asked what others have counted."""

STIRRED: Final = 100
"""So many more with each beat, one after the other: what nobody asks for a full Redis evicts."""

MOST: Final = 65_536
"""Of those that callers make as many of as they like."""


@dataclass(slots=True)
class Known:
    """`made`: calls as they were counted together; `apart`: those that were counted here since
    nobody could be asked; `until`: Unix seconds."""

    tenant: str
    until: float
    made: int
    apart: int = 0


class Totals:
    """By the names of their counts, as long as they count."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, Known] = {}
        self._apart: set[str] = set()
        self._recent: deque[set[str]] = deque([set()], maxlen=RECENT)
        self._round: deque[str] = deque()
        self._made: dict[str, float] = {}
        self._sweep_at = 0.0

    def __len__(self) -> int:
        return len(self._known)

    def floor(self, name: str, written: int) -> int:
        """What is counted at least; `written`: by what lasts, with those that were apart."""
        known = self._known.get(name)
        return written if known is None else max(known.made, written - known.apart)

    def knows(self, name: str) -> bool:
        """Whether anything was ever told of it."""
        return name in self._known

    def learn(self, tenant: str, total: Total, made: int) -> None:
        """What was counted together until now."""
        self._of(tenant, total).made = made

    def use(self, name: str) -> None:
        """A call was counted together."""
        self._recent[-1].add(name)

    def has_room(self, name: str, until: float) -> bool:
        """Whether one more that a caller has made can be known until its end."""
        if name in self._made:
            return True
        if len(self._made) >= MOST:
            self._sweep()
        if len(self._made) >= MOST:
            return False
        self._made[name] = until
        return True

    def recent(self) -> Iterator[tuple[str, Total]]:
        """What was used since a few beats, by tenant: others may have gone on; and of the rest some
        whose turn it is."""
        names = set().union(*self._recent)
        self._recent.append(set())
        self._round = self._round or deque(self._known)
        names.update(self._round.popleft() for _ in range(min(STIRRED, len(self._round))))
        now = self._clock.now()
        for name in names:
            known = self._known.get(name)
            if known is not None and known.until > now:
                yield known.tenant, Total(name, 0, known.made, known.until - now)

    def share(self, tenant: str, total: Total, instances: int) -> int:
        """How many more calls may be made here, while nobody knows of the others'."""
        known = self._of(tenant, total)
        known.made = max(known.made, total.floor)
        return max(0, (total.amount - known.made) // instances - known.apart)

    def count_apart(self, name: str, calls: int) -> None:
        """Calls that were made here alone, or given back."""
        known = self._known.get(name)
        if known is not None:
            known.apart += calls
            self._apart.add(name)

    def untold(self, everything: bool) -> Iterator[tuple[str, Total]]:
        """What the others are to be told, by tenant: what was counted apart; `everything`: what was
        counted together too. From then on it counts as told."""
        names, self._apart = set(self._known) if everything else self._apart, set()
        now = self._clock.now()
        for name in names:
            known = self._known.get(name)
            if known is not None and known.until > now:
                made, more = known.made, known.apart
                known.made, known.apart = made + more, 0
                yield known.tenant, Total(name, 0, made, known.until - now, more)

    def untell(self, total: Total) -> None:
        """What could not be told after all."""
        known = self._known.get(total.key)
        if known is not None:
            known.made -= total.more
        self.count_apart(total.key, total.more)

    def _of(self, tenant: str, total: Total) -> Known:
        known = self._known.get(total.key)
        if known is None:
            self._sweep()
            until = self._clock.now() + total.seconds
            known = self._known[total.key] = Known(tenant, until, total.floor)
        return known

    def _sweep(self) -> None:
        now = self._clock.now()
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_SECONDS
            self._known = {name: one for name, one in self._known.items() if one.until > now}
            self._made = {name: ends for name, ends in self._made.items() if ends > now}
