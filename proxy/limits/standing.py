"""How a call's limits stand, as lines of a header and as refusals. Pure.

`RateLimit` and `RateLimit-Policy` are those of draft-ietf-httpapi-ratelimit-headers-11, one member
for each window; the three `X-RateLimit` fields tell of the window with the least left. Where there
never is room again, neither says when.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from math import ceil, inf
from typing import Final, NamedTuple

from proxy.errors import BudgetSpent, CallsSpent, TooManyRequests, Unavailable
from proxy.limits.rules import Budget, Plan, Window
from proxy.problems import MAX_RETRY_AFTER


class Standing(NamedTuple):
    """One limit as it stands: calls in all and left, seconds until there is room for more; `inf`:
    there never is."""

    policy: str
    quota: int
    left: int
    seconds: float


_LINES: Final = b"""\
ratelimit-policy: %b\r
ratelimit: %b\r
x-ratelimit-limit: %d\r
x-ratelimit-remaining: %d\r
"""
_RESET: Final = b"x-ratelimit-reset: %d\r\n"


def lines(plan: Plan, standings: Sequence[Standing], now: float) -> bytes:
    """What an answer's header says about the limits of its call; `now` in Unix seconds.

    Numbers and our own names alone: nothing in them brings lines of its own.
    """
    states = [f'"{policy}";r={left}{_until(s)}' for policy, _, left, s in standings]
    tightest = standings[0]
    for one in standings:
        if (one.left, -one.seconds) < (tightest.left, -tightest.seconds):
            tightest = one
    told = ", ".join(states).encode()
    found = _LINES % (plan.policies, told, tightest.quota, tightest.left)
    return found if tightest.seconds == inf else found + _RESET % ceil(now + tightest.seconds)


def _until(seconds: float) -> str:
    return "" if seconds == inf else f";t={ceil(seconds) or 1}"


def whole(seconds: float) -> int:
    """Seconds to wait, a second at least."""
    return max(1, ceil(seconds))


def too_many(window: Window, seconds: float) -> TooManyRequests:
    """The refusal of a call for which a window has no room."""
    wait = whole(seconds)
    unit = "second" if wait == 1 else "seconds"
    rule = window.rule[:1].upper() + window.rule[1:]
    # Where nobody waits so long, a client that tries again at once only asks twice.
    hopeless = ((b"x-should-retry", b"false"),) if wait > MAX_RETRY_AFTER else ()
    return TooManyRequests(
        f"{rule}; try again in {wait} {unit}.", fields=hopeless, retry_after=wait
    )


def spent(budget: Budget, seconds: float, now: float) -> BudgetSpent | CallsSpent:
    """The refusal of a call that would be above the budget; `seconds` until the next month."""
    if budget.ever:
        return CallsSpent(
            f"This platform token has made all calls that it may, {budget.calls} in all; the admin "
            "can allow more with: keyrelay token set NAME --calls N"
        )
    begins = datetime.fromtimestamp(now + seconds, UTC).strftime("%Y-%m-%d")
    return BudgetSpent(
        f"The budget of {budget.calls} upstream calls a month is spent; the next begins on "
        f"{begins} (UTC); the admin can raise it with: keyrelay token set NAME --budget N",
        retry_after=whole(seconds),
    )


def all_made(calls: int) -> CallsSpent:
    """The refusal of a call of a short-lived token that has made all it may."""
    return CallsSpent(
        f"The {calls} calls of this short-lived token are made; get another one with: POST /tokens"
    )


def too_many_tokens() -> Unavailable:
    """The refusal of one whose calls there is no room to count."""
    return Unavailable(
        "Too many short-lived tokens with a number of calls are in use; try again later.",
        retry_after=30,
    )
