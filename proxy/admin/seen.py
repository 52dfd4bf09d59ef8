"""Who notes something of calls for people, and what workers of one server tell each other of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Protocol

from proxy.admin.lastuse import LastUse
from proxy.admin.live import LiveCalls
from proxy.admin.session import Sessions
from proxy.admin.spread import SpreadSessions
from proxy.clock import Clock
from proxy.engine import Engine
from proxy.guesses import Guesses
from proxy.health.probing import Rounds
from proxy.health.watch import Health
from proxy.record import Observer
from proxy.trail import Trail
from proxy.workers.companion import Companion
from proxy.workers.passing import PassedCalls, SharedSessions
from vault import Vault


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


class Around(Protocol):
    """Where one of several may meet the others."""

    @property
    def clock(self) -> Clock:
        """Tells time."""
        ...

    @property
    def engine(self) -> Engine | None:
        """The Redis of all instances."""
        ...

    @property
    def companion(self) -> Companion | None:
        """The way to the other workers."""
        ...


async def share(
    around: Around, vault: Vault, sessions: Sessions, guesses: Guesses, rounds: Rounds
) -> None:
    """What one tells the others, and hears of them: who is signed in, at every instance or else at
    every worker; the rest at workers alone."""
    companion = around.companion
    if around.engine is not None:
        sealer = await vault.sealer("sessions")
        sessions.share(SpreadSessions(around.engine, sealer, around.clock))
    elif companion is not None:
        sessions.share(SharedSessions(companion))
    if companion is None:
        return
    guesses.tell = partial(companion.tell, "pass", "guess")
    companion.on("guess", guesses.hear)
    rounds.tell = partial(companion.tell, "pass", "probed")
    companion.on("probed", rounds.hear)
