"""Answers on disk: sealed, bounded, whole or not there."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from proxy.cache import schema
from proxy.cache.entry import (
    OVERHEAD,
    CacheStats,
    Found,
    Holding,
    Miss,
    OpenBody,
    SchemaTooNew,
    StoreError,
)
from proxy.cache.lane import REST_SECONDS, Lane
from proxy.cache.policy import CacheSettings
from proxy.cache.purges import Purges
from proxy.cache.row import CHUNK
from proxy.cache.schema import read_stats
from proxy.cache.sqlite import SqliteStore
from proxy.cache.writer import BATCH, STEP, TOUCHES
from proxy.errors import UpstreamIncomplete
from tests.proxy.cache.conftest import NOW, a_sealer, until
from tests.proxy.cache.stores import (
    LARGE,
    found,
    on_disk,
    put,
    sending,
)
from tests.support.clock import FakeClock
from vault import Purge


async def held(store: SqliteStore, key: bytes = b"k") -> OpenBody:
    answer = await store.get(key, sending(), NOW)
    assert isinstance(answer, Found)
    assert not isinstance(answer.body, bytes)
    return answer.body


def rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path / "cache.db")) as connection:
        return connection.execute(query).fetchall()


def change(path: Path, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(path / "cache.db")) as connection, connection:
        connection.execute(statement, values)


async def test_nothing_readable_is_on_disk(tmp_path: Path) -> None:
    """Contract 6: stored bodies are encrypted; the fields too."""
    async with on_disk(tmp_path) as store:
        await put(store, body=b"the-answer-itself", fields=((b"x-name", b"the-field-itself"),))
        await put(store, b"l", body=b"a-large-one" * CHUNK)
        octets = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    octets += (tmp_path / "cache.db").read_bytes()
    for text in (b"the-answer-itself", b"the-field-itself", b"x-name", b"a-large-one"):
        assert text not in octets


async def test_the_files_are_for_the_owner_only(tmp_path: Path) -> None:
    """Whatever the umask says."""
    async with on_disk(tmp_path) as store:
        await put(store)
        modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("cache.db*")}
    assert modes == {0o600}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET expires_at = expires_at + 100",
        "UPDATE entries SET tenant = 'other'",
        "UPDATE entries SET service = 'other'",
        "UPDATE entries SET key = x'6b'",
        "UPDATE entries SET head = (SELECT head FROM entries WHERE key = x'6f')",
        "UPDATE chunks SET sealed = (SELECT sealed FROM chunks WHERE entry = 2) WHERE entry = 1",
        "UPDATE chunks SET sealed = substr(sealed, 2)",
    ],
)
async def test_a_row_that_was_changed_or_moved_does_not_open(
    tmp_path: Path, statement: str
) -> None:
    """Contract 6: bound to their row."""
    async with on_disk(tmp_path) as store:
        await put(store, b"k" if "6b" not in statement else b"x")
        await put(store, b"o", body=b"BODY")
    change(tmp_path, statement if "6b" not in statement else statement + " WHERE id = 1")
    async with on_disk(tmp_path) as store:
        with pytest.raises(StoreError):
            await found(store)


async def test_a_row_that_does_not_open_is_replaced(tmp_path: Path) -> None:
    """The next answer takes its place."""
    async with on_disk(tmp_path) as store:
        await put(store)
        change(tmp_path, "UPDATE entries SET service = 'other'")
        await put(store, body=b"new")
        assert await found(store) == b"new"
        assert (await store.stats()).entries == 1


async def test_two_readers_of_a_damaged_entry_are_both_cut(tmp_path: Path) -> None:
    """The second finds it ended already."""
    async with on_disk(tmp_path) as store:
        await put(store, body=LARGE)
        change(tmp_path, "UPDATE chunks SET sealed = x'00' WHERE number = 2")
        for body in (await held(store), await held(store)):
            with pytest.raises(UpstreamIncomplete):
                _ = [chunk async for chunk in body]
        assert (await store.stats()).entries == 0


async def test_a_lost_chunk_cuts(tmp_path: Path) -> None:
    """A cut answer never looks whole; without its first chunk an entry is none."""
    async with on_disk(tmp_path) as store:
        await put(store, body=LARGE)
        change(tmp_path, "DELETE FROM chunks WHERE number = 1")
        with pytest.raises(UpstreamIncomplete):
            await found(store)
        change(tmp_path, "DELETE FROM chunks")
        assert await found(store) is Miss.ABSENT


async def test_a_start_deletes_what_a_crash_left(tmp_path: Path) -> None:
    """Rows that were not complete."""
    async with on_disk(tmp_path) as store:
        await put(store, body=LARGE)
    change(tmp_path, "UPDATE entries SET state = 0")
    async with on_disk(tmp_path) as store:
        assert await found(store) is Miss.ABSENT
        assert rows(tmp_path, "SELECT * FROM chunks") == []


async def test_the_disk_is_bounded_and_the_longest_unused_goes(tmp_path: Path) -> None:
    """Contract 6: bounded by size (LRU)."""
    clock = FakeClock(NOW)
    async with on_disk(tmp_path, clock, disk_bytes=2 * (OVERHEAD + 4)) as store:
        await put(store, b"a")
        clock.advance(1)
        await put(store, b"b")
        clock.advance(1)
        assert await found(store, b"a", now=clock.now()) == b"body"
        clock.advance(1)
        await put(store, b"c")
        assert [await found(store, k) for k in (b"a", b"b", b"c")] == [
            b"body",
            Miss.ABSENT,
            b"body",
        ]


async def test_a_tenant_has_a_quota(tmp_path: Path) -> None:
    """Contract 6: bounded per tenant."""
    async with on_disk(tmp_path, tenant_bytes=2 * (OVERHEAD + 4)) as store:
        await put(store, b"other", tenant="u")
        for key in (b"a", b"b", b"c"):
            await put(store, key)
        assert await found(store, b"a") is Miss.ABSENT
        assert [await found(store, k) for k in (b"other", b"b", b"c")] == [b"body"] * 3


async def test_the_largest_tenant_makes_room(tmp_path: Path) -> None:
    """Nobody pushes the others out; counted again after a restart."""
    bound = {"disk_bytes": 3 * (OVERHEAD + 4)}
    async with on_disk(tmp_path, **bound) as store:
        await put(store, b"mine", tenant="small")
        await put(store, b"a", tenant="large")
    async with on_disk(tmp_path, **bound) as store:
        for key in (b"b", b"c", b"d"):
            await put(store, key, tenant="large")
        assert await found(store, b"mine") == b"body"
        assert (await store.stats()).entries == 3


async def test_an_entry_without_room_removes_itself(tmp_path: Path) -> None:
    """And nothing fails."""
    async with on_disk(tmp_path, disk_bytes=OVERHEAD) as store:
        await put(store)
        assert (await store.stats()).entries == 0


async def test_uses_are_noted_in_batches(tmp_path: Path) -> None:
    """Not one write per hit; with too many to note, the rest is forgotten."""
    async with on_disk(tmp_path) as store:
        await put(store)
        for number in range(TOUCHES):
            store.touch(b"%d" % number, NOW + 5)
        store.touch(b"k", NOW + 5)
        store.touch(b"0", NOW + 6)
        assert rows(tmp_path, "SELECT used_at FROM entries") == [(NOW,)]
    assert rows(tmp_path, "SELECT used_at FROM entries") == [(NOW,)]
    async with on_disk(tmp_path) as store:
        store.touch(b"k", NOW + 7)
    assert rows(tmp_path, "SELECT used_at FROM entries") == [(NOW + 7,)]


async def test_many_uses_do_not_wait_for_the_end(tmp_path: Path) -> None:
    """At half of what is noted at most they are written with an answer."""
    async with on_disk(tmp_path) as store:
        await put(store)
        for key in (b"k", *(b"%d" % number for number in range(TOUCHES // 2))):
            store.touch(key, NOW + 5)
        await put(store, b"other")
        query = "SELECT used_at FROM entries WHERE key = x'6b'"
        assert rows(tmp_path, query) == [(NOW + 5,)]


# Waiting, and never asking in vain.


async def test_answers_that_wait_together_are_all_kept(tmp_path: Path) -> None:
    """Small, empty and large ones."""
    async with on_disk(tmp_path) as store:
        bodies = {b"%d" % n: LARGE[: (0, 9, CHUNK, len(LARGE))[n % 4]] for n in range(12)}
        await asyncio.gather(*(put(store, key, body) for key, body in bodies.items()))
        assert {key: await found(store, key) for key in bodies} == bodies
        assert (await store.stats()).entries == len(bodies)


async def test_of_equal_answers_that_wait_the_last_stays(tmp_path: Path) -> None:
    """Answers of one key are written in the order in which they came."""
    async with on_disk(tmp_path) as store:
        others = [put(store, b"%d" % n) for n in range(3)]
        await asyncio.gather(put(store, body=b"old"), *others, put(store, body=b"new"))
        assert await found(store) == b"new"
        assert (await store.stats()).entries == 4
        late = put(store, body=LARGE), put(store, body=b"newest")
        await asyncio.gather(*late)
        assert await found(store) == b"newest"
        assert (await store.stats()).entries == 4


@pytest.mark.parametrize("body", [b"small", LARGE])
async def test_what_waits_is_purged_too(tmp_path: Path, body: bytes) -> None:
    """It was requested before; what was requested since then is kept."""
    async with on_disk(tmp_path) as store:
        puts = put(store, body=body), put(store, b"later", body, requested_at=NOW + 2)
        waiting = asyncio.gather(*puts)
        await asyncio.sleep(0)
        await store.purge(Purge(NOW + 1, None, None))
        await waiting
        assert await found(store) is Miss.ABSENT
        assert await found(store, b"later") == body
        assert rows(tmp_path, "SELECT COUNT(*) FROM entries") == [(1,)]


async def test_much_is_evicted_in_one_go(tmp_path: Path) -> None:
    """More than one statement removes; the longest unused, and no more than must go."""
    clock, cost = FakeClock(NOW), OVERHEAD + 4
    async with on_disk(tmp_path, clock, disk_bytes=4 * BATCH * cost) as store:
        await asyncio.gather(*(put(store, b"%d" % n) for n in range(4 * BATCH)))
        clock.advance(1)
        await put(store, b"large", bytes(300 * cost), tenant="u")
        held = (await store.stats()).holdings
        assert (held["t", "s"].entries, held["u", "s"].entries) == (4 * BATCH - 301, 1)
        assert await found(store, b"300") is Miss.ABSENT
        assert await found(store, b"301") == b"body"


async def test_rows_that_somebody_else_removed_are_counted_anew(tmp_path: Path) -> None:
    """With nothing left to remove, the count was wrong."""
    async with on_disk(tmp_path, disk_bytes=2 * (OVERHEAD + 4)) as store:
        await put(store, b"a", tenant="u")
        await put(store, b"b", tenant="u")
        change(tmp_path, "DELETE FROM entries")
        await put(store)
        assert await found(store) == b"body"
        await put(store, b"l")
        assert (await store.stats()).entries == 2


async def test_a_key_that_was_never_there_is_not_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A miss costs no turn of another thread; after a restart neither."""
    async with on_disk(tmp_path) as store:
        await put(store, b"gone", expires_at=NOW)
        await put(store)
        await store.sweep(NOW)
    asked: list[Any] = []
    async with on_disk(tmp_path) as store:
        run = store._reads.run

        async def noted(*arguments: Any) -> Any:
            asked.append(arguments)
            return await run(*arguments)

        monkeypatch.setattr(store._reads, "run", noted)
        assert await found(store, b"never") is Miss.ABSENT
        assert await found(store, b"gone") is Miss.ABSENT
        assert asked == []
        assert await found(store) == b"body"
        assert len(asked) == 1
        await store.purge(Purge(NOW, None, None))
        assert await found(store) is Miss.ABSENT
        assert len(asked) == 1


