"""Taking calls in: nothing waits, nothing is lost but what can't be held, and that is said."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from proxy.record import CallRecord, Tokens
from proxy.usage import (
    CallRow,
    Price,
    Prices,
    SqliteUsage,
    Usage,
    UsageError,
    UsageSettings,
    UsageStore,
    UsageTooNew,
    Which,
)
from proxy.usage import usage as module
from proxy.usage.store import DAY, Keep, Order, Part
from proxy.usage.sums import Sums, document
from tests.proxy.usage.conftest import NOON, a_record, a_usage
from tests.support.clock import FakeClock

EVER = Which(0, 2 * NOON)


class Stubborn:
    """A store that fails when told to, and remembers what it was given."""

    def __init__(self) -> None:
        self.written: list[CallRow] = []
        self.swept: list[Keep] = []
        self.failure: Exception | None = None
        self.closed = False

    def open(self) -> None:
        if self.failure is not None:
            raise self.failure

    def write(self, rows: Sequence[CallRow]) -> None:
        self.open()
        self.written += rows

    def sweep(self, keep: Keep) -> None:
        self.open()
        self.swept.append(keep)

    def close(self) -> None:
        self.closed = True

    def sums(self, _which: Which, *_groupings: Sequence[Part]) -> list[list[Sums]]:
        return [[Sums({}, calls=len(self.written))]]

    def calls(self, _which: Which, _order: Order, _limit: int) -> list[CallRow]:
        return self.written


class Told:
    """A meter that has read already."""

    def __init__(self, tokens: Tokens | None, size: int = 0) -> None:
        self.size = size
        self._tokens = tokens

    def feed(self, octets: bytes) -> None:
        """Nothing comes any more."""

    def tokens(self) -> Tokens | None:
        return self._tokens


async def rows_of(*records: CallRecord, prices: Prices | None = None) -> list[CallRow]:
    store = Stubborn()
    usage = a_usage(store, prices)
    for record in records:
        usage.note(record)
    await usage.stop()
    assert store.closed
    return store.written


async def test_what_was_noted_is_there_when_somebody_asks() -> None:
    """Also what waits still."""
    store = Stubborn()
    usage = a_usage(store)
    await usage.start()
    usage.note(a_record())
    assert store.written == []
    assert (await usage.sums(EVER, ()))[0][0].calls == 1
    usage.note(a_record(id="second"))
    assert [row.call for row in await usage.calls(EVER, "newest", 9)] == ["call-1", "second"]
    await usage.stop()


async def test_who_asks_much_takes_no_thread_of_others() -> None:
    """The loop's own threads look up names, which calls wait for."""
    store, threads = Stubborn(), set()

    def sums(*_: object) -> list[list[Sums]]:
        threads.add(threading.current_thread().name)
        return []

    store.sums = sums  # type: ignore[assignment]
    usage = a_usage(store)
    await usage.start()
    await asyncio.gather(*(usage.sums(EVER, ()) for _ in range(64)))
    await usage.stop()
    assert len(threads) in (1, 2)
    assert all(name.startswith("keyrelay-usage-reads") for name in threads)


async def test_calls_are_written_while_nobody_asks(store: UsageStore) -> None:
    """By the task that `start` begins."""
    usage = a_usage(store)
    await usage.start()
    usage.note(a_record())
    async with asyncio.timeout(20):
        while not (await asyncio.to_thread(store.sums, EVER, ()))[0]:
            await asyncio.sleep(0.01)
    await usage.stop()


