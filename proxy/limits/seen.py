"""Windows as another counter told of them last, by its clock."""

from __future__ import annotations

from proxy.clock import Clock
from proxy.limits.counters import Sliding, State
from proxy.limits.limiter import SWEEP_SECONDS, States
from proxy.limits.rules import Window
from proxy.limits.script import Answer, Question


class Told:
    """A moving window of which only the number of its calls is known, and when the one was made
    that has to leave before there is room for more."""

    __slots__ = ("_count", "_first", "_heard", "_seconds")

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self._count = 0
        self._first = self._heard = 0.0

    def learn(self, now: float, count: int, first: int) -> None:
        """What was counted until then; `first` in microseconds."""
        self._heard, self._count, self._first = now, count, first / 1e6

    def state(self, amount: int, now: float) -> State:
        """How it stands, as far as that is known."""
        waits = self._first + self._seconds - now
        if not self._count or now >= self._heard + self._seconds:
            return State(amount, self._seconds)
        if waits <= 0:
            return State(max(1, min(amount, amount - self._count + 1)), self._seconds)
        return State(max(0, amount - self._count), waits)

    def is_over(self, now: float) -> bool:
        """Whether every call has left."""
        return now >= self._heard + self._seconds


class Seen:
    """What was told of each window."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told: dict[str, Sliding | Told] = {}
        self._ahead: float | None = None
        self._sweep_at = 0.0

    def tell_time(self, now: float) -> None:
        """It is so late by the other's clock."""
        self._ahead = now - self._clock.monotonic()

    def until(self, seconds: float) -> float:
        """The other's time so many seconds from now; 0: nobody has told it yet."""
        return 0 if self._ahead is None else self._clock.monotonic() + self._ahead + seconds

    def learn(self, question: Question, answer: Answer) -> None:
        """Takes an answer in; answers come in their order."""
        now = answer.now
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_SECONDS
            self._told = {name: one for name, one in self._told.items() if not one.is_over(now)}
        for name, window, pair in zip(question.keys, question.windows, answer.windows, strict=True):
            told = self._told.get(name)
            if told is None:
                told = self._told[name] = _made(question.kind, window.seconds)
            told.learn(now, *pair)

    def look(self, names: tuple[str, ...], windows: tuple[Window, ...]) -> States:
        """How windows stand that have these names."""
        now = self.until(0)
        states = []
        for name, window in zip(names, windows, strict=True):
            told = self._told.get(name)
            unknown = State(window.amount, window.seconds)
            states.append(unknown if told is None else told.state(window.amount, now))
        return tuple(states)


def refused(question: Question, answer: Answer) -> States:
    """How the windows stood of one that was refused: one of them has no room at least."""
    states = []
    for window, pair in zip(question.windows, answer.windows, strict=True):
        told = _made(question.kind, window.seconds)
        told.learn(answer.now, *pair)
        states.append(told.state(window.amount, answer.now))
    tightest = min(range(len(states)), key=lambda at: states[at].left)
    states[tightest] = states[tightest]._replace(left=0)  # who said no has rounded another way
    return tuple(states)


def _made(kind: str, seconds: int) -> Sliding | Told:
    return Sliding(seconds) if kind == "sliding" else Told(seconds)