async def test_a_failed_removal_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that is rolled back has removed no key."""
    async with on_disk(tmp_path) as store:
        await put(store)
        monkeypatch.setattr(store._writer, "_make_room", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await put(store, body=b"new")
        assert await found(store) == b"body"


async def test_what_is_over_is_swept(tmp_path: Path) -> None:
    """In batches; the file shrinks."""
    async with on_disk(tmp_path) as store:
        await asyncio.gather(*(put(store, b"%d" % number) for number in range(BATCH + 1)))
        await put(store, expires_at=NOW + 99)
        await store.sweep(NOW + 10)
        assert (await store.stats()).entries == 1
        assert await found(store) == b"body"


@pytest.mark.parametrize(
    ("purge", "left"),
    [
        (Purge(NOW, None, None), 1),
        (Purge(NOW, "t", None), 2),
        (Purge(NOW, None, "s"), 2),
        (Purge(NOW, "t", "s"), 3),
        (Purge(NOW - 1, None, None), 4),
    ],
)
async def test_a_purge_removes_what_it_covers(tmp_path: Path, purge: Purge, left: int) -> None:
    """By time, tenant and service."""
    async with on_disk(tmp_path, FakeClock(NOW + 1)) as store:
        await put(store, b"a")
        await put(store, b"b", tenant="u")
        await put(store, b"c", service="x")
        await put(store, b"d", requested_at=NOW + 1)
        await store.purge(purge)
        assert (await store.stats()).entries == left


async def test_many_purges_look_at_each_row_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row goes where any of them covers it; of equal reach the later one counts."""
    async with on_disk(tmp_path, FakeClock(NOW + 1)) as store:
        await put(store, b"a")
        await put(store, b"b", tenant="u")
        await put(store, b"c", tenant="u", service="x")
        await put(store, b"d", tenant="u", requested_at=NOW + 9)
        await put(store, b"e", tenant="v")
        passes, real = list[int](), store._writer.remove_covered
        monkeypatch.setattr(
            store._writer, "remove_covered", lambda *given: passes.append(1) or real(*given)
        )
        purges = Purge(NOW, "t"), Purge(NOW, "u", "s"), Purge(NOW - 1, "t"), Purge(NOW - 1)
        await store.purge(*purges)
        assert len(passes) == 1
        left = [key for key in (b"a", b"b", b"c", b"d", b"e") if await found(store, key) == b"body"]
        assert left == [b"c", b"e"]


