"""Usage and budgets of a file, brought into the database that took its place."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from proxy import carrying
from proxy.carrying import Carrying
from proxy.limits import notes
from proxy.limits.ledger import SqliteLedger
from proxy.limits.postgres import PostgresLedger
from proxy.usage import SqliteUsage, Which
from proxy.usage.postgres import PostgresUsage
from proxy.usage.store import DAY
from tests.proxy.usage.conftest import NOON, a_row
from tests.support.answers import Answers, answers
from tests.support.engines import RunningPostgres
from tests.support.origin import Origin
from tests.support.relay import running_relay

__all__ = ["answers"]

EVER = Which(0, 2 * NOON)
BY = (), ("day",), ("hour", "token"), ("service", "tenant")
CALLS = 60
MONTH = "2026-11"


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many steps, one after the other."""
    monkeypatch.setattr(carrying, "ROWS", 7)
    monkeypatch.setattr(carrying, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(carrying, "AGAIN_SECONDS", 0.01)


@pytest.fixture
def url(postgres: RunningPostgres) -> str:
    return postgres.another()


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    """Of three days: six tokens, some with a price, and a budget."""
    path = tmp_path / "usage.db"
    with closing(SqliteUsage(path)) as store:
        store.write(
            [
                a_row(
                    call=f"call-{number}",
                    token=f"n{number % 6}",
                    began=NOON - DAY * (number % 3),
                    seconds=number / 10,
                    bucket=number % 5,
                    cost=number / 100 if number % 2 else None,
                )
                for number in range(CALLS)
            ]
        )
    await counted(SqliteLedger(path), 40)
    return path


async def counted(ledger: SqliteLedger | PostgresLedger, calls: int) -> None:
    ledger.note("id-ann", MONTH, calls)
    await ledger.flush()
    if isinstance(ledger, PostgresLedger):
        await ledger.aclose()


def told(store: SqliteUsage | PostgresUsage) -> list[Any]:
    """All that is asked of it, of every period."""
    sums = store.sums(EVER, *BY)
    shown = [
        [(one.group, one.calls, one.hits, round(one.cost or 0, 6), one.latencies) for one in lines]
        for lines in sums
    ]
    return [shown, store.calls(EVER, "newest", 10**6), store.troubles(EVER, 10**6)]


async def spent(url: str) -> int:
    ledger = PostgresLedger(url)
    found = await ledger.spent(MONTH)
    await ledger.aclose()
    return (found or {}).get("id-ann", 0)


async def carried(path: Path, url: str) -> Carrying:
    """Started, and waited for."""
    work = Carrying(path, url)
    await work.start()
    assert work._work is not None
    await work._work
    return work


async def test_all_of_a_file_is_found_in_the_database(
    file: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As it was told before; the file keeps what it had, under another name."""
    caplog.set_level("INFO")
    before = told(SqliteUsage(file))
    await carried(file, url)
    assert await asyncio.to_thread(told, PostgresUsage(url)) == before
    assert await spent(url) == 40
    names = sorted(path.name for path in file.parent.glob("usage.db*"))
    assert names == ["usage.db.carried", "usage.db.lock"]
    assert "is in the database now" in caplog.text
    assert await _nothing_to_do(file, url)


async def _nothing_to_do(file: Path, url: str) -> bool:
    work = Carrying(file, url)
    await work.start()
    await work.stop()
    return work._work is None


async def test_it_is_added_to_what_is_there(file: Path, url: str) -> None:
    """Of the same hours and tokens, and of the same month."""

    def write() -> None:
        with closing(PostgresUsage(url)) as store:
            store.write([a_row(call="new", token="n1", began=NOON, seconds=99.0)])

    await asyncio.to_thread(write)
    await counted(PostgresLedger(url), 2)
    await carried(file, url)
    [[whole]] = await asyncio.to_thread(PostgresUsage(url).sums, EVER, ())
    assert (whole.calls, whole.slowest) == (CALLS + 1, 99.0)
    assert sum(whole.latencies.values()) == CALLS + 1
    assert await spent(url) == 42


async def test_an_answer_that_is_lost_makes_nothing_count_twice(
    file: Path, postgres: RunningPostgres, answers: Answers
) -> None:
    """Nor does a server that is stopped in between: the next one goes on."""
    url, before = postgres.another(), told(SqliteUsage(file))
    answers.lost = True
    work = Carrying(file, url)
    await work.start()
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(_has_come, postgres, url):
            await asyncio.sleep(0.01)
    await work.stop()
    answers.lost = False
    assert file.exists()
    await carried(file, url)
    assert await asyncio.to_thread(told, PostgresUsage(url)) == before
    assert await spent(url) == 40


def _has_come(postgres: RunningPostgres, url: str) -> bool:
    """Something, though nobody was told so."""
    try:
        return postgres.say("SELECT calls FROM budgets", url.rpartition("/")[2]) == "40"
    except subprocess.CalledProcessError:
        return False


async def test_copies_of_one_directory_count_once(file: Path, url: str, tmp_path: Path) -> None:
    """Several instances may have been made of it."""
    before = told(SqliteUsage(file))
    (tmp_path / "other").mkdir()
    copy = Path(shutil.copy(file, tmp_path / "other" / "usage.db"))
    await asyncio.gather(carried(file, url), carried(copy, url))
    assert await asyncio.to_thread(told, PostgresUsage(url)) == before
    assert not file.exists()
    assert not copy.exists()


async def test_each_file_is_counted_though_no_calls_are_in_it(tmp_path: Path, url: str) -> None:
    """Where usage is off: the next one of a directory too, but a copy once."""
    path, copy = tmp_path / "usage.db", tmp_path / "other" / "usage.db"
    copy.parent.mkdir()
    await counted(SqliteLedger(path), 40)
    shutil.copy(path, copy)
    await carried(path, url)
    await carried(copy, url)
    await counted(SqliteLedger(path), 2)
    await carried(path, url)
    assert await spent(url) == 42


async def test_a_database_that_is_gone_is_waited_for(
    file: Path, postgres: RunningPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once."""
    work = Carrying(file, postgres.url_of("not_yet"))
    await work.start()
    async with asyncio.timeout(30):
        while "waits for the database" not in caplog.text:
            await asyncio.sleep(0.01)
    postgres.say("CREATE DATABASE not_yet")
    assert work._work is not None
    await work._work
    assert not file.exists()
    assert caplog.text.count("waits for the database") == 1


@pytest.mark.parametrize("what", ["newer", "no database"])
async def test_what_can_not_be_read_stays(
    what: str, tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says why, and the server goes on."""
    path = tmp_path / "usage.db"
    if what == "newer":
        with closing(sqlite3.connect(path)) as newer:
            newer.execute("PRAGMA user_version = 99")
    else:
        path.write_bytes(b"no database" * 99)
    await carried(path, url)
    assert path.exists()
    assert "stays there: " in caplog.text


async def test_a_file_without_calls_or_budgets_is_carried_too(tmp_path: Path, url: str) -> None:
    """Of a server that nobody has called."""
    path = tmp_path / "usage.db"
    with closing(SqliteUsage(path)) as store:
        store.open()
    await carried(path, url)
    assert not path.exists()


async def test_sums_are_carried_whose_calls_are_forgotten(file: Path, url: str) -> None:
    """They are kept for longer."""
    with closing(sqlite3.connect(file, isolation_level=None)) as changed:
        changed.execute("DELETE FROM singles")
    await carried(file, url)
    [[whole]] = await asyncio.to_thread(PostgresUsage(url).sums, EVER, ())
    assert whole.calls == CALLS


async def test_a_server_that_starts_with_the_database_carries(file: Path, url: str) -> None:
    """Beside its calls."""
    data = file.parent / "data"
    data.mkdir(mode=0o700)
    shutil.move(file, data / "usage.db")
    async with (
        Origin() as origin,
        running_relay(data, {"openai": {"origin": origin.url}}, f"vault: {{url: '{url}'}}\n"),
    ):
        async with asyncio.timeout(30):
            while (data / "usage.db").exists():
                await asyncio.sleep(0.02)
    assert await spent(url) == 40


async def test_calls_in_all_are_carried_too(tmp_path: Path, url: str) -> None:
    """They are counts of budgets, of no month."""
    path = tmp_path / "usage.db"
    ledger = SqliteLedger(path)
    ledger.note("id-ann", notes.EVER, 12)
    await ledger.flush()
    await carried(path, url)
    there = PostgresLedger(url)
    assert await there.spent(notes.EVER) == {"id-ann": 12}
    await there.aclose()
