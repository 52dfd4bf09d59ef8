"""The cache does over Redis what it does over a file: the same tests, another store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.cache.policy import CacheSettings
from proxy.cache.redis import RedisStore
from tests.proxy.cache import test_cache
from tests.proxy.cache.conftest import NOW, Bench, a_sealer, open_bench
from tests.proxy.cache.stores import patient
from tests.support.clock import FakeClock
from tests.support.engines import RunningRedis

SETTINGS = frozenset(CacheSettings.__dataclass_fields__)
OF_FILES = {
    "test_a_broken_store_fails_no_request",
    "test_a_fault_in_the_store_fails_no_request",
    "test_a_large_answer_is_not_kept_by_a_broken_store",
    "test_a_newer_schema_refuses_to_start",
    "test_an_answer_that_could_not_be_written_is_not_undone_by_the_old_one",
    "test_a_purge_ends_what_was_stored",
    "test_a_purge_ends_what_a_clock_that_ran_ahead_stored",
    "test_a_caller_who_leaves_a_large_hit_lets_it_go",
    "test_a_store_that_takes_nothing_is_told_until_it_does",
    "test_what_the_store_could_not_purge_is_tried_again_with_each_sweep",
}
"""Tests of what only a file does, as to be empty at once, or that bring a store of their own."""

ABOUT = ("hit", "invalidate", "vary", "large", "stream", "head", "look_up", "tenants", "purge")
"""What their names say that stores have a part in."""

for name, function in vars(test_cache).items():
    if name.startswith("test_") and name not in OF_FILES and any(one in name for one in ABOUT):
        globals()[name] = function


@pytest.fixture
def opened(tmp_path: Path, redis: RunningRedis) -> Any:
    """`async with opened(replies..., settings...) as bench`, over a Redis that only it uses."""

    @asynccontextmanager
    async def opener(*replies: Any, **changes: Any) -> AsyncIterator[Bench]:
        clock = changes.pop("clock", None) or FakeClock(NOW)
        kept = CacheSettings(**{one: changes[one] for one in changes if one in SETTINGS})
        engine = patient(redis, clock)
        store = changes.pop("store", None) or RedisStore(engine, a_sealer(), clock, kept)
        try:
            async with open_bench(tmp_path, *replies, clock=clock, store=store, **changes) as bench:
                yield bench
        finally:
            await engine.aclose()

    return opener
