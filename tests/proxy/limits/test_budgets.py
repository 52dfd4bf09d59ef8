"""Budgets: by calendar month, across restarts, harmless where the disk is."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from math import inf
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.limits.budgets import Budgets, month_of
from proxy.limits.ledger import SqliteLedger
from proxy.limits.notes import EVER
from proxy.turns import turn
from tests.proxy.limits.conftest import Book
from tests.support.clock import FakeClock


def at(text: str) -> FakeClock:
    return FakeClock(datetime.fromisoformat(text).timestamp())


@settings(deadline=None)
@given(st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)))
def test_a_month_ends_where_the_next_begins(moment: datetime) -> None:
    """In UTC."""
    now = moment.replace(tzinfo=UTC).timestamp()
    name, begins, ends = month_of(now)
    assert name == f"{moment:%Y-%m}"
    assert begins <= now < ends <= begins + 31 * 86_400
    assert datetime.fromtimestamp(ends, UTC).day == 1


async def test_a_new_month_begins_at_nothing() -> None:
    """At midnight UTC; the old counts stay where they are."""
    clock, book = at("2026-12-31T23:59:59+00:00"), Book()
    budgets = Budgets(book, clock)
    budgets.count("ann")
    budgets.count("ann")
    assert (budgets.spent("ann"), budgets.left()) == (2, 1)
    clock.advance(1)
    assert budgets.spent("ann") == 0
    budgets.count("ann")
    assert book.noted == {("ann", "2026-12"): 2, ("ann", "2027-01"): 1}


async def test_counts_survive_a_restart(tmp_path: Path) -> None:
    """Those of this month; a call that came during the start counts beside."""
    clock = at("2026-11-21T12:00:00+00:00")
    path = tmp_path / "usage.db"
    first = Budgets(SqliteLedger(path), clock)
    await first.start()
    assert not path.exists()
    for _ in range(3):
        first.count("ann")
    first.count("bob")
    first.count("bob", -1)
    first.count("bob", -1)
    await first.stop()
    assert path.stat().st_mode & 0o777 == 0o600
    second = Budgets(SqliteLedger(path), clock)
    second.count("ann")
    await second.start()
    assert (second.spent("ann"), second.spent("bob")) == (4, 0)
    await second.stop()
    clock.advance(15 * 86_400)
    third = Budgets(SqliteLedger(path), clock)
    await third.start()
    assert third.spent("ann") == 0
    await third.stop()


async def test_what_was_counted_is_written_while_the_relay_runs(tmp_path: Path) -> None:
    """A crash loses a second at most: the first count is written at once."""
    path = tmp_path / "usage.db"
    ledger = SqliteLedger(path)
    budgets = Budgets(ledger, FakeClock())
    await budgets.start()
    budgets.count("ann")
    await ledger.flush()
    assert await SqliteLedger(path).spent(month_of(FakeClock().now())[0]) == {"ann": 1}
    await budgets.stop()


async def test_what_can_not_be_read_at_the_start_is_taken_up_later() -> None:
    """What is counted meanwhile is not written above it, and is added to it."""
    clock = at("2026-11-21T12:00:00+00:00")
    book = Book({("ann", "2026-11"): 40, ("bob", "2026-11"): 7})
    book.readable = False
    budgets = Budgets(book, clock)
    await budgets.start()
    budgets.count("ann")
    await budgets.stop()
    assert book.counts[("ann", "2026-11")] == 40
    book.readable = True
    await budgets.stop()
    assert (budgets.spent("ann"), budgets.spent("bob")) == (41, 7)
    assert book.counts == {("ann", "2026-11"): 41, ("bob", "2026-11"): 7}


async def test_a_clock_that_is_put_right_finds_its_month_again() -> None:
    """Started in another month, or carried into one for a while: nobody has a budget twice."""
    book = Book({("ann", "2026-11"): 40})
    clock = at("2026-11-21T12:00:00+00:00")
    budgets = Budgets(book, clock)
    for away in (-30 * 86_400, 30 * 86_400):
        clock.be_set(away)
        budgets.count("ann")
        await budgets.stop()
        assert budgets.spent("ann") == 1
        clock.be_set(-away)
        budgets.count("ann")
        await budgets.stop()
    assert budgets.spent("ann") == 42
    assert book.counts[("ann", "2026-11")] == 42


async def test_what_counts_in_all_has_no_month(tmp_path: Path) -> None:
    """Neither its end, nor a restart, nor a clock that was wrong begins it anew; and beside it a
    month counts on its own."""
    clock, path = at("2026-12-31T23:59:59+00:00"), tmp_path / "usage.db"
    for made in range(1, 4):
        budgets = Budgets(SqliteLedger(path), clock)
        await budgets.start()
        budgets.count("ann", 1, ever=True)
        budgets.count("ann", 5)
        assert (budgets.spent("ann", ever=True), budgets.spent("ann")) == (made, 5)
        clock.be_set((-400 if made == 2 else 40) * 86_400)
        assert (budgets.spent("ann", ever=True), budgets.spent("ann")) == (made, 0)
        assert budgets.is_of_now(0.0, ever=True)
        assert budgets.left(ever=True) == inf
        await budgets.stop()


async def test_what_counts_in_all_is_taken_up_later_too() -> None:
    """Where only that could not be read at the start; nothing is written before."""
    book = Book({("ann", EVER): 40})
    clock = at("2026-11-21T12:00:00+00:00")
    budgets = Budgets(book, clock)
    book.readable = False
    await budgets.start()
    budgets.count("ann", 1, ever=True)
    await budgets.stop()
    assert book.counts == {("ann", EVER): 40}
    book.readable = True
    await budgets.stop()
    assert budgets.spent("ann", ever=True) == book.counts["ann", EVER] == 41


async def test_old_months_are_forgotten(tmp_path: Path) -> None:
    """A year is kept; and what is no month."""
    ledger = SqliteLedger(tmp_path / "usage.db")
    ledger.note("ann", EVER, 3)
    for number in range(20):
        ledger.note("ann", f"{2020 + number // 12}-{number % 12 + 1:02}", number)
    await ledger.flush()
    assert await ledger.spent("2020-07") == {}
    assert await ledger.spent("2020-08") == {"ann": 7}
    assert await ledger.spent(EVER) == {"ann": 3}


async def test_who_only_reads_changes_nothing(tmp_path: Path) -> None:
    """The file may be that of a newer release, which will refuse the start."""
    path = tmp_path / "usage.db"
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version = 9")
    octets = path.read_bytes()
    assert await SqliteLedger(path).spent("2026-11") == {}
    assert path.read_bytes() == octets


async def test_a_broken_ledger_harms_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once; what could not be written is, once it can."""
    path = tmp_path / "usage.db"
    path.write_bytes(b"no database, " * 100)
    ledger = SqliteLedger(path)
    with caplog.at_level(logging.ERROR):
        assert await ledger.spent("2026-11") is None
        ledger.note("ann", "2026-11", 1)
        await ledger.flush()
        ledger.note("bob", "2026-11", 2)
        await ledger.flush()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    path.unlink()
    ledger.note("ann", "2026-11", 2)
    await ledger.flush()
    assert await ledger.spent("2026-11") == {"ann": 3, "bob": 2}


async def test_a_locked_ledger_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is lost."""
    monkeypatch.setattr("proxy.limits.ledger._BUSY_SECONDS", 0.01)
    path = tmp_path / "usage.db"
    ledger = SqliteLedger(path)
    ledger.note("ann", "2026-11", 1)
    with turn(path, 1):  # usage is written to the same file
        await ledger.flush()
        assert not path.exists()
    await ledger.flush()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ledger.note("ann", "2026-11", 1)
    await ledger.flush()
    assert other.execute("SELECT calls FROM budgets").fetchall() == [(1,)]
    other.execute("ROLLBACK")
    other.close()
    await ledger.flush()
    assert await ledger.spent("2026-11") == {"ann": 2}
