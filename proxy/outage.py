"""How long the vault's database can't be read, and how long what was seen is served meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from proxy.clock import Clock

_log = logging.getLogger("keyrelay.vault")


class Gap(NamedTuple):
    """How it stands. `seconds`: since the database is not read, 0: it is; `left`: seconds for which
    callers and keys that were seen before go on, None: nothing bounds them now."""

    seconds: float = 0.0
    left: float | None = None


class Outage:
    """Watches the look-ups for changes: while none succeeds, a revocation can't be seen either.

    `longest`: seconds for which that is borne; then `lapse` ends what was seen. Whoever looks says
    `begin` before and `end` or `fail` after; one that never comes back counts as failed too.
    """

    def __init__(self, clock: Clock, longest: float, lapse: Callable[[], None]) -> None:
        self._clock = clock
        self._longest = longest
        self._lapse = lapse
        self._since: float | None = None
        self._failing = False
        self._overdue: float | None = None
        self._lapsed = False
        self._lagging = False

    def become(self, longest: float) -> None:
        """Another bound, from now on."""
        self._longest = longest

    def begin(self) -> None:
        """Somebody looks."""
        if self._since is None:
            self._since = self._clock.monotonic()

    def end(self) -> None:
        """The database was read."""
        if self._failing or self._lapsed:
            _log.warning("the vault is read again, after %.1f s", self.gap().seconds)
        self._since = self._overdue = None
        self._failing = self._lapsed = False

    def fail(self, why: Exception) -> None:
        """It could not be read."""
        if not self._failing:
            self._failing = True
            _log.error(
                "the vault can't be read; who and what was seen is served for %g s more, and a"
                " revocation not heard of: %s",
                self.gap().left or 0,
                why,
            )

    def lag(self, why: str) -> None:
        """A change stands that the anchor does not know of: why, or nothing once it does."""
        if why and not self._lagging:
            _log.error("changes are made, but %s", why)
        elif self._lagging and not why:
            _log.warning("the anchor knows of every change again")
        self._lagging = bool(why)

    def gap(self) -> Gap:
        """How it stands now."""
        if self._since is None:
            return Gap()
        seconds = self._clock.monotonic() - self._since
        if not (self._failing or self._lapsed):  # under way; slow only where it takes its time
            return Gap(seconds if seconds >= 1 else 0.0)
        return Gap(seconds, 0.0 if self._lapsed else max(0.0, self._longest - seconds))

    async def look(self) -> None:
        """Ends what was seen, once it is time; to be asked again and again.

        The second time that the same look-up is found late: a clock or an event loop that stood
        still is no outage.
        """
        since = self._since
        if since is None or self._lapsed or self._clock.monotonic() - since < self._longest:
            self._overdue = None
        elif self._overdue != since:
            self._overdue = since
        else:
            self._lapsed = True
            self._lapse()
            _log.error("the vault could not be read for too long: nothing is served until it is")