@pytest.mark.parametrize(
    ("more", "successful", "went"),
    [
        ({}, 1, 1),
        ({"status": 302}, 1, 1),
        ({"status": 404}, 0, 1),
        ({"status": 200, "cut": True}, 0, 1),
        ({"status": 0, "verdict": ""}, 0, 0),
        ({"status": 401, "verdict": "", "code": "unauthorized"}, 0, 0),
        ({"status": 502, "verdict": "", "code": "upstream_unreachable"}, 0, 1),
        ({"status": 502, "verdict": "", "code": "redirect_refused"}, 0, 1),
        ({"status": 502, "verdict": "", "code": "answer_too_large"}, 0, 1),
        ({"verdict": "miss"}, 1, 1),
        ({"verdict": "stored"}, 1, 1),
        ({"verdict": "hit"}, 1, 0),
        ({"verdict": "collapsed"}, 1, 0),
        ({"verdict": "hit", "cut": True, "code": "upstream_incomplete"}, 0, 0),
    ],
)
async def test_success_is_a_whole_good_answer(
    more: dict[str, Any], successful: int, went: int
) -> None:
    """And a call went out if it was sent, or failed on its way."""
    [row] = await rows_of(a_record(**more))
    assert (row.successful, row.went) == (successful, went)
    assert (row.hit, row.joined) == (
        more.get("verdict") == "hit",
        more.get("verdict") == "collapsed",
    )


async def test_a_hit_saves_what_the_call_would_have_cost() -> None:
    """The others cost it; without tokens or a price there is neither."""
    prices = Prices({"m": Price(1_000_000, 10)})
    priced, other = Told(Tokens("m", 3, 100_000)), Told(Tokens("x", 3, 4))
    rows = await rows_of(
        a_record(meter=priced),
        a_record(meter=priced, verdict="hit"),
        a_record(meter=priced, verdict="collapsed"),
        a_record(meter=other),
        a_record(meter=Told(None)),
        a_record(),
        prices=prices,
    )
    money = [(row.cost, row.saved) for row in rows]
    assert money == [(4.0, 0.0), (0.0, 4.0), (0.0, 4.0), (None, None), (None, None), (None, None)]
    assert "m" not in rows[0]
    assert rows[3].tokens_output == 4


# What goes wrong.


async def test_what_the_disk_refuses_is_kept_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Locked or full: a line when it begins and one when it ends, and every call in the end."""
    store = Stubborn()
    usage = a_usage(store)
    store.failure = UsageError("OperationalError: database or disk is full")
    await usage.start()
    for number in range(3):
        usage.note(a_record(id=str(number)))
        await usage.flush()
    assert store.written == []
    store.failure = None
    usage.note(a_record(id="3"))
    await usage.flush()
    assert [row.call for row in store.written] == ["0", "1", "2", "3"]
    assert [record.message for record in caplog.records] == [
        "usage can't be written, calls go on and it is tried again: "
        "OperationalError: database or disk is full",
        "usage is written again",
    ]
    assert usage.lost == 0
    await usage.stop()


async def test_what_was_tried_comes_again_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that did it and could not say so knows it by that. And what has waited for long is
    no more at a time than a store takes within its deadline."""
    monkeypatch.setattr(module, "AT_ONCE", 3)
    store = Stubborn()
    tried: list[list[str]] = []
    whole = store.write

    def write(rows: Sequence[CallRow]) -> None:
        tried.append([row.call for row in rows])
        whole(rows)

    store.write = write  # type: ignore[method-assign]
    store.failure = UsageError("no answer")
    usage = a_usage(store)
    for number in range(6):
        usage.note(a_record(id=str(number)))
        await usage.flush()
    store.failure = None
    await usage.stop()
    assert tried == [["0"]] * 7 + [["1", "2", "3"], ["4", "5"]]


async def test_more_than_memory_should_hold_is_lost_and_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits and what could not be written, together."""
    monkeypatch.setattr(module, "QUEUE", 5)
    store = Stubborn()
    store.failure = UsageError("locked")
    usage = a_usage(store)
    for number in range(3):
        usage.note(a_record(id=str(number)))
    await usage.flush()
    for number in range(3, 10):
        usage.note(a_record(id=str(number)))
    assert usage.lost == 5
    store.failure = None
    await usage.flush()
    assert [row.call for row in store.written] == ["0", "1", "2", "3", "4"]
    assert caplog.records[-1].message == "usage has lost 5 calls so far"
    usage.note(a_record())
    await usage.stop()
    assert len(store.written) == 6


async def test_calls_that_no_store_takes_are_lost_not_tried_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A fault of ours; the next ones are written."""
    store = Stubborn()
    usage = a_usage(store)
    store.failure = TypeError("secret text")
    usage.note(a_record())
    await usage.flush()
    store.failure = None
    usage.note(a_record(id="next"))
    await usage.stop()
    assert [row.call for row in store.written] == ["next"]
    assert usage.lost == 1
    assert [record.message for record in caplog.records] == [
        "usage has lost 1 calls: calls could not be written: TypeError"
    ]