async def test_a_purge_goes_through_the_rows_in_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each looks at the next ones, whatever goes of them; the disk has its room back at the end."""
    monkeypatch.setattr("proxy.cache.writer.PAGES", 8)
    async with on_disk(tmp_path) as store:
        mine = (put(store, b"%d" % number, bytes(99)) for number in range(STEP))
        others = (put(store, b"o%d" % number, tenant="u") for number in range(STEP))
        await asyncio.gather(*(one for pair in zip(mine, others, strict=True) for one in pair))
        before, steps = rows(tmp_path, "PRAGMA page_count"), list[int]()
        real = store._writer.remove_covered

        def noted(purges: Purges, after: int, connection: sqlite3.Connection) -> int | None:
            steps.append(after)
            return real(purges, after, connection)

        monkeypatch.setattr(store._writer, "remove_covered", noted)
        await store.purge(Purge(NOW, "t", None))
        assert (await store.stats()).entries == STEP
        assert steps == [0, STEP, 2 * STEP]
        await store.purge(Purge(NOW, None, None))
        assert rows(tmp_path, "SELECT COUNT(*) FROM chunks") == [(0,)]
        assert rows(tmp_path, "PRAGMA freelist_count") == [(0,)]
        assert rows(tmp_path, "PRAGMA page_count")[0][0] < before[0][0] // 4


@pytest.mark.parametrize("swept", [False, True])
async def test_large_answers_go_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swept: bool
) -> None:
    """So that nothing waits long behind them."""
    monkeypatch.setattr("proxy.cache.writer.MUCH", 2 * CHUNK)
    async with on_disk(tmp_path) as store:
        for number in range(5):
            await put(store, b"%d" % number, bytes(CHUNK))
        steps, real = list[int](), store._writer._remove

        def noted(some: Any, connection: sqlite3.Connection) -> None:
            steps.append(len(some))
            real(some, connection)

        monkeypatch.setattr(store._writer, "_remove", noted)
        await (store.sweep(NOW + 10) if swept else store.purge(Purge(NOW, None, None)))
        assert steps == [2, 2, 1]
        assert rows(tmp_path, "PRAGMA page_count")[0][0] < 20


async def test_of_too_many_free_pages_each_sweep_gives_some_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few at a time, as each takes long; answers that come fill them, too."""
    monkeypatch.setattr("proxy.cache.writer.TOO_MANY", 0)
    monkeypatch.setattr("proxy.cache.sqlite.SHRINKS", 2)

    def free() -> int:
        number: int = rows(tmp_path, "PRAGMA freelist_count")[0][0]
        return number

    async with on_disk(tmp_path) as store:
        await put(store, body=LARGE)
        await store.purge(Purge(NOW, None, None))
        before = free()
        assert before > 9
        await put(store, body=bytes(40_000), requested_at=NOW + 1)
        assert free() < before
        while (before := free()) > 0:
            await store.sweep(NOW)
            assert before - 4 <= free() < before
        assert await found(store) == bytes(40_000)


