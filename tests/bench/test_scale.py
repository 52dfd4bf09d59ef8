"""What is made of the numbers of growth, and that the page has those of the last run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench.room import ROOT
from bench.scale import page
from bench.scale.__main__ import MOST, PAGE, RESULT, SIZES, _sizes, arguments
from bench.scale.costs import Cost, summarise
from bench.scale.engines import version_in
from bench.scale.setups import SETUPS

DATA: dict[str, Any] = json.loads(RESULT.read_text())


def test_the_page_has_the_numbers_of_the_last_run() -> None:
    """Every one: it is written by the bench, and by nobody else."""
    assert PAGE.read_text() == page.document(DATA), "run: python -m bench.scale --page"
    assert PAGE == ROOT / "docs/scale.md"


def test_the_last_run_was_a_whole_one() -> None:
    """Each setup with each of its cases, without a failure; each kind up to its most."""
    found = [(row["setup"], row["case"]) for row in DATA["costs"]]
    assert found == [(one.name, case) for one in SETUPS for case in one.cases]
    assert [row["failed"] for row in DATA["costs"]] == [0] * len(found)
    assert {row["kind"]: row["count"] for row in DATA["held"]} == {
        kind: MOST[kind] for kind in ("tokens", "keys")
    }
    assert {row["where"]: row["count"] for row in DATA["kept"]} == {
        where: MOST[where] for where in ("files", "redis")
    }


def cost(keyrelay: float, redis: float = 0.0, postgresql: float = 0.0, **more: Any) -> Cost:
    return Cost("s", "hit", keyrelay, redis, postgresql, 1.0, more.get("failed", 0))


def test_rows_are_medians_of_rounds() -> None:
    """With what failed in any."""
    [row] = summarise([cost(90, 1), cost(100, 3), cost(130, 2, failed=4)])
    assert (row.keyrelay, row.redis, row.failed) == (100, 2, 4)
    assert row.spread == pytest.approx(0.4)


def model(redis: float, postgresql: float) -> dict[str, Any]:
    """As if everything cost a tenth of a millisecond, and its engines this."""
    rows = [
        {**row, "keyrelay": 100.0, "redis": redis, "postgresql": postgresql}
        for row in DATA["costs"]
    ]
    return {**DATA, "costs": rows}


def test_the_wall_is_the_engine_that_is_full_first() -> None:
    """Redis has one core: with a quarter of keyrelay's time it is full at four."""
    text = page.document(model(25.0, 10.0))
    assert "| a forward | 10,000 | 40,000 | 100,000 | 4.0 |" in text
    wall = "Redis, with its one core full at 40,000 a second, which takes 4 cores of keyrelay."
    assert f"- a forward: {wall}" in text
    assert "| a forward | 10,000 | 20,000 | 40,000* | 40,000* | 40,000* | 40,000* |" in text


def test_an_engine_that_does_nothing_is_no_wall() -> None:
    """What is below a microsecond is the noise of its own work."""
    text = page.document(model(0.5, 0.0))
    assert "- a forward: no engine has anything to do" in text
    assert "| a forward | 10,000 | - | - | - |" in text
    assert "| a forward | 10,000 | 20,000 | 40,000 | 80,000 | 160,000 | 320,000 |" in text


def test_what_is_asked_for_may_be_less() -> None:
    """For a look at a part."""
    assert arguments(["--only", "holdings", "--most", "10000"]).most == 10_000
    assert _sizes("keys", 10_000) == [1_000, 10_000]
    assert _sizes("keys", SIZES[-1])[-1] == MOST["keys"]


def test_versions_are_found_in_what_programs_say() -> None:
    """Each says it in its own way."""
    assert version_in("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc") == "7.0.15"
    assert version_in("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)") == "15.14"
