"""Usage on disk: rows and their sums, what is forgotten, what a broken or newer file does."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from math import ceil, floor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.record import CallRecord
from proxy.turns import turn
from proxy.usage import CallRow, Part, SqliteUsage, Sums, UsageError, UsageTooNew, Which
from proxy.usage import sqlite as sqlite_store
from proxy.usage.latency import bucket
from proxy.usage.sqlite import SWEPT
from proxy.usage.store import DAY, HOUR, Keep
from proxy.usage.tables import VERSION
from proxy.usage.usage import SAME
from tests.proxy.usage.conftest import NOON, a_row

MIDNIGHT = NOON - DAY / 2
EVER = Which(0, MIDNIGHT * 2)
FORGETTING = Keep(calls=EVER.until, most_calls=0, hours=EVER.until, days=EVER.until)
NAMES = st.sampled_from(("a", "b", "é"))


@st.composite
def rows(draw: st.DrawFn) -> CallRow:
    """Calls of three days by a few names."""
    seconds = draw(st.floats(0, 4000, allow_nan=False))
    hit, joined, went = draw(st.sampled_from(((1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0))))
    price = draw(st.none() | st.integers(0, 1000).map(lambda n: n / 8))
    return a_row(
        began=MIDNIGHT + draw(st.floats(-DAY, 2 * DAY, exclude_max=True)),
        tenant=draw(NAMES),
        token=draw(NAMES),
        token_id=draw(NAMES),
        service=draw(NAMES),
        status=draw(st.sampled_from((0, 200, 204, 302, 401, 500))),
        cut=draw(st.booleans()),
        received=draw(st.integers(0, 10**6)),
        sent=draw(st.integers(0, 10**12)),
        seconds=seconds,
        upstream_seconds=draw(st.none() | st.floats(0, 10)),
        hit=hit,
        joined=joined,
        went=went,
        tokens_input=draw(st.integers(0, 10**6)),
        tokens_output=draw(st.integers(0, 10**6)),
        tokens_cached=draw(st.integers(0, 10**6)),
        cost=price,
        saved=price,
    )


def told_apart(row: CallRow, part: Part) -> tuple[Any, ...]:
    if part == "token":
        return row.token, row.token_id
    steps = {"day": DAY, "hour": HOUR}
    if part in steps:
        return (int(row.began // steps[part]) * steps[part],)
    return (getattr(row, part),)


def brute(found: Sequence[CallRow], by: Sequence[Part]) -> dict[tuple[Any, ...], list[CallRow]]:
    groups = defaultdict(list)
    for row in found:
        groups[tuple(name for part in by for name in told_apart(row, part))].append(row)
    return groups


def same(sums: Sums, group: list[CallRow]) -> None:
    """The sums are those of the calls, one by one."""
    went = [row for row in group if row.went]
    assert sums.calls == len(group)
    assert sums.successful == sum(row.successful for row in group)
    assert (sums.hits, sums.joined) == (sum(r.hit for r in group), sum(r.joined for r in group))
    assert sums.upstream == len(went)
    assert (sums.received, sums.sent) == (
        sum(r.received for r in group),
        sum(r.sent for r in group),
    )
    assert sums.seconds == pytest.approx(sum(row.seconds for row in group))
    assert sums.upstream_seconds == pytest.approx(sum(r.upstream_seconds or 0 for r in group))
    assert sums.slowest == max(row.seconds for row in group)
    assert sums.tokens_input == sum(row.tokens_input for row in went)
    assert sums.tokens_output == sum(row.tokens_output for row in went)
    assert sums.tokens_cached == sum(row.tokens_cached for row in went)
    spared = [row.tokens_input + row.tokens_output for row in group if row.hit or row.joined]
    assert sums.tokens_saved == sum(spared)
    prices = [row.cost for row in group if row.cost is not None]
    assert sums.cost == (sum(prices) if prices else None)
    assert sums.saved == sums.cost
    counts: dict[int, int] = defaultdict(int)
    for row in group:
        counts[bucket(row.seconds)] += 1
    assert sums.latencies == counts


GROUPINGS: list[tuple[Part, ...]] = [
    (),
    ("day",),
    ("hour",),
    ("token",),
    ("service",),
    ("tenant", "day"),
    ("day", "token", "service"),
]


@given(batches=st.lists(st.lists(rows(), max_size=20), min_size=1, max_size=4))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
def test_sums_are_those_of_the_calls_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[CallRow]]
) -> None:
    """Whatever came together in a batch, and by whatever the sums are told apart."""
    store = SqliteUsage(tmp_path_factory.mktemp("usage") / "usage.db")
    for batch in batches:
        store.write(batch)
    everything = [row for batch in batches for row in batch]
    for by, found in zip(GROUPINGS, store.sums(EVER, *GROUPINGS), strict=True):
        groups = brute(everything, by)
        told = [tuple(one.group.values()) for one in found]
        assert told == sorted(groups, key=lambda key: tuple(map(_octets, key)))
        for one in found:
            same(one, groups[tuple(one.group.values())])
    store.close()


def _octets(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


@given(
    found=st.lists(rows(), min_size=1, max_size=20),
    since=st.integers(-30, 60),
    hours=st.integers(0, 60),
    whose=st.tuples(st.none() | NAMES, st.none() | NAMES, st.none() | NAMES, st.none() | NAMES),
)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
def test_a_part_of_the_time_and_of_the_callers_is_told(
    tmp_path_factory: pytest.TempPathFactory,
    found: list[CallRow],
    since: int,
    hours: int,
    whose: tuple[str | None, str | None, str | None, str | None],
) -> None:
    """Whole hours, put together of days and hours; by tenant, service, token, token id."""
    store = SqliteUsage(tmp_path_factory.mktemp("usage") / "usage.db")
    store.write(found)
    tenant, service, token, token_id = whose
    begin = MIDNIGHT + since * HOUR
    which = Which(begin + 5, begin + hours * HOUR + 5, tenant, service, token, token_id)
    meant = [
        row
        for row in found
        if floor(which.since / HOUR) <= row.began / HOUR < ceil(which.until / HOUR)
        and tenant in (None, row.tenant)
        and service in (None, row.service)
        and token in (None, row.token, row.token_id)
        and token_id in (None, row.token_id)
    ]
    total, by_hour = store.sums(which, (), ("hour",))
    assert [one.calls for one in total] == ([len(meant)] if meant else [])
    assert sum(one.calls for one in by_hour) == len(meant)
    for one in total:
        same(one, meant)
    store.close()


def test_a_record_and_its_row_begin_alike() -> None:
    """What is copied as it is stands in the same places."""
    assert CallRow._fields[1:SAME] == CallRecord._fields[1:SAME]
    assert (CallRow._fields[0], CallRecord._fields[0]) == ("call", "id")


def test_more_rows_than_one_statement_takes_are_all_written(store: SqliteUsage) -> None:
    """In portions, none twice."""
    store.write([a_row(call=f"c{number}", service=f"s{number % 3}") for number in range(300)])
    assert [one.calls for one in store.sums(EVER, ("service",))[0]] == [100, 100, 100]
    assert {row.call for row in store.calls(EVER, "newest", 1000)} == {f"c{n}" for n in range(300)}


def test_single_calls_are_told_in_three_orders(store: SqliteUsage) -> None:
    """The newest, the slowest, the most expensive; as they were written."""
    calls = [
        a_row(call="a", began=NOON, seconds=1.0, cost=3.0),
        a_row(call="b", began=NOON + 1, seconds=3.0, cost=None),
        a_row(call="c", began=NOON + 2, seconds=2.0, cost=5.0, tenant="other"),
    ]
    store.write(calls)

    def told(order: Any, **more: Any) -> list[str]:
        return [row.call for row in store.calls(Which(NOON, NOON + 10, **more), order, 2)]

    assert told("newest") == ["c", "b"]
    assert told("slowest") == ["b", "c"]
    assert told("costliest") == ["c", "a"]
    assert told("costliest", tenant="default") == ["a", "b"]
    assert store.calls(EVER, "newest", 1) == [calls[2]]


# What is forgotten.


def keep(**more: float) -> Keep:
    return Keep(
        calls=more.get("calls", 0),
        most_calls=int(more.get("most_calls", 10**9)),
        hours=more.get("hours", 0),
        days=more.get("days", 0),
    )


def test_single_calls_go_first_then_hours_then_days(store: SqliteUsage) -> None:
    """Each for its own time; the sums stay what they were."""
    store.write([a_row(began=NOON - DAY * number) for number in range(4)])
    store.sweep(keep(calls=NOON - DAY * 1.5))
    assert len(store.calls(EVER, "newest", 10)) == 2
    assert [one.calls for one in store.sums(EVER, ())[0]] == [4]
    store.sweep(keep(hours=NOON - DAY * 1.5))
    assert len(store.sums(EVER, ("hour",))[0]) == 2
    assert len(store.sums(EVER, ("day",))[0]) == 4
    store.sweep(keep(days=MIDNIGHT - DAY))
    assert [one.group["day"] for one in store.sums(EVER, ("day",))[0]] == [MIDNIGHT - DAY, MIDNIGHT]
    assert [sum(one.latencies.values()) for one in store.sums(EVER, ("day",))[0]] == [1, 1]


def test_a_period_is_kept_until_all_of_it_is_old(store: SqliteUsage) -> None:
    """A day of which one hour is young enough stays whole."""
    store.write([a_row(began=MIDNIGHT)])
    store.sweep(keep(hours=MIDNIGHT + HOUR - 1, days=MIDNIGHT + DAY - 1))
    assert len(store.sums(EVER, ("hour",))[0]) == len(store.sums(EVER, ("day",))[0]) == 1
    store.sweep(keep(hours=MIDNIGHT + HOUR + 1, days=MIDNIGHT + DAY + 1))
    assert store.sums(EVER, ("hour",), ("day",), ()) == [[], [], []]


def test_of_too_many_calls_the_newest_stay(store: SqliteUsage) -> None:
    """Whoever floods us fills no disk; also where more go than in one step."""
    store.write([a_row(call=str(number)) for number in range(SWEPT + 20)])
    store.sweep(keep(most_calls=10))
    newest = [str(SWEPT + number) for number in range(19, 9, -1)]
    assert [row.call for row in store.calls(EVER, "newest", 1000)] == newest
    assert [one.calls for one in store.sums(EVER, ())[0]] == [SWEPT + 20]


# The file.


def test_a_file_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    """Reading makes none."""
    path = tmp_path / "usage.db"
    assert SqliteUsage(path).sums(EVER, (), ("day",)) == [[], []]
    assert SqliteUsage(path).calls(EVER, "newest", 5) == []
    assert not path.exists()


def test_the_file_is_the_owners_alone(store: SqliteUsage, tmp_path: Path) -> None:
    """As all in the data directory."""
    store.write([a_row()])
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


def test_a_batch_is_written_as_a_whole_or_not_at_all(store: SqliteUsage) -> None:
    """A row that can't be written takes the others with it, and the sums too."""
    store.write([a_row()])
    with pytest.raises(UsageError):
        store.write([a_row(), a_row()._replace(host=None)])  # type: ignore[arg-type]
    assert [one.calls for one in store.sums(EVER, ())[0]] == [1]
    store.write([a_row()])
    assert [one.calls for one in store.sums(EVER, ())[0]] == [2]