async def test_a_lower_limit_is_reached_in_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes makes more room than it takes; the sweep removes the rest, and the disk has its
    room back."""
    cost = OVERHEAD + 9999
    monkeypatch.setattr("proxy.cache.writer.MUCH", 4 * cost)
    async with on_disk(tmp_path) as store:
        for number in range(40):
            await put(store, b"%d" % number, bytes(9999))
        before = rows(tmp_path, "PRAGMA page_count")[0][0]
    async with on_disk(tmp_path, disk_bytes=4 * cost) as store:
        await put(store, body=bytes(9999))
        assert (await store.stats()).entries == 36
        steps, real = list[bool](), store._writer.remove_surplus

        def noted(connection: sqlite3.Connection) -> bool:
            steps.append(real(connection))
            return steps[-1]

        monkeypatch.setattr(store._writer, "remove_surplus", noted)
        await store.sweep(NOW)
        assert (await store.stats()).entries == 4
        assert steps == [True] * 7 + [False]
        assert await found(store) == bytes(9999)
        assert rows(tmp_path, "PRAGMA page_count")[0][0] < before // 4


async def test_a_file_that_cant_shrink_is_left_as_large_as_it_is(tmp_path: Path) -> None:
    """As others may have made it."""
    path = tmp_path / "cache.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in schema.TABLES:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {schema.VERSION}")
    async with on_disk(tmp_path) as store:
        await asyncio.gather(*(put(store, b"%d" % number, bytes(999)) for number in range(99)))
        await store.purge(Purge(NOW, None, None))
        assert rows(tmp_path, "PRAGMA freelist_count")[0][0] > 0
        assert (await store.stats()).entries == 0


async def test_what_is_being_read_stays_readable(tmp_path: Path) -> None:
    """Replaced, evicted or purged: whoever reads it gets all of it, nobody else gets it."""
    async with on_disk(tmp_path) as store:
        await put(store, body=LARGE)
        body = await held(store)
        again = await held(store)
        again.close()
        again.close()
        await put(store, body=b"new")
        await store.purge(Purge(NOW, None, None))
        assert await found(store) is Miss.ABSENT
        assert b"".join([chunk async for chunk in body]) == LARGE
        assert rows(tmp_path, "SELECT COUNT(*) FROM chunks") == [(3,)]
        body.close()
        await store.stats()  # the pin is given back in the thread that reads
        await store.sweep(NOW)
        assert rows(tmp_path, "SELECT COUNT(*) FROM chunks") == [(0,)]


async def test_a_caller_who_leaves_during_the_look_up_holds_nothing(tmp_path: Path) -> None:
    """A hang-up at the wrong moment must not keep rows for ever."""
    async with on_disk(tmp_path) as store:
        await put(store, body=LARGE)
        await put(store, b"s")
        await put(store, b"miss", vary=b"user-agent", variant=b"1")
        for key in (b"k", b"s", b"miss"):
            looking = asyncio.create_task(store.get(key, sending(), NOW))
            await asyncio.sleep(0)
            looking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await looking
        await store.stats()
        await until(lambda: not store._pins._readers)
        await store.purge(Purge(NOW, None, None))
        assert rows(tmp_path, "SELECT COUNT(*) FROM chunks") == [(0,)]


async def test_a_row_that_goes_during_the_look_up_is_a_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row is either pinned before it is removed, or seen to be gone."""
    async with on_disk(tmp_path) as store:
        await put(store, body=LARGE)
        chunk = store._chunk

        def removed_after(*arguments: Any) -> Any:
            octets = chunk(*arguments)
            change(tmp_path, "UPDATE entries SET state = 2")
            return octets

        monkeypatch.setattr(store, "_chunk", removed_after)
        assert await found(store) is Miss.ABSENT
        assert not store._pins._readers


