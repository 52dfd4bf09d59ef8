"""Refusals look alike, whoever's the id is; `make attack` measures them at full length."""

from __future__ import annotations

import pytest

from tests.attack import timing
from vault import NewToken, Vault
from vault.tokens import checked, mint


async def test_every_refusal_is_the_same_answer() -> None:
    """Of every attack."""
    found = [one async for one in timing.outcomes(20)]
    assert [one.found for one in found] == [0] * len(timing.ATTACKS)
    assert {one.count for one in found} == {20}


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
