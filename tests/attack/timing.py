"""Does the time of a refusal tell anything of tokens?

Each round asks three times, one after the other and in random order: twice with a text of one kind,
once with one of the other: an id that nobody has, and one that somebody has; or a secret that is
wrong from its first octet on, and one that is right for most of its length. What is told: the
middle time of a refusal; the effect, which is the mean of the middle half of the differences, so
that a busy moment moves it little; and |t|, by how far parts of the run disagree about it.

The two of one kind are the control: what they differ by is the machine. Found is an effect that is
larger than BOUND, and SURE times as large as the control's and as the disagreement; of a short run
nothing is judged.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from math import sqrt
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Final, NamedTuple

from tests.attack.outcome import Outcome
from vault import NewToken, Vault, open_vault
from vault.tokens import checked, mint

PAIRS: Final = 100_000
JUDGED: Final = 5_000
"""From so many pairs on an effect is judged: in fewer a busy moment weighs too much."""

BOUND: Final = 2.0
"""Microseconds: far less than what a network adds by chance to each answer."""

SURE: Final = 5.0
PARTS: Final = 40
"""Into so many a run is cut, one behind the other, to see whether they agree."""

FIRST: Final = 16
LATE: Final = 40
"""Where a token's secret begins, and a place near its end."""

DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
Round = tuple[bytes, bytes, bytes]
"""One kind, the other, and the one again."""

Rounds = Callable[[str], Iterator[Round]]


class Effect(NamedTuple):
    """How much longer one kind takes than the other, and how sure that is; in microseconds."""

    size: float
    error: float

    @classmethod
    def of(cls, differences: Sequence[float]) -> Effect:
        """Of the differences in the order in which they came."""
        length = max(2, len(differences) // PARTS)
        starts = range(0, len(differences) - length + 1, length)
        parts = [_middle(differences[start : start + length]) for start in starts]
        return cls(_middle(differences), stdev(parts) / sqrt(len(parts)))

    @property
    def t(self) -> float:
        """Student's, without its sign."""
        return abs(self.size / self.error) if self.error else 0.0


class Timing(NamedTuple):
    """What came of one attack; `middle` in microseconds. `answers`: every different one of them."""

    pairs: int
    middle: float
    effect: Effect
    control: Effect
    answers: frozenset[object]

    @property
    def seen_from(self) -> float:
        """The least effect that would be found."""
        noise = max(self.effect.error, self.control.error, abs(self.control.size))
        return max(BOUND, SURE * noise)

    @property
    def faults(self) -> tuple[str, ...]:
        """In words."""
        told = []
        if self.answers - {None}:
            told.append("an answer differs")
        if self.pairs >= JUDGED and abs(self.effect.size) > self.seen_from:
            told.append(f"one takes {self.effect.size:+.1f} us longer than the other")
        return tuple(told)

    def outcome(self, name: str) -> Outcome:
        """A row of the table."""
        figures = (
            f"{self.middle:.1f} us; effect {self.effect.size:+.3f} us, |t| {self.effect.t:.2f}",
            f"control {self.control.size:+.3f} us",
            f"found from {self.seen_from:.1f} us on" if self.pairs >= JUDGED else "not judged",
        )
        told, faults = "; ".join(figures), self.faults
        return Outcome(f"refusals in time: {name}", self.pairs, "pairs", len(faults), told, faults)


class Now:
    """The machine's time."""

    def now(self) -> float:
        """Unix seconds."""
        return time.time()


def unknown_or_known(good: str) -> Iterator[Round]:
    """A new id, and the one that somebody has; never the same secret twice."""
    while True:
        other, more = mint().text, mint().text
        yield other.encode(), checked((good[:FIRST] + other[FIRST:-6]).encode()), more.encode()


def again(good: str) -> Iterator[Round]:
    """The same texts each time: they are refused from memory."""
    texts = next(unknown_or_known(good))
    while True:
        yield texts


def early_or_late(good: str) -> Iterator[Round]:
    """Wrong from the first octet of the secret on, or from a late one; never the same text."""
    while True:
        yield _wrong_from(good, FIRST), _wrong_from(good, LATE), _wrong_from(good, FIRST)


def _wrong_from(good: str, place: int) -> bytes:
    wrong = random.choice(DIGITS.replace(good[place], ""))
    rest = "".join(random.choices(DIGITS, k=len(good) - 7 - place))
    return checked((good[:place] + wrong + rest).encode())


ATTACKS: Final[dict[str, Rounds]] = {
    "unknown id / known id, wrong secret": unknown_or_known,
    "the same two again": again,
    "wrong from the first / a late octet on": early_or_late,
}


async def measure(vault: Vault, rounds: Iterator[Round], number: int) -> Timing:
    """So many rounds."""
    times: list[list[float]] = []
    answers: set[object] = set()
    for texts in (next(rounds) for _ in range(number)):
        found = [0.0, 0.0, 0.0]
        for place in random.sample((0, 1, 2), 3):
            began = time.perf_counter_ns()
            answers.add(await vault.verify_token(texts[place]))
            found[place] = (time.perf_counter_ns() - began) / 1000
        times.append(found)
    effect = Effect.of([one - other for one, other, _ in times])
    control = Effect.of([one - same for one, _, same in times])
    middle = median(one for found in times for one in found)
    return Timing(number, middle, effect, control, frozenset(answers))


def _middle(differences: Sequence[float]) -> float:
    """The mean without the quarter at each end: there the machine was busy with something else."""
    cut = len(differences) // 4
    return fmean(sorted(differences)[cut : len(differences) - cut])


@asynccontextmanager
async def _a_vault(tokens: int) -> AsyncIterator[tuple[Vault, str]]:
    """With so many tokens, and the text of one that is in memory."""
    with tempfile.TemporaryDirectory() as folder:
        vault = await open_vault(Path(folder) / "data", {}, Now(), create=True)
        try:
            for number in range(tokens - 1):
                await vault.issue_token(NewToken("default", f"other-{number}"))
            _, good = await vault.issue_token(NewToken("default", "ada"))
            assert await vault.verify_token(good.encode()) is not None
            yield vault, good
        finally:
            await vault.close()


async def run(pairs: int = PAIRS) -> AsyncIterator[tuple[str, Timing]]:
    """Every attack in turn."""
    async with _a_vault(min(pairs, 100)) as (vault, good):
        for name, attack in ATTACKS.items():
            yield name, await measure(vault, attack(good), pairs)


async def outcomes(pairs: int = PAIRS) -> AsyncIterator[Outcome]:
    """A row for each."""
    async for name, one in run(pairs):
        yield one.outcome(name)