async def test_a_closed_store_is_an_error(tmp_path: Path) -> None:
    """Not a crash."""
    async with on_disk(tmp_path) as store:
        await put(store, body=LARGE)
        body = await held(store)
    with pytest.raises(StoreError):
        await found(store)
    with pytest.raises(UpstreamIncomplete):
        _ = [chunk async for chunk in body]
    body.close()


async def test_a_newer_schema_refuses_to_start(tmp_path: Path) -> None:
    """Contract 9: a newer schema than the program's refuses to start."""
    async with on_disk(tmp_path):
        pass
    change(tmp_path, "PRAGMA user_version = 99")
    with pytest.raises(SchemaTooNew, match="schema 99"):
        async with on_disk(tmp_path):
            raise AssertionError
    with pytest.raises(SchemaTooNew):
        read_stats(tmp_path / "cache.db")


@pytest.mark.parametrize("octets", [b"no database at all, but some text" * 200, None])
async def test_a_broken_file_is_moved_aside_at_the_start(
    tmp_path: Path, octets: bytes | None
) -> None:
    """Contract 6: a broken cache never fails anything; it begins anew."""
    async with on_disk(tmp_path) as store:
        await put(store)
    file = tmp_path / "cache.db"
    file.write_bytes(octets or file.read_bytes()[:100] + b"\xff" * 8000)
    async with on_disk(tmp_path) as store:
        assert await found(store) is Miss.ABSENT
        await put(store)
        assert await found(store) == b"body"
    assert (tmp_path / "cache.db.broken").exists()


