"""What is written of calls and asked for later, and what is asked of whoever keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from proxy.usage.sums import Sums

Part = Literal["tenant", "token", "service", "day", "hour", "minute"]
"""By what sums can be told apart; `minute` those of single calls only."""

Order = Literal["newest", "slowest", "costliest"]

DAY = 86_400
HOUR = 3_600
MINUTE = 60


class UsageError(Exception):
    """Usage can't be read or written now; the message is one safe sentence."""


class UsageTooNew(UsageError):
    """The file was written by a newer release; the message names the remedy."""


class CallRow(NamedTuple):
    """One call as it is kept: names, numbers and times, nothing that was sent or answered.

    The first members are those of CallRecord; `successful`, `went` (to the upstream), `hit` and
    `joined` are 0 or 1. `cost`: what the provider takes for it; `saved`: what it would have taken;
    None: no price. `bucket`: of its duration. The model's name is not among them: it stands in a
    body, where anything may stand.
    """

    call: str
    began: float
    tenant: str
    token: str
    token_id: str
    service: str
    host: str
    method: str
    status: int
    code: str
    verdict: str
    cut: int
    received: int
    sent: int
    seconds: float
    waited: float
    upstream_seconds: float | None
    successful: int
    went: int
    hit: int
    joined: int
    tokens_input: int
    tokens_output: int
    tokens_cached: int
    cost: float | None
    saved: float | None
    bucket: int


class Trouble(NamedTuple):
    """Calls that went wrong alike. `newest`: when the last one began, in Unix seconds."""

    service: str
    status: int
    code: str
    calls: int
    newest: float


@dataclass(frozen=True, slots=True)
class Which:
    """Which calls are meant: those that began from `since` up to before `until` (Unix seconds), of
    a tenant, a service and a token (by its id, or `token`: by either id or name); None: of all.

    Sums know whole hours (UTC): those in which the times lie count as a whole.
    """

    since: float
    until: float
    tenant: str | None = None
    service: str | None = None
    token: str | None = None
    token_id: str | None = None


@dataclass(frozen=True, slots=True)
class Keep:
    """What may go: single calls that began before `calls` (Unix seconds), and all but the newest
    `most_calls`; the sums of hours and of days that began before `hours` and `days`."""

    calls: float
    most_calls: int
    hours: float
    days: float


class UsageStore(Protocol):
    """Keeps calls and their sums. Its methods block; `write` and `sweep` come from one thread.

    All raise UsageError.
    """

    def open(self) -> None:
        """Makes or opens what is written to; raises UsageTooNew."""
        ...

    def write(self, rows: Sequence[CallRow]) -> None:
        """Keeps calls and adds them to the sums: all of them, or none.

        After a UsageError the same rows come again, by themselves and before all others: it may be
        that they were written and nobody could say so. They are not counted twice.
        """
        ...

    def sweep(self, keep: Keep) -> None:
        """Forgets what is too old, or too much."""
        ...

    def close(self) -> None:
        """Lets go of what was opened."""
        ...

    def sums(self, which: Which, *groupings: Sequence[Part]) -> list[list[Sums]]:
        """The calls that are meant, for each grouping by what tells them apart there, in its order;
        all of one moment. A grouping by nothing is one sum, or none where there are no calls. By
        `token` a group also has its `token_id`; `day` and `hour` are Unix seconds."""
        ...

    def calls(self, which: Which, order: Order, limit: int) -> list[CallRow]:
        """Some of the single calls that are still kept."""
        ...

    def minutes(self, which: Which, *groupings: Sequence[Part]) -> list[list[Sums]]:
        """As `sums`, but of single calls that are still kept, to the second; also by `minute`."""
        ...

    def troubles(self, which: Which, limit: int) -> list[Trouble]:
        """What went wrong among the single calls that are still kept, the most frequent first."""
        ...
