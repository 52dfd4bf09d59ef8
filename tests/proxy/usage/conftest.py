"""Calls that never happened, and stores for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from proxy.record import CallRecord
from proxy.usage import CallRow, Prices, SqliteUsage, Usage, UsageSettings, UsageStore
from proxy.usage.postgres import PostgresUsage
from proxy.usage.store import DAY
from tests.support.clock import FakeClock
from tests.support.engines import RunningPostgres

NOON = 1_800_000_000.0 - 1_800_000_000.0 % DAY + DAY / 2
"""The middle of a day (UTC)."""


def a_record(**more: Any) -> CallRecord:
    """A good call, but for what is said."""
    usual: dict[str, Any] = {
        "id": "call-1",
        "began": NOON,
        "tenant": "default",
        "token": "ann",
        "token_id": "id-ann",
        "service": "openai",
        "host": "api.openai.com",
        "method": "POST",
        "status": 200,
        "code": "",
        "verdict": "bypass",
        "cut": False,
        "received": 10,
        "sent": 100,
        "seconds": 0.5,
        "waited": 0.0,
        "upstream_seconds": 0.4,
        "meter": None,
    }
    return CallRecord(**{**usual, **more})


def a_usage(store: UsageStore, prices: Prices | None = None, **more: Any) -> Usage:
    return Usage(store, prices or Prices({}), FakeClock(NOON), UsageSettings(**more))


def a_row(**more: Any) -> CallRow:
    """The row of such a call; members of a row of its own may be said too."""
    own = {name: more.pop(name) for name in list(more) if name not in CallRecord._fields}
    usage = a_usage(SqliteUsage(Path("/nowhere")))
    return usage._row(a_record(**more))._replace(**own)


Another = Callable[[], UsageStore]
"""Makes a store that holds nothing."""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SqliteUsage]:
    """The store on disk."""
    found = SqliteUsage(tmp_path / "usage.db")
    yield found
    found.close()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def another(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Another]:
    """Of either kind."""
    if request.param == "sqlite":
        folder, numbers = tmp_path_factory.mktemp("usage"), count()
        yield lambda: SqliteUsage(folder / f"usage-{next(numbers)}.db")
        return
    server: RunningPostgres = request.getfixturevalue("postgres")
    url = server.another()
    shared = PostgresUsage(url)
    shared.open()

    def emptied() -> UsageStore:
        asyncio.run(empty(url))
        return shared

    yield emptied
    shared.close()


async def empty(url: str) -> None:
    connection = await asyncpg.connect(url)
    tables = "usage_calls, usage_sums, usage_latencies"
    await connection.execute(f"TRUNCATE {tables} RESTART IDENTITY")
    await connection.close()


@pytest.fixture
def store(another: Another) -> Iterator[UsageStore]:
    """A store of either kind."""
    found = another()
    yield found
    found.close()
