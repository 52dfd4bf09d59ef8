"""What calls showed of one place of a service, and what follows for its state."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal

State = Literal["unknown", "healthy", "unhealthy", "key_refused"]

IN_A_ROW = 3
"""Failures without a success between them that make a place unhealthy: one condemns nobody."""

_WEIGHT = 0.2
"""How much the newest call changes the average latency."""


class Tally:
    """One place, as one tenant met it. Times in Unix seconds, latency in seconds until the header.

    `calls` are those of callers, `errors` of them failures and refused keys, `probes` our own.
    `failures` and `refusals`: in a row. `trouble`: the last one, as our code or a status.
    """

    __slots__ = (
        "answered",
        "average",
        "calls",
        "checked",
        "errors",
        "failures",
        "host",
        "latency",
        "probes",
        "refusals",
        "trouble",
    )

    def __init__(self, host: str) -> None:
        self.host = host
        self.calls = self.errors = self.probes = 0
        self.failures = self.refusals = 0
        self.checked = 0.0
        self.answered = False
        self.latency: float | None = None
        self.average: float | None = None
        self.trouble = ""

    @property
    def state(self) -> State:
        """What the calls in a row say; a single failure says nothing yet."""
        if self.failures >= IN_A_ROW:
            return "unhealthy"
        if self.refusals >= IN_A_ROW:
            return "key_refused"
        return "healthy" if self.answered else "unknown"

    def succeed(self) -> None:
        """A good answer: all before it is forgiven."""
        self.failures = self.refusals = 0
        self.answered = True

    def fail(self, trouble: str) -> None:
        """No answer, a broken one, or one that blames the place itself."""
        self.failures += 1
        self.trouble = trouble

    def refuse(self, trouble: str) -> None:
        """The place does not take the key that we hold."""
        self.refusals += 1
        self.trouble = trouble

    def took(self, seconds: float) -> None:
        """How long the header of an answer was waited for."""
        self.latency = seconds
        if self.average is None:
            self.average = seconds
        else:
            self.average += _WEIGHT * (seconds - self.average)


_SERIOUS: tuple[State, ...] = ("unhealthy", "key_refused", "healthy", "unknown")
"""States, the one that decides over others first."""


def worst(tallies: Iterable[Tally]) -> State:
    """The state of several places together."""
    return worst_of({tally.state for tally in tallies})


def worst_of(states: Collection[State]) -> State:
    """The state that decides; nothing is known of nothing."""
    return next((state for state in _SERIOUS if state in states), "unknown")
