"""Usage on disk: turns, what a broken or newer file does, what earlier releases wrote."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from proxy.turns import turn
from proxy.usage import CallRow, SqliteUsage, UsageError, UsageTooNew, Which
from proxy.usage import sqlite as sqlite_store
from proxy.usage.store import DAY, Keep
from proxy.usage.tables import VERSION
from tests.proxy.usage.conftest import NOON, a_row

MIDNIGHT = NOON - DAY / 2
EVER = Which(0, MIDNIGHT * 2)
FORGETTING = Keep(calls=EVER.until, most_calls=0, hours=EVER.until, days=EVER.until)


# The file.


def test_a_file_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    """Reading makes none."""
    path = tmp_path / "usage.db"
    assert SqliteUsage(path).sums(EVER, (), ("day",)) == [[], []]
    assert SqliteUsage(path).calls(EVER, "newest", 5) == []
    assert not path.exists()


def test_the_file_is_the_owners_alone(file: SqliteUsage, tmp_path: Path) -> None:
    """As all in the data directory."""
    file.write([a_row()])
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_table_of_others_in_the_same_file_is_left_alone(tmp_path: Path) -> None:
    """Budgets may have made the file."""
    path = tmp_path / "usage.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE budgets (calls INTEGER)")
        other.execute("INSERT INTO budgets VALUES (7)")
        other.commit()
        assert SqliteUsage(path).sums(EVER, ()) == [[]]
        store = SqliteUsage(path)
        store.write([a_row()])
        store.close()
        assert other.execute("SELECT calls FROM budgets").fetchall() == [(7,)]
        assert other.execute("PRAGMA user_version").fetchone() == (VERSION,)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """By who writes and by who reads, and the file stays as it is."""
    path = tmp_path / "usage.db"
    with closing(sqlite3.connect(path)) as newer:
        newer.execute(f"PRAGMA user_version = {VERSION + 1}")
    octets = path.read_bytes()
    store = SqliteUsage(path)
    for use in (store.open, lambda: store.write([a_row()]), lambda: store.sums(EVER, ())):
        with pytest.raises(UsageTooNew, match="upgrade keyrelay, or move"):
            use()
    assert path.read_bytes() == octets


def test_a_broken_file_is_said_and_a_new_one_taken(tmp_path: Path) -> None:
    """It is not touched; once the admin has moved it away, the next batch makes another."""
    path = tmp_path / "usage.db"
    path.write_bytes(b"this is no database, but it is long enough to look at" * 100)
    store = SqliteUsage(path)
    for use in (store.open, lambda: store.write([a_row()]), lambda: store.sums(EVER, ())):
        with pytest.raises(UsageError, match="not a database"):
            use()
    path.rename(tmp_path / "usage.db.old")
    store.write([a_row()])
    assert [one.calls for one in store.sums(EVER, ())[0]] == [1]
    store.close()


def test_a_batch_is_written_as_a_whole_or_not_at_all(file: SqliteUsage) -> None:
    """A row that can't be written takes the others with it, and the sums too."""
    file.write([a_row()])
    with pytest.raises(UsageError):
        file.write([a_row(), a_row()._replace(host=None)])  # type: ignore[arg-type]
    assert [one.calls for one in file.sums(EVER, ())[0]] == [1]
    file.write([a_row()])
    assert [one.calls for one in file.sums(EVER, ())[0]] == [2]


