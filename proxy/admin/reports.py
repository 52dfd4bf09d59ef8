"""What an admin is told of the tenant's calls: their usage, and how services fare."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol

from proxy.admin.acts import READING, check_role
from proxy.admin.usage_page import USUAL_DAYS, Asked, Told, report
from proxy.clock import Clock
from proxy.errors import NotFound, Unacceptable, Unavailable
from proxy.health.watch import Standing
from proxy.usage import UsageError
from vault import Token


class Watched(Protocol):
    """What is asked of health."""

    async def standings(self, token: Token) -> list[Standing]:
        """Every service that the token may ask about; raises Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Reports:
    """`usage` None: nothing is counted here."""

    usage: Told | None
    health: Watched
    clock: Clock

    async def used(
        self, who: Token, since: date | None, until: date | None, service: str | None
    ) -> dict[str, Any]:
        """The tenant's calls from one day to another, both in it; see docs/usage.md."""
        check_role(who, READING)
        if self.usage is None:
            raise NotFound("Calls are not counted here: usage.enabled is false.")
        last = until or datetime.fromtimestamp(self.clock.now(), UTC).date()
        first = since or last - timedelta(days=USUAL_DAYS - 1)
        if first > last:
            raise Unacceptable("Name a day in from that is not behind the one in to.")
        asked = Asked("tenant", first, last + timedelta(days=1), service)
        try:
            return await report(self.usage, who, asked)
        except UsageError as error:
            raise Unavailable("Usage can't be read now; try again.", retry_after=5) from error

    async def standings(self, who: Token) -> list[Standing]:
        """How the tenant's services fare."""
        check_role(who, READING)
        return await self.health.standings(who)