def test_every_write_takes_its_turn(store: SqliteUsage, tmp_path: Path) -> None:
    """Budgets are written to the same file, perhaps by another process: never at one instant."""
    for write in (store.open, lambda: store.write([a_row()]), lambda: store.sweep(FORGETTING)):
        with turn(tmp_path / "usage.db", 1), pytest.raises(UsageError, match="else is writing"):
            write()
        write()
    with turn(tmp_path / "usage.db", 1):
        assert store.sums(EVER, ()) == [[]]
        store.close()


def test_who_reads_does_not_wait_for_who_writes(store: SqliteUsage, tmp_path: Path) -> None:
    """A transaction that is open changes nothing for readers; writers give up soon."""
    store.write([a_row()])
    with closing(sqlite3.connect(tmp_path / "usage.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert [one.calls for one in store.sums(EVER, ())[0]] == [1]
        with pytest.raises(UsageError, match="locked"):
            store.write([a_row()])
    store.write([a_row()])
    assert [one.calls for one in store.sums(EVER, ())[0]] == [2]


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


def test_the_calls_of_an_earlier_release_stay(store: SqliteUsage, tmp_path: Path) -> None:
    """Whoever only reads has them before, and what is written later follows them."""
    kept = [a_row(id=f"c{n}", began=NOON + n, token="ann" if n % 2 else "bob") for n in range(5)]
    with closing(sqlite3.connect(tmp_path / "usage.db")) as earlier:
        earlier.executescript(FIRST_VERSION)
        row = "?, " * len(CallRow._fields)
        earlier.executemany(f"INSERT INTO calls VALUES (NULL, {row[:-2]})", kept)
        earlier.commit()
    newest_first = kept[::-1]
    assert store.calls(EVER, "newest", 9) == newest_first
    store.open()
    assert store.calls(EVER, "newest", 9) == newest_first
    store.close()
    store.open()
    with closing(sqlite3.connect(tmp_path / "usage.db")) as later:
        assert later.execute("SELECT kept FROM sums").fetchall() == [("as they are",)]
        assert later.execute("SELECT count(*) FROM kinds").fetchone() == (2,)


def test_what_calls_have_in_common_stands_once_and_as_long_as_one_is_there(
    store: SqliteUsage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller who asks many hosts leaves nothing behind for ever."""
    monkeypatch.setattr(sqlite_store, "MOST_KINDS", 3)
    for batch in range(2):
        store.write([a_row(began=NOON + n, host=f"h{n % 5}") for n in range(20)])
        with closing(sqlite3.connect(tmp_path / "usage.db")) as file:
            assert file.execute("SELECT count(*) FROM kinds").fetchone() == (5,), batch
    store.sweep(Keep(calls=NOON + 18, most_calls=9**9, hours=0, days=0))
    with closing(sqlite3.connect(tmp_path / "usage.db")) as file:
        hosts = file.execute("SELECT host FROM kinds ORDER BY host").fetchall()
    assert hosts == [("h3",), ("h4",)]
    assert {row.host for row in store.calls(EVER, "newest", 99)} == {"h3", "h4"}


@pytest.mark.parametrize(
    ("code", "kept"),
    [
        (sqlite3.SQLITE_IOERR_FSYNC, True),
        (sqlite3.SQLITE_FULL, True),
        (sqlite3.SQLITE_CORRUPT, False),
    ],
)
def test_what_the_disk_did_not_take_for_sure_is_not_counted_twice(
    store: SqliteUsage, monkeypatch: pytest.MonkeyPatch, code: int, kept: bool
) -> None:
    """Its connection writes over it; one that opened the file anew would find it in the WAL."""
    store.open()
    before = store._connection

    @contextmanager
    def refused(_connection: object) -> Iterator[None]:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = code
        raise error
        yield

    with monkeypatch.context() as patch:
        patch.setattr("proxy.usage.sqlite._transaction", refused)
        with pytest.raises(UsageError):
            store.write([a_row()])
    assert (store._connection is before) == kept
    store.write([a_row()])
    assert len(store.calls(EVER, "newest", 9)) == 1
