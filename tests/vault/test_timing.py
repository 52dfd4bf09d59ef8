"""Refusals look alike, whoever's the id is; `make attack` measures them at full length."""

from __future__ import annotations

import random

import pytest

from tests.attack import timing
from vault import NewToken, Vault
from vault.tokens import checked, mint


async def test_every_refusal_is_the_same_answer() -> None:
    """Of every attack."""
    found = [one async for one in timing.outcomes(20)]
    assert [one.found for one in found] == [0] * len(timing.ATTACKS)
    assert {one.count for one in found} == {20}


def a_timing(leak: float, spread: float, pairs: int = timing.JUDGED) -> timing.Timing:
    """Of a machine where one refusal differs from the next by so much, and now and then by a
    hundred times that; `leak`: of one kind."""
    noise = random.Random(1)

    def differs() -> float:
        return noise.gauss(0, spread) * (100 if noise.random() < 0.02 else 1)

    effect = timing.Effect.of([leak + differs() for _ in range(pairs)])
    control = timing.Effect.of([differs() for _ in range(pairs)])
    return timing.Timing(pairs, 800.0, effect, control, frozenset({None}))


@pytest.mark.parametrize("spread", [1.0, 200.0, 5000.0])
def test_a_noisy_machine_is_no_leak(spread: float) -> None:
    """However noisy; nor is what no network would let through."""
    assert a_timing(0.0, spread).faults == ()
    assert a_timing(1.5, spread).faults == ()


@pytest.mark.parametrize(("leak", "spread"), [(2.5, 1.0), (-4.0, 20.0), (30.0, 200.0)])
def test_a_leak_is_found(leak: float, spread: float) -> None:
    """In either direction, where the run is long enough to tell it from the noise."""
    [fault] = a_timing(leak, spread).outcome("x").faults
    assert "longer than the other" in fault


def test_a_short_run_is_told_and_not_judged() -> None:
    """What it tells is how little it says."""
    short = a_timing(30.0, 1.0, pairs=timing.JUDGED - 1).outcome("x")
    assert (short.found, short.faults) == (0, ())
    assert "effect +29.99" in short.told
    assert "not judged" in short.told


def test_an_answer_that_differs_is_found_whatever_its_time() -> None:
    """Even once."""
    other = a_timing(0.0, 1.0, pairs=100)._replace(answers=frozenset({None, "a token"}))
    assert other.outcome("x").faults == ("an answer differs",)


def test_the_texts_are_wrong_where_they_should_be() -> None:
    """Each of one kind like the other of its kind, and none comes twice but where that is meant."""
    good = mint().text
    for name, attack in timing.ATTACKS.items():
        rounds = attack(good)
        some = [next(rounds) for _ in range(50)]
        texts = [text for texts in some for text in texts]
        assert all(timing.checked(text[:-6]) == text for text in texts), name
        assert len(set(texts)) == (3 if "again" in name else 150), name
    rounds = timing.early_or_late(good)
    for texts in (next(rounds) for _ in range(50)):
        right = [wrong_from(text, good.encode()) for text in texts]
        assert right == [timing.FIRST, timing.LATE, timing.FIRST]


def wrong_from(text: bytes, good: bytes) -> int:
    pairs = zip(text, good, strict=True)
    return next(place for place, (mine, theirs) in enumerate(pairs) if mine != theirs)


async def test_an_unknown_id_and_a_wrong_secret_ask_the_database_alike(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once each, also where the id is known from memory; and again not at all."""
    _, good = await vault.issue_token(NewToken("default", "ada"))
    assert await vault.verify_token(good.encode()) is not None
    asked = 0
    reading = vault._core.reading

    def counted() -> object:
        nonlocal asked
        asked += 1
        return reading()

    monkeypatch.setattr(vault._core, "reading", counted)
    other = mint().text
    for wrong in (other.encode(), checked((good[:16] + other[16:-6]).encode())):
        for expected in (1, 0, 0):
            asked = 0
            assert await vault.verify_token(wrong) is None
            assert asked == expected
    asked = 0
    assert await vault.verify_token(good.encode()) is not None
    assert asked == 0, "what is refused pushes no good token out"
