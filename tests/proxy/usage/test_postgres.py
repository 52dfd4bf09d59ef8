"""Usage in PostgreSQL: several instances write, an answer is lost, the server is gone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import asyncpg
import pytest

from proxy import database
from proxy.usage import UsageError, UsageTooNew, Which
from proxy.usage.pgtables import VERSION
from proxy.usage.postgres import PostgresUsage
from proxy.usage.store import DAY, Keep
from tests.proxy.usage.conftest import NOON, a_row, empty
from tests.support.answers import Answers, answers
from tests.support.engines import RunningPostgres

__all__ = ["answers"]

EVER = Which(0, 2 * NOON)
FORGETTING = Keep(calls=EVER.until, most_calls=0, hours=EVER.until, days=EVER.until)


@pytest.fixture(scope="module")
def made(postgres: RunningPostgres) -> str:
    """The URL of a database that has the tables."""
    url = postgres.another()
    with closing(PostgresUsage(url)) as store:
        store.open()
    return url


@pytest.fixture
def url(made: str) -> str:
    """It, emptied."""
    asyncio.run(empty(made))
    return made


@pytest.fixture
def store(url: str) -> Iterator[PostgresUsage]:
    with closing(PostgresUsage(url)) as found:
        yield found


def asked(url: str, *statements: str) -> None:
    async def ask() -> None:
        connection = await asyncpg.connect(url)
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    asyncio.run(ask())


def calls_in(store: PostgresUsage) -> list[int]:
    """By sums, by buckets of durations and one by one: they agree."""
    [[whole]] = store.sums(EVER, ())
    singles = len(store.calls(EVER, "newest", 10**6))
    return [whole.calls, sum(whole.latencies.values()), singles]


def test_instances_add_to_the_same_sums_at_once(url: str) -> None:
    """In whatever order their calls come: none waits for another in a circle, all adds up."""
    names = [f"n{number}" for number in range(6)]

    def instance(seed: int) -> None:
        chance = random.Random(seed)
        with closing(PostgresUsage(url)) as store:
            for _ in range(6):
                order = chance.sample(names, len(names))
                store.write([a_row(token=a, service=b) for a in order for b in reversed(order)])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(instance, range(4))) == [None] * 4
    with closing(PostgresUsage(url)) as store:
        assert calls_in(store) == [4 * 6 * 36] * 3
        assert {one.calls for one in store.sums(EVER, ("token", "service"))[0]} == {4 * 6}


def test_the_first_instances_may_start_at_once(postgres: RunningPostgres) -> None:
    """One makes the tables, the others find them."""
    url = postgres.another()

    def instance(_: int) -> None:
        with closing(PostgresUsage(url)) as store:
            store.open()
            store.write([a_row()])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(instance, range(4))) == [None] * 4
    assert calls_in(PostgresUsage(url)) == [4, 4, 4]


def test_what_was_written_though_the_answer_was_lost_counts_once(
    store: PostgresUsage, answers: Answers
) -> None:
    """The same rows come again under the same number; others have the next."""
    store.write([a_row()])
    answers.lost = True
    for _ in range(2):
        with pytest.raises(UsageError, match="answer was lost"):
            store.write([a_row(), a_row()])
    answers.lost = False
    store.write([a_row(), a_row()])
    assert calls_in(store) == [3, 3, 3]
    store.write([a_row()])
    assert calls_in(store) == [4, 4, 4]


def test_a_connection_that_ended_is_made_anew(postgres: RunningPostgres, url: str) -> None:
    """What could not be written is, once."""
    with closing(PostgresUsage(url)) as store:
        store.write([a_row()])
        name = url.rpartition("/")[2]
        postgres.say(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        )
        try:
            store.write([a_row()])
        except UsageError:
            store.write([a_row()])
        assert calls_in(store) == [2, 2, 2]


def test_a_server_that_does_not_answer_is_not_waited_for(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody holds what would be written to: the batch comes again later."""
    monkeypatch.setattr(database, "DEADLINE_SECONDS", 0.2)

    async def blocked(store: PostgresUsage) -> None:
        other = await asyncpg.connect(url)
        async with other.transaction():
            await other.execute("LOCK TABLE usage_sums")
            with pytest.raises(UsageError, match="did not answer in time"):
                await asyncio.to_thread(store.write, [a_row()])
        await other.close()

    with closing(PostgresUsage(url)) as store:
        asyncio.run(blocked(store))
        monkeypatch.undo()
        store.write([a_row()])
        assert calls_in(store) == [1, 1, 1]


def test_a_server_that_is_gone_is_said_without_the_password(postgres: RunningPostgres) -> None:
    """To who writes and to who reads."""
    url = postgres.url_of("nowhere").replace("keyrelay@", "keyrelay:hush@")
    with closing(PostgresUsage(url)) as store:
        for use in (store.open, lambda: store.write([a_row()]), lambda: store.sums(EVER, ())):
            with pytest.raises(UsageError, match="nowhere") as refused:
                use()
            assert "hush" not in str(refused.value)


def test_what_no_database_takes_is_not_tried_for_ever(store: PostgresUsage) -> None:
    """It is another error, and the next batch another one."""
    with pytest.raises(Exception, match="0x00") as refused:
        store.write([a_row(host="a\0b")])
    assert not isinstance(refused.value, UsageError)
    store.write([a_row()])
    assert calls_in(store) == [1, 1, 1]


def test_before_the_first_call_there_is_nothing(postgres: RunningPostgres) -> None:
    """Reading makes no tables."""
    store = PostgresUsage(postgres.another())
    assert store.sums(EVER, (), ("day",)) == store.minutes(EVER, (), ("token",)) == [[], []]
    assert store.calls(EVER, "newest", 5) == store.troubles(EVER, 5) == []


def test_a_newer_schema_is_refused(postgres: RunningPostgres) -> None:
    """By who writes and by who reads; this release would not know what to write."""
    url = postgres.another()
    asked(url, "CREATE TABLE usage_version AS SELECT 99 AS version")
    with closing(PostgresUsage(url)) as store:
        for use in (store.open, lambda: store.write([a_row()]), lambda: store.sums(EVER, ())):
            with pytest.raises(UsageTooNew, match=f"schema 99, known is {VERSION}"):
                use()


def test_one_instance_sweeps_at_a_time(store: PostgresUsage, url: str) -> None:
    """Another leaves it alone; with the next sweep it goes."""

    async def both() -> None:
        other = await asyncpg.connect(url)
        async with other.transaction():
            await other.execute("SELECT pg_advisory_xact_lock(hashtext('keyrelay usage sweep'))")
            await asyncio.to_thread(store.sweep, FORGETTING)
        await other.close()

    store.write([a_row(began=NOON - DAY * number) for number in range(3)])
    asyncio.run(both())
    assert calls_in(store) == [3, 3, 3]
    store.sweep(FORGETTING)
    assert store.sums(EVER, (), ("hour",)) == [[], []]
    assert store.calls(EVER, "newest", 9) == []


def test_a_sweep_waits_for_nobody_who_adds(store: PostgresUsage, url: str) -> None:
    """Sums that an instance has in hand are left for the next time."""

    async def both() -> None:
        other = await asyncpg.connect(url)
        async with other.transaction():
            await other.execute("SELECT 1 FROM usage_sums WHERE token = 'ann' FOR UPDATE")
            await asyncio.to_thread(store.sweep, FORGETTING)
        await other.close()

    store.write([a_row(), a_row(token="bob")])
    asyncio.run(both())
    assert [one.group["token"] for one in store.sums(EVER, ("token",))[0]] == ["ann"]
