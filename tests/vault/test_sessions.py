"""A pooler between us and PostgreSQL, which lends each of its connections for one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from tests.support.engines import RunningPostgres, pooler_running
from vault import StoreUnavailable
from vault.store import Store

KNOWING = (
    "ignore_startup_parameters=statement_timeout,lock_timeout,"
    "idle_in_transaction_session_timeout,tcp_keepalives_idle"
)
FEW = "default_pool_size=2"


@pytest.fixture(scope="module")
def pooler(postgres: RunningPostgres) -> Iterator[RunningPostgres]:
    """As it comes."""
    with pooler_running(postgres, FEW) as running:
        yield running


async def test_each_transaction_has_its_bounds_though_no_session_has(
    pooler: RunningPostgres, postgres: RunningPostgres
) -> None:
    """And what was answered is durable there too; nothing of it stays for whoever comes next."""
    await _bounded(pooler, postgres)


async def test_a_pooler_that_was_told_to_look_away_is_noticed(postgres: RunningPostgres) -> None:
    """It takes what is said of a session, and does none of it. Whom it lets in it says itself."""
    with pooler_running(postgres, FEW, KNOWING) as pooler:
        await _bounded(pooler, postgres)
        store = Store.at(pooler.url.replace("keyrelay@", "somebody@"))
        with pytest.raises(StoreUnavailable, match=r'\("trust" authentication failed\)'):
            await store.state()
        await store.close()


async def _bounded(pooler: RunningPostgres, postgres: RunningPostgres) -> None:
    url = pooler.another()
    name = url.rpartition("/")[2]
    postgres.say(f"ALTER DATABASE {name} SET synchronous_commit = off")
    store = Store.at(url)
    shown = ("statement_timeout", "lock_timeout", "synchronous_commit")
    for way in (store.reading, store.writing):
        async with way() as connection:
            found = [await connection.scalar(text(f"SHOW {setting}")) for setting in shown]
        assert found == ["30s", "20s", "on"]
    assert pooler.say("SHOW statement_timeout", name) == "0"
    await store.close()


async def test_one_makes_the_vault_though_nobody_has_a_session(pooler: RunningPostgres) -> None:
    """Who is alone is so until the end, and then the next one is."""
    url = pooler.another()
    stores = [Store.at(url) for _ in range(4)]
    there = 0

    async def enter(store: Store) -> None:
        nonlocal there
        async with store.alone():
            there += 1
            assert there == 1
            await store.prepare()
            there -= 1

    await asyncio.gather(*(enter(store) for store in stores))
    for store in stores:
        await store.close()