def damage(path: Path) -> None:
    """Spoils every page but the first, under an open database."""
    with (path / "cache.db").open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


@pytest.mark.parametrize("noticed_by", ["get", "put"])
async def test_a_file_that_breaks_while_in_use_is_replaced(tmp_path: Path, noticed_by: str) -> None:
    """Who looks something up sees one error, who stores something none; the cache begins anew."""
    async with on_disk(tmp_path) as store:
        for number in range(50):
            await put(store, b"%d" % number, body=LARGE[:9000])
    async with on_disk(tmp_path) as store:
        damage(tmp_path)
        if noticed_by == "get":
            with pytest.raises(StoreError):
                await found(store, b"1")
        else:
            await put(store, b"new")
        assert await found(store, b"1") is Miss.ABSENT
        await put(store)
        assert await found(store) == b"body"


async def test_a_locked_database_is_an_error_and_rests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contract 6: locked never fails a request; nobody else waits for it until it has rested."""
    monkeypatch.setattr(schema, "LOCKED_SECONDS", 0.01)
    clock = FakeClock(NOW)
    async with on_disk(tmp_path, clock) as store:
        with closing(sqlite3.connect(tmp_path / "cache.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="locked"):
                await put(store)
            with pytest.raises(StoreError, match="rests"):
                await put(store)
            assert await found(store) is Miss.ABSENT
            other.execute("ROLLBACK")
        clock.advance(REST_SECONDS)
        await put(store)
        assert await found(store) == b"body"


def allow_few_pages(connection: sqlite3.Connection) -> None:
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + 3}").fetchall()


@pytest.mark.parametrize("body", [b"body" * 9000, LARGE])
async def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, body: bytes) -> None:
    """Contract 6: full never fails a request."""
    clock = FakeClock(NOW)
    async with on_disk(tmp_path, clock) as store:
        await store._writes.run(allow_few_pages)
        with pytest.raises(StoreError, match="full"):
            await put(store, body=body)
        clock.advance(REST_SECONDS)
        assert await found(store, now=clock.now()) is Miss.ABSENT
        await put(store, body=b"small")
        assert await found(store) == b"small"
        assert rows(tmp_path, "SELECT COUNT(*) FROM entries WHERE state = 1") == [(1,)]


async def test_a_database_locked_at_the_start_is_not_moved_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a broken one is."""
    monkeypatch.setattr(schema, "LOCKED_SECONDS", 0.01)
    async with on_disk(tmp_path) as store:
        await put(store)
    clock = FakeClock(NOW)
    store = SqliteStore(tmp_path / "cache.db", a_sealer(), clock, CacheSettings())
    with closing(sqlite3.connect(tmp_path / "cache.db", isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            await store.start()
    clock.advance(REST_SECONDS)
    assert await found(store) is Miss.ABSENT or await found(store) == b"body"
    await put(store)
    assert await found(store) == b"body"
    await store.close()


async def test_only_one_process_writes(tmp_path: Path) -> None:
    """A second server on the same directory goes without the disk, and does not read it either."""
    async with on_disk(tmp_path) as store:
        await put(store)
        second = SqliteStore(tmp_path / "cache.db", a_sealer(), FakeClock(NOW), CacheSettings())
        with pytest.raises(StoreError, match="another keyrelay"):
            await second.start()
        with pytest.raises(StoreError):
            await found(second)
        await second.close()
        assert await found(store) == b"body"


async def test_a_directory_that_comes_later_is_used_later(tmp_path: Path) -> None:
    """A store that could not be opened is tried again after a rest."""
    clock = FakeClock(NOW)
    store = SqliteStore(tmp_path / "later" / "cache.db", a_sealer(), clock, CacheSettings())
    with pytest.raises(StoreError):
        await store.start()
    (tmp_path / "later").mkdir()
    clock.advance(REST_SECONDS)
    await put(store)
    assert await found(store) == b"body"
    await store.close()


async def test_stats_count_by_tenant_and_service(tmp_path: Path) -> None:
    """Octets with what an entry costs beside its body."""
    async with on_disk(tmp_path) as store:
        assert await store.stats() == CacheStats()
        await put(store, b"a")
        await put(store, b"b")
        await put(store, b"c", tenant="u", service="")
        stats = await store.stats()
        assert stats.holdings == {
            ("t", "s"): Holding(2, 2 * (OVERHEAD + 4)),
            ("u", ""): Holding(1, OVERHEAD + 4),
        }
        assert (stats.entries, stats.octets) == (3, 3 * (OVERHEAD + 4))
        assert read_stats(tmp_path / "cache.db") == stats


def test_stats_of_no_cache_are_nothing(tmp_path: Path) -> None:
    """Before the first start, or between making the file and its tables."""
    assert read_stats(tmp_path / "cache.db").entries == 0
    (tmp_path / "cache.db").touch()
    assert read_stats(tmp_path / "cache.db").entries == 0


def test_stats_of_a_broken_file_are_an_error(tmp_path: Path) -> None:
    """The sentence names the remedy."""
    (tmp_path / "cache.db").write_bytes(b"x" * 5000)
    with pytest.raises(StoreError, match="try again"):
        read_stats(tmp_path / "cache.db")


async def test_a_failing_commit_is_rolled_back(tmp_path: Path) -> None:
    """All or nothing; also where SQLite has rolled back by itself."""
    async with on_disk(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / "cache.db", isolation_level=None)) as connection:
        with pytest.raises(ValueError, match="no"), schema.transaction(connection):
            raise ValueError("no")
        with pytest.raises(ValueError, match="no"), schema.transaction(connection):
            connection.execute("ROLLBACK")
            raise ValueError("no")
        assert not connection.in_transaction


async def test_a_lane_hands_back_what_nobody_waits_for(tmp_path: Path) -> None:
    """A result, but no failure."""
    lane = Lane("test", lambda: sqlite3.connect(":memory:"), FakeClock(NOW))
    handed: list[int] = []

    async def abandon(work: Callable[[sqlite3.Connection], int], taker: Any) -> None:
        task = asyncio.create_task(lane.run(work, taker))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    def fails(_connection: sqlite3.Connection) -> int:
        raise ValueError

    await abandon(lambda c: 1, handed.append)
    await abandon(fails, handed.append)
    await abandon(lambda c: 2, None)
    await lane.close()
    await until(lambda: handed == [1])


def once_broken(monkeypatch: pytest.MonkeyPatch, place: Any, name: str) -> None:
    """The first use says what SQLite says of a broken file, and of a read that failed."""
    broken = sqlite3.DatabaseError("database disk image is malformed")
    broken.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    stumbling(monkeypatch, place, name, broken)


def stumbling(
    monkeypatch: pytest.MonkeyPatch, place: Any, name: str, *errors: sqlite3.Error
) -> None:
    real, waiting = getattr(place, name), list(errors)

    def stumble(*args: Any) -> Any:
        if waiting:
            raise waiting.pop(0)
        return real(*args)

    monkeypatch.setattr(place, name, stumble)


async def test_a_read_that_failed_once_costs_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking up, storing, opening: a file is moved aside when it is broken twice."""
    clock = FakeClock(NOW)
    async with on_disk(tmp_path, clock) as store:
        await put(store)
        once_broken(monkeypatch, store, "_find")
        assert await found(store) == b"body"
        once_broken(monkeypatch, store, "_find")
        stumbling(monkeypatch, store._reads, "_connect", sqlite3.OperationalError("locked"))
        with pytest.raises(StoreError, match="locked"):
            await found(store)
        clock.advance(REST_SECONDS)
        once_broken(monkeypatch, store._writer, "insert")
        await put(store, b"other")
    once_broken(monkeypatch, schema, "_prepare")
    async with on_disk(tmp_path) as store:
        assert (await found(store), await found(store, b"other")) == (b"body", b"body")
    assert not (tmp_path / "cache.db.broken").exists()
