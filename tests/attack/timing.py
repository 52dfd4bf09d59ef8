"""Does the time of a refusal tell anything of tokens?

Each pair asks twice, one after the other and in random order: with an id that nobody has and with
one that somebody has; or with a secret that is wrong in its first and in its last octet. What is
told: the middle time of a refusal, the effect (the mean of the differences), and |t|.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from math import sqrt
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Final, NamedTuple

from tests.attack.outcome import Outcome
from vault import NewToken, Vault, open_vault
from vault.tokens import checked, mint

PAIRS: Final = 100_000
DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
Pairs = Callable[[str], Iterator[tuple[bytes, bytes]]]


class Timing(NamedTuple):
    """What came of one attack; times in microseconds. `answers`: every different one of them."""

    pairs: int
    middle: float
    effect: float
    t: float
    answers: frozenset[object]


class Now:
    """The machine's time."""

    def now(self) -> float:
        """Unix seconds."""
        return time.time()


def unknown_or_known(good: str) -> Iterator[tuple[bytes, bytes]]:
    """A new id, and the one that somebody has; never the same secret twice."""
    while True:
        other = mint().text
        yield other.encode(), checked((good[:16] + other[16:-6]).encode())


def again(good: str) -> Iterator[tuple[bytes, bytes]]:
    """The same two texts each time: they are refused from memory."""
    pair = next(unknown_or_known(good))
    while True:
        yield pair


def first_or_last(good: str) -> Iterator[tuple[bytes, bytes]]:
    """Wrong in the first octet of the secret, or in the last."""
    for number in count():
        wrong = DIGITS[number % 62]
        first = good[:16] + wrong + good[17:-6]
        last = good[:-7] + wrong
        if good[:-6] not in (first, last):
            yield checked(first.encode()), checked(last.encode())


ATTACKS: Final[dict[str, Pairs]] = {
    "unknown id / known id, wrong secret": unknown_or_known,
    "the same two again": again,
    "wrong in the first / last octet": first_or_last,
}


async def measure(vault: Vault, pairs: Iterator[tuple[bytes, bytes]], number: int) -> Timing:
    """So many pairs."""
    times: list[tuple[float, float]] = []
    answers: set[object] = set()
    for pair in (next(pairs) for _ in range(number)):
        found = [0.0, 0.0]
        for place in random.sample((0, 1), 2):
            began = time.perf_counter_ns()
            answers.add(await vault.verify_token(pair[place]))
            found[place] = (time.perf_counter_ns() - began) / 1000
        times.append((found[0], found[1]))
    differences = _trimmed([one - other for one, other in times])
    deviation = stdev(differences) / sqrt(len(differences))
    effect = fmean(differences)
    middle = median(one for pair in times for one in pair)
    return Timing(number, middle, effect, abs(effect / deviation), frozenset(answers))


def _trimmed(differences: list[float]) -> list[float]:
    """Without the hundredth at each end: there the machine was busy with something else."""
    cut = len(differences) // 100
    return sorted(differences)[cut : len(differences) - cut]


async def _on_a_vault(measured: Callable[[Vault, str], Awaitable[Timing]]) -> Timing:
    with tempfile.TemporaryDirectory() as folder:
        vault = await open_vault(Path(folder) / "data", {}, Now(), create=True)
        try:
            for number in range(100):
                await vault.issue_token(NewToken("default", f"other-{number}"))
            _, good = await vault.issue_token(NewToken("default", "ada"))
            assert await vault.verify_token(good.encode()) is not None
            return await measured(vault, good)
        finally:
            await vault.close()


async def run(pairs: int = PAIRS) -> AsyncIterator[tuple[str, Timing]]:
    """Every attack in turn."""
    for name, attack in ATTACKS.items():

        async def measured(vault: Vault, good: str, attack: Pairs = attack) -> Timing:
            return await measure(vault, attack(good), pairs)

        yield name, await _on_a_vault(measured)


async def outcomes(pairs: int = PAIRS) -> AsyncIterator[Outcome]:
    """A row for each. A fault is an answer that differs: times are told, not judged."""
    async for name, one in run(pairs):
        told = f"{one.middle:.1f} us; effect {one.effect:+.3f} us, |t| {one.t:.2f}"
        differ = len(one.answers - {None})
        yield Outcome(f"refusals in time: {name}", one.pairs, "pairs", differ, told)
