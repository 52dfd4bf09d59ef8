"""The table of `make attack`: each campaign can be called, and nothing that is found gets lost."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import math
import re
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from types import SimpleNamespace

import pytest

from tests.attack import __main__ as runner
from tests.attack import broken, callers, faults, kind, shown, soak, swarm
from tests.attack.campaigns import CAMPAIGNS, Campaign, carry_out, first_of, sizes_in
from tests.attack.outcome import Outcome, Row
from tests.attack.soak import Sample

NOT_YET: tuple[str, ...] = ()
"""Campaigns that the README's table has no row of; nothing stands here once all have run."""

ROWS = [
    Row("upstreams", "2", 1.5, Outcome("one", 10_000, "calls", 0, "all whole")),
    Row("crashes", "9", 0.0, Outcome("other", 3, "kills", 1, faults=("a3: lost",))),
]


@pytest.mark.parametrize("campaign", CAMPAIGNS.values(), ids=CAMPAIGNS)
def test_a_campaign_takes_its_sizes(campaign: Campaign) -> None:
    """Its module has `outcomes`, which yields rows and knows the names of both."""
    outcomes = importlib.import_module(f"tests.attack.{campaign.module}").outcomes
    assert inspect.isasyncgenfunction(outcomes)
    inspect.signature(outcomes).bind(**campaign.whole)
    inspect.signature(outcomes).bind(**campaign.short)


def test_sizes_come_over_a_command_line() -> None:
    """Numbers as numbers."""
    assert sizes_in(["kills=5", "longest=0.4", "acts=names"]) == {
        "kills": 5,
        "longest": 0.4,
        "acts": "names",
    }


async def test_a_campaign_tells_each_row_as_it_is_over(tmp_path: Path) -> None:
    """So that one that breaks off later has told the others."""
    out = tmp_path / "outcomes"
    await carry_out("vault", {"acts": "their names"}, out)
    [line] = out.read_text().splitlines()
    assert '"all pairs of rows, their names"' in line


def test_a_campaign_that_breaks_off_is_a_fault() -> None:
    """In which it is said with what."""
    [row] = runner.rows_of("vault", {"nothing": "such"})
    assert row.outcome[:4] == ("vault: broke off", 0, "", 1)
    [why] = row.outcome.faults
    assert re.fullmatch(r"TypeError: .*unexpected keyword.* \(campaigns.py, line \d+\)", why)


