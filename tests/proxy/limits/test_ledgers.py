"""Several ledgers of one table: counts add up, each once, and everybody learns them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.limits.budgets import Budgets, Ledger
from proxy.limits.ledger import SqliteLedger
from proxy.limits.postgres import PostgresLedger
from tests.support.answers import Answers, answers
from tests.support.clock import FakeClock
from tests.support.engines import RunningPostgres

__all__ = ["answers"]

MONTH = "2026-11"
Make = Callable[[], Ledger]


@pytest.fixture(params=["sqlite", "postgresql"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """One ledger more over the same table."""
    if request.param == "sqlite":
        return lambda: SqliteLedger(tmp_path / "usage.db")
    server: RunningPostgres = request.getfixturevalue("postgres")
    url = server.another()
    return lambda: PostgresLedger(url)


async def test_several_add_to_one_table(make: Make) -> None:
    """At once, for the same subjects in another order: no count is lost, nobody blocks another."""
    ledgers = [make() for _ in range(4)]
    for _ in range(5):
        for number, ledger in enumerate(ledgers):
            for subject in ("ann", "bob", "cid")[:: 1 if number % 2 else -1]:
                ledger.note(subject, MONTH, 2)
        await asyncio.gather(*(ledger.flush() for ledger in ledgers))
    assert await make_and_ask(make) == {"ann": 40, "bob": 40, "cid": 40}
    for ledger in ledgers:
        await ledger.aclose()


async def make_and_ask(make: Make) -> dict[str, int]:
    ledger = make()
    try:
        return dict(await ledger.spent(MONTH) or {})
    finally:
        await ledger.aclose()


async def test_a_flush_tells_what_all_have_counted(make: Make) -> None:
    """With what was noted while it went on."""
    one, other = make(), make()
    other.note("ann", MONTH, 7)
    await other.flush()
    one.note("ann", MONTH, 1)
    flushing = asyncio.create_task(one.flush())
    await asyncio.sleep(0)
    one.note("ann", MONTH, 5)
    assert await flushing == {("ann", MONTH): 13}
    assert await one.flush() == {("ann", MONTH): 13}
    assert await one.flush() == {}
    await one.aclose()
    await other.aclose()


async def test_budgets_of_several_instances_become_one(make: Make) -> None:
    """Within the time of a flush, whoever counts and whoever takes a call back."""
    clock = FakeClock(1_795_000_000.0)
    first, second = (Budgets(make(), clock) for _ in range(2))
    await first.start()
    first.count("ann", 3)
    await first.stop()
    await second.start()
    assert second.spent("ann") == 3
    second.count("ann", 4)
    await second.stop()
    first.count("ann", 1)
    first.count("ann", -1)
    await first.stop()
    assert (first.spent("ann"), second.spent("ann")) == (7, 7)


async def test_calls_in_all_of_several_instances_become_one(make: Make) -> None:
    """The same way; and whoever makes the tables anew leaves them there."""
    clock = FakeClock(1_795_000_000.0)
    first = Budgets(make(), clock)
    await first.start()
    first.count("ann", 3, ever=True)
    await first.stop()
    clock.be_set(900 * 86_400)
    second = Budgets(make(), clock)
    await second.start()
    second.count("bob")
    assert second.spent("ann", ever=True) == 3
    second.count("ann", 4, ever=True)
    await second.stop()
    first.count("ann", 1, ever=True)
    await first.stop()
    assert (first.spent("ann", ever=True), second.spent("ann", ever=True)) == (8, 7)


async def test_what_was_done_though_the_answer_was_lost_counts_once(
    postgres: RunningPostgres, answers: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again under its number; what came since is added after it."""
    url = postgres.another()
    ledger = PostgresLedger(url)
    assert await ledger.spent(MONTH) == {}
    answers.lost = True
    for calls in (1, 2):
        ledger.note("ann", MONTH, calls)
        assert await ledger.flush() == {}
    answers.lost = False
    assert await ledger.flush() == {("ann", MONTH): 3}
    assert await ledger.spent(MONTH) == {"ann": 3}
    assert [one.levelname for one in caplog.records] == ["ERROR", "WARNING"]
    await ledger.aclose()


async def test_in_a_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk says no after it has written."""
    ledger = SqliteLedger(tmp_path / "usage.db")
    whole = ledger._add

    def fails(*given: object) -> None:
        whole(*given)  # type: ignore[arg-type]
        raise sqlite3.OperationalError("disk I/O error")

    ledger.note("ann", MONTH, 2)
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_add", fails)
        assert await ledger.flush() == {}
    assert await ledger.flush() == {("ann", MONTH): 2}
    assert await ledger.spent(MONTH) == {"ann": 2}


async def test_a_database_that_is_gone_harms_nobody(
    postgres: RunningPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    """Told once, without the password; counted later, when it is back."""
    url = postgres.url_of("not_there_yet").replace("keyrelay@", "keyrelay:hush@")
    ledger = PostgresLedger(url)
    assert await ledger.spent(MONTH) is None
    ledger.note("ann", MONTH, 1)
    assert await ledger.flush() == {}
    [record] = caplog.records
    assert "not_there_yet" in record.message
    assert "hush" not in record.message
    postgres.say("CREATE DATABASE not_there_yet")
    assert await ledger.flush() == {("ann", MONTH): 1}
    assert caplog.messages[1:] == [f"budgets are kept again in {ledger._line.described}"]
    await ledger.aclose()


async def test_a_connection_that_was_ended_is_made_anew(postgres: RunningPostgres) -> None:
    """By the server; what was noted is written with the next flush, or the one after."""
    url = postgres.another()
    ledger = PostgresLedger(url)
    ledger.note("ann", MONTH, 1)
    await ledger.flush()
    database = url.rpartition("/")[2]
    postgres.say(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
    )
    ledger.note("ann", MONTH, 1)
    found = await ledger.flush() or await ledger.flush()
    assert found == {("ann", MONTH): 2}
    await ledger.aclose()