async def test_a_call_that_can_t_be_read_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """Lost by itself."""

    class Broken(Told):
        def tokens(self) -> Tokens | None:
            raise RuntimeError("secret text")

    rows = await rows_of(a_record(meter=Broken(None)), a_record(id="good"))
    assert [row.call for row in rows] == ["good"]
    assert "RuntimeError" in caplog.text
    assert "secret text" not in caplog.text


async def test_the_last_calls_that_can_t_be_written_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At the end of the server."""
    store = Stubborn()
    store.failure = UsageError("locked")
    usage = a_usage(store)
    usage.note(a_record())
    await usage.stop()
    assert usage.lost == 1
    assert caplog.records[-1].levelno == logging.ERROR


async def test_answers_that_take_too_much_memory_are_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their calls are counted without tokens."""
    monkeypatch.setattr(module, "MOST_HELD", 100)
    tokens = Tokens("m", 3, 4)
    records = [a_record(meter=Told(tokens, size=40)) for _ in range(4)]
    rows = await rows_of(*records)
    assert [row.tokens_input for row in rows] == [3, 3, 0, 0]


async def test_the_end_of_the_server_waits_for_no_long_reading(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Bombs, one after the other: every call is counted, those that were late without tokens."""
    store, clock = Stubborn(), FakeClock(NOON)
    usage = Usage(store, Prices({}), clock, UsageSettings())

    class Slow(Told):
        def tokens(self) -> Tokens | None:
            clock.advance(module.LAST_SECONDS * 0.6)
            return super().tokens()

    for _ in range(5):
        usage.note(a_record(meter=Slow(Tokens("m", 3, 4))))
    await usage.stop()
    assert [row.tokens_input for row in store.written] == [3, 3, 0, 0, 0]
    assert caplog.messages == ["the server ends: tokens of 3 calls are not counted"]


async def test_a_newer_file_stops_the_start(tmp_path: Path) -> None:
    """As with the other databases."""
    with closing(sqlite3.connect(tmp_path / "usage.db")) as newer:
        newer.execute("PRAGMA user_version = 99")
    usage = a_usage(SqliteUsage(tmp_path / "usage.db"))
    with pytest.raises(UsageTooNew):
        await usage.start()
    await usage.stop()


async def test_what_is_old_is_swept_with_time() -> None:
    """Each kind for its own."""
    store = Stubborn()
    usage = a_usage(store, keep=DAY, keep_hours=2 * DAY, keep_days=3 * DAY, max_calls=7)
    await usage.start()
    async with asyncio.timeout(20):
        while not store.swept:
            await asyncio.sleep(0.01)
    await usage.stop()
    assert store.swept == [Keep(NOON - DAY, 7, NOON - 2 * DAY, NOON - 3 * DAY)]


@pytest.mark.parametrize("failure", [UsageError("locked"), RuntimeError("whatever")])
async def test_a_sweep_that_fails_ends_nothing(failure: Exception) -> None:
    """The task goes on."""
    store = Stubborn()
    usage = a_usage(store)
    await usage.start()
    store.failure = failure
    await usage._in_thread(usage._sweep)
    store.failure = None
    usage.note(a_record())
    await usage.stop()
    assert len(store.written) == 1


def test_sums_are_told_as_json() -> None:
    """Rates and times of nothing are null, and money where there is no price."""
    nothing = document(Sums({}))
    assert nothing["success_rate"] is None
    assert set(nothing["seconds"].values()) == {None}
    assert nothing["cost"] is nothing["saved"] is None
    some = document(Sums({"day": 1}, calls=3, successful=2, seconds=1.5, cost=0.1 + 0.2))
    assert (some["day"], some["errors"], some["success_rate"]) == (1, 1, 0.666667)
    assert (some["seconds"]["average"], some["cost"]) == (0.5, 0.3)