def test_a_campaign_whose_process_dies_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a signal, with no word of its own."""
    killed = subprocess.CompletedProcess([], -9)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: killed)
    [row] = runner.rows_of("vault", {})
    assert row.outcome.faults == ("its process ended with -9",)


def test_of_several_errors_the_first_is_told() -> None:
    """A group by itself says nothing."""
    group = ExceptionGroup("several", [ExceptionGroup("more", [ValueError("why")])])
    assert first_of(group) == "ValueError: why"


async def test_a_sweep_that_meets_an_error_is_a_broken_promise(tmp_path: Path) -> None:
    """With the place where it did, and the next one comes."""

    class Healthy(faults.Disk):
        def __init__(self) -> None:
            self.healed = 0

        def heal(self) -> int:
            self.healed += 1
            return 0

    async def sweeping(sweep: faults.Sweep) -> None:
        sweep.tried = 7
        raise OSError("the disk is still ill")

    disk = Healthy()
    ground = faults.Ground(disk, tmp_path, tmp_path, b"")
    sweep = await faults.carried_out(ground, "key add: ill", sweeping)
    assert sweep.broken == ["key add: ill, 7: broke off: OSError: the disk is still ill"]
    assert disk.healed == 1


def test_an_unknown_name_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """With those that there are."""
    assert runner.main(["nosuch"]) == 2
    assert "there is no nosuch; there are upstreams, " in capsys.readouterr().err


def test_the_table_is_read_as_it_was_written() -> None:
    """From the JSON; on a terminal with faults in words."""
    assert shown.read(shown.document(ROWS)) == ROWS
    assert shown.plain(ROWS).splitlines()[-1] == "  other: a3: lost"
    assert "| 2 | one | 10,000 calls | 0 | all whole | 1.5 |" in shown.markdown(ROWS)


def test_a_run_takes_the_place_of_what_its_campaigns_had() -> None:
    """All rows of those and no others; by points, and within one as the campaigns stand."""
    soaked = Row("soak", "10", 1.0, Outcome("soak", 1, "calls", 0))
    crowd = soaked._replace(campaign="callers")
    again = ROWS[1]._replace(outcome=ROWS[1].outcome._replace(attack="another"))
    kept = [*ROWS, soaked]
    assert shown.merged(kept, [again, crowd]) == [ROWS[0], again, crowd, soaked]
    assert shown.merged(kept, []) == kept


def test_a_page_is_filled_between_its_marks_again_and_again() -> None:
    """Whatever stood there is gone, what stands around stays."""
    page = f"above\n{shown.BEGIN}old\n{shown.END}below\n"
    once = shown.filled(page, shown.markdown(ROWS))
    assert (once[:6], once[-6:], "old" in once) == ("above\n", "below\n", False)
    assert shown.filled(once, shown.markdown(ROWS)) == once


def test_a_crowd_that_nobody_minds_breaks_no_promise() -> None:
    """Gone in time, a kind caller who waits twice as long at most, a tenth more memory."""
    kept = callers.Figures("say nothing", 1000, 40.0, 1.5, 3.0, 900, [100.0, 500.0, 110.0])
    assert kept.outcome[:4] == ("callers that say nothing", 1000, "connections", 0)
    assert kept.outcome.faults == ()


def test_each_promise_that_a_crowd_breaks_is_found() -> None:
    """In words, with what was wanted, which the row of the table tells too."""
    figures = callers.Figures("read nothing", 1000, math.inf, 1.5, 3.1, 900, [100.0, 100.0, 111.0])
    found = figures.outcome
    assert found.found == 3
    assert found.faults == (
        "connections left after 90 s: gone after inf",
        "p99 of the kind 1.5 ms alone, 3.1 beside (wanted: at most double, or 2 ms)",
        "100 MiB before, 111 after (wanted: at most a tenth more)",
    )
    assert all(words in found.told for words in (kind.WANTED_P99, kind.WANTED_MEMORY))
    assert set(callers.DEADLINES) == set(swarm.SECURED)


def test_what_nobody_notices_is_no_broken_promise() -> None:
    """A p99 of two milliseconds, however quick it was alone."""
    assert kind.slowed_down(0.3, 2.0) == []
    assert len(kind.slowed_down(0.3, 2.1)) == 1


def series(start: float, grown: float, noise: float = 0.0, count: int = 600) -> list[Sample]:
    """An hour in which memory grows by so much, evenly, with a crowd at each fiftieth moment."""
    return [
        Sample(6.0 * at, start + grown * at / count + (0 if at % 50 else noise), 30)
        for at in range(count)
    ]


@pytest.mark.parametrize(
    "samples",
    [
        series(110, 0),
        series(110, 5, noise=200),
        [Sample(0, 60, 30), *series(130, 10)],
        series(110, -20),
        series(110, 0, count=3),
        series(110, 0, count=1),
    ],
)
def test_a_flat_soak_is_flat(samples: list[Sample]) -> None:
    """Crowds, a start below what work needs and a short run are no leak."""
    assert soak.judge(samples, samples[-1]).faults == ()


def test_a_leak_is_told() -> None:
    """Of memory, with its slope; and of handles once everybody has gone."""
    leaking = soak.judge(series(110, 100), Sample(3600, 210, 30))
    assert leaking.faults == ("memory grows: 140 MiB early, 200 late",)
    assert 99 < leaking.slope < 101
    left = soak.judge(series(110, 0), Sample(3600, 110, 51))
    assert left.faults == ("handles stay: 30 before, 51 after",)
    assert soak.judge(series(110, 0), Sample(3600, 110, 50)).faults == ()


def test_the_readme_shows_the_kept_figures() -> None:
    """Those of docs/attack.json, in which nothing was found."""
    rows = shown.read(shown.KEPT.read_text())
    page, promises = shown.README.read_text(), shown.PROMISES.read_text()
    assert shown.filled(page, shown.markdown(rows)) == page
    assert shown.filled(promises, shown.killed(rows)) == promises
    assert [row for row in rows if row.outcome.found or not row.outcome.count] == []
    assert [row for row in rows if row.point != CAMPAIGNS[row.campaign].point] == []
    assert rows == sorted(rows, key=shown.order)


def test_the_faults_that_were_found_are_held_by_tests() -> None:
    """Each that docs/testing.md names is there."""
    page = (shown.ROOT / "docs/testing.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", page)
    assert len(named) >= 3
    for path, name in named:
        assert f"def {name}(" in (shown.ROOT / path).read_text(), name


def test_every_campaign_has_rows_in_the_table() -> None:
    """But for those that wait for their first run."""
    there = {row.campaign for row in shown.read(shown.KEPT.read_text())}
    assert there.isdisjoint(NOT_YET)
    assert there.union(NOT_YET) == set(CAMPAIGNS)


QUICK, SLOW = [1.0] * 100, [1.0] * 90 + [5.0] * 9 + [9.0]


def side(*turns: list[float], cpu: float = 1.0) -> broken.Side:
    """Of turns of ten seconds."""
    return broken.Side(list(turns), 10.0 * len(turns), cpu)


@pytest.mark.parametrize(
    ("turns", "p99", "worst"),
    [([QUICK, QUICK, SLOW], 5.0, 9.0), ([QUICK] * 19 + [SLOW], 1.0, 9.0), ([SLOW], 9.0, 9.0)],
)
def test_a_kind_caller_is_judged_by_all_its_calls(
    turns: list[list[float]], p99: float, worst: float
) -> None:
    """Not by its turns; the worst of those is told."""
    beside = side(*turns)
    assert (beside.p99, beside.worst) == (p99, worst)
    _, wrong = broken.judged(broken.Crowd((), 1000, 50), side(QUICK), beside, [0.1])
    assert len(wrong) == (p99 > 2.0)


def test_beside_a_flood_p99_is_told_and_not_judged() -> None:
    """But for what it leaves open."""
    flood, alone, beside = broken.Crowd((), 4000, 400, False), side(QUICK), side(SLOW, cpu=5.0)
    told, wrong = broken.judged(flood, alone, beside, [0.1, 4.9])
    assert told == (
        "400.0 a second; closed 4.9 s after the last of a turn at most (wanted: 5); "
        "p99 of the kind 1.0 ms (100 calls; first turn 1.0, worst 1.0) alone, "
        "9.0 ms (100 calls; first turn 9.0, worst 9.0) beside (told, not judged); "
        "the server took 10% of a core alone, 50% beside"
    )
    assert wrong == []
    _, wrong = broken.judged(flood, alone, beside, [0.1, 5.1])
    assert wrong == ["open for 5.1 s after the last (wanted: 5)"]


async def test_a_transfer_without_an_end_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is a crowd that comes later than it should."""

    async def hang(here: callers.Ground) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(broken, "ENDED_SECONDS", 0.01)
    monkeypatch.setattr(broken, "ABREAST", 1)
    monkeypatch.setattr(broken, "LATE_SECONDS", 0.005)
    here = callers.Ground(None, "", "", Path())  # type: ignore[arg-type]
    *faults, late = await broken.arriving(here, [hang], 3, 1e6)
    assert [fault.strip() for fault in faults] == ["hang: TimeoutError"] * 3
    assert re.fullmatch(r"one came 0\.\d s late", late)


def test_what_a_server_takes_of_a_core_is_counted() -> None:
    """As it counts itself, but for ticks of the kernel's."""
    work = "import os, sys; sum(range(10**7)); print(sum(os.times()[:2]), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", work], stdin=PIPE, stdout=PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        took = float(process.stdout.readline())
        up = SimpleNamespace(process=process)
        here = callers.Ground(up, "", "", Path())  # type: ignore[arg-type]
        assert took > 0.05
        assert here.cpu() == pytest.approx(took, abs=0.04)
        process.stdin.write(b"\n")


def test_all_of_a_crowd_come_in_one_turn_or_another() -> None:
    """Twenty seconds each, the last what is left."""
    assert broken.Crowd((), 2500, 50).turns == [1000, 1000, 500]
    assert broken.Crowd((), 3, 0.01).turns == [1, 1, 1]