def test_every_write_takes_its_turn(
    file: SqliteUsage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Budgets are written to the same file, perhaps by another process: never at one instant."""
    monkeypatch.setattr(sqlite_store, "BUSY_SECONDS", 0.05)
    for write in (file.open, lambda: file.write([a_row()]), lambda: file.sweep(FORGETTING)):
        with turn(tmp_path / "usage.db", 1), pytest.raises(UsageError, match="else is writing"):
            write()
        write()
    with turn(tmp_path / "usage.db", 1):
        assert file.sums(EVER, ()) == [[]]
        file.close()


def test_who_reads_does_not_wait_for_who_writes(
    file: SqliteUsage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that is open changes nothing for readers; writers give up soon."""
    monkeypatch.setattr(sqlite_store, "BUSY_SECONDS", 0.05)
    file.write([a_row()])
    with closing(sqlite3.connect(tmp_path / "usage.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert [one.calls for one in file.sums(EVER, ())[0]] == [1]
        with pytest.raises(UsageError, match="locked"):
            file.write([a_row()])
    file.write([a_row()])
    assert [one.calls for one in file.sums(EVER, ())[0]] == [2]


FIRST_VERSION = """
    CREATE TABLE calls (
        id INTEGER PRIMARY KEY,
        call TEXT NOT NULL, began REAL NOT NULL,
        tenant TEXT NOT NULL, token TEXT NOT NULL, token_id TEXT NOT NULL,
        service TEXT NOT NULL, host TEXT NOT NULL, method TEXT NOT NULL,
        status INTEGER NOT NULL, code TEXT NOT NULL, verdict TEXT NOT NULL, cut INTEGER NOT NULL,
        received INTEGER NOT NULL, sent INTEGER NOT NULL,
        seconds REAL NOT NULL, waited REAL NOT NULL, upstream_seconds REAL,
        successful INTEGER NOT NULL, went INTEGER NOT NULL,
        hit INTEGER NOT NULL, joined INTEGER NOT NULL,
        tokens_input INTEGER NOT NULL, tokens_output INTEGER NOT NULL,
        tokens_cached INTEGER NOT NULL, cost REAL, saved REAL, bucket INTEGER NOT NULL
    );
    CREATE INDEX calls_by_time ON calls (began);
    CREATE TABLE sums (kept); INSERT INTO sums VALUES ('as they are');
    PRAGMA user_version = 1;
"""


def test_the_calls_of_an_earlier_release_stay(file: SqliteUsage, tmp_path: Path) -> None:
    """Whoever only reads has them before, and what is written later follows them."""
    kept = [a_row(id=f"c{n}", began=NOON + n, token="ann" if n % 2 else "bob") for n in range(5)]
    with closing(sqlite3.connect(tmp_path / "usage.db")) as earlier:
        earlier.executescript(FIRST_VERSION)
        row = "?, " * len(CallRow._fields)
        earlier.executemany(f"INSERT INTO calls VALUES (NULL, {row[:-2]})", kept)
        earlier.commit()
    newest_first = kept[::-1]
    assert file.calls(EVER, "newest", 9) == newest_first
    file.open()
    assert file.calls(EVER, "newest", 9) == newest_first
    file.close()
    file.open()
    with closing(sqlite3.connect(tmp_path / "usage.db")) as later:
        assert later.execute("SELECT kept FROM sums").fetchall() == [("as they are",)]
        assert later.execute("SELECT count(*) FROM kinds").fetchone() == (2,)


def test_what_calls_have_in_common_stands_once_and_as_long_as_one_is_there(
    file: SqliteUsage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller who asks many hosts leaves nothing behind for ever."""
    monkeypatch.setattr(sqlite_store, "MOST_KINDS", 3)
    for batch in range(2):
        file.write([a_row(began=NOON + n, host=f"h{n % 5}") for n in range(20)])
        with closing(sqlite3.connect(tmp_path / "usage.db")) as opened:
            assert opened.execute("SELECT count(*) FROM kinds").fetchone() == (5,), batch
    file.sweep(Keep(calls=NOON + 18, most_calls=9**9, hours=0, days=0))
    with closing(sqlite3.connect(tmp_path / "usage.db")) as opened:
        hosts = opened.execute("SELECT host FROM kinds ORDER BY host").fetchall()
    assert hosts == [("h3",), ("h4",)]
    assert {row.host for row in file.calls(EVER, "newest", 99)} == {"h3", "h4"}


@pytest.mark.parametrize(
    ("code", "kept"),
    [
        (sqlite3.SQLITE_IOERR_FSYNC, True),
        (sqlite3.SQLITE_FULL, True),
        (sqlite3.SQLITE_CORRUPT, False),
    ],
)
def test_what_the_disk_did_not_take_for_sure_is_not_counted_twice(
    file: SqliteUsage, monkeypatch: pytest.MonkeyPatch, code: int, kept: bool
) -> None:
    """Its connection writes over it; one that opened the file anew would find it in the WAL."""
    file.open()
    before = file._connection

    @contextmanager
    def refused(_connection: object) -> Iterator[None]:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = code
        raise error
        yield

    with monkeypatch.context() as patch:
        patch.setattr("proxy.usage.sqlite._transaction", refused)
        with pytest.raises(UsageError):
            file.write([a_row()])
    assert (file._connection is before) == kept
    file.write([a_row()])
    assert len(file.calls(EVER, "newest", 9)) == 1
