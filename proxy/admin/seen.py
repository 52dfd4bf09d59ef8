"""Who notes something of calls for people, and what workers of one server tell each other of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from proxy.admin.lastuse import LastUse
from proxy.admin.live import LiveCalls
from proxy.admin.session import Sessions
from proxy.guesses import Guesses
from proxy.health.probing import Rounds
from proxy.health.watch import Health
from proxy.record import Observer
from proxy.trail import Trail
from proxy.workers.companion import Companion
from proxy.workers.passing import PassedCalls, SharedSessions


@dataclass(frozen=True, slots=True)
class Seen:
    """Who notes something of calls for people: for their page, in memory; for the audit log."""

    live: LiveCalls
    last_use: LastUse
    trail: Trail
    health: Health
    passed: PassedCalls | None

    @classmethod
    def of(cls, trail: Trail, health: Health, companion: Companion | None) -> Seen:
        """Workers see what calls at the others show."""
        live, last_use = LiveCalls(), LastUse()
        heard = live.observe, last_use.observe, health.observe
        passed = None if companion is None else PassedCalls(companion, heard)
        return cls(live, last_use, trail, health, passed)

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Those that fill it."""
        passed = () if self.passed is None else (self.passed.observe,)
        own = self.live.observe, self.last_use.observe, self.trail.observe, self.health.observe
        return *own, *passed


def share(
    companion: Companion | None, sessions: Sessions, guesses: Guesses, rounds: Rounds
) -> None:
    """What a worker of several tells the others, and hears of them."""
    if companion is None:
        return
    if not sessions.are_shared:
        sessions.share(SharedSessions(companion))
    guesses.tell = partial(companion.tell, "pass", "guess")
    companion.on("guess", guesses.hear)
    rounds.tell = partial(companion.tell, "pass", "probed")
    companion.on("probed", rounds.hear)
