"""Answers in Redis: sealed, whole or not there, the same for all processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.cache import redis as store_module
from proxy.cache import registers as module
from proxy.cache.entry import CacheStats, Found, Holding, Miss, StoreError
from proxy.cache.policy import CacheSettings
from proxy.cache.redis import RedisStore
from proxy.cache.registers import BATCH
from proxy.cache.row import CHUNK
from proxy.cache.shelf import tag_of
from proxy.cache.shelves import GRACE_MS, STAGED_MS
from proxy.engine import Engine, Place
from proxy.errors import UpstreamIncomplete
from tests.proxy.cache.conftest import NOW, a_sealer, until
from tests.proxy.cache.stores import (
    LARGE,
    PREFIX,
    SIZES,
    Octets,
    an_entry,
    body_of,
    chunks,
    found,
    in_redis,
    put,
    sending,
)
from tests.support.clock import FakeClock
from tests.support.engines import RunningRedis
from vault import Purge


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A purge looks once more at once."""
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.0)


def names(at: RunningRedis, pattern: str = "*") -> list[str]:
    return at.say("--scan", "--pattern", pattern).split()


async def test_another_process_finds_it(redis: RunningRedis) -> None:
    """Of any size, whole."""
    async with in_redis(redis) as one, in_redis(redis) as other:
        for size in SIZES:
            await put(one, b"%d" % size, LARGE[:size])
            assert await found(other, b"%d" % size) == LARGE[:size]
        assert await found(other, b"l") is Miss.ABSENT


async def test_a_key_has_so_many_variants_and_the_oldest_go(
    redis: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upstream that varies by everything fills no shelf."""
    monkeypatch.setattr(store_module, "VARIANTS", 3)
    async with in_redis(redis) as store:
        for number in range(5):
            await put(store, vary=b"user-agent", variant=b"%d" % number)
        kept = [await found(store, value=b"%d" % number) for number in range(5)]
        assert kept == [Miss.VARIES] * 2 + [b"body"] * 3
        assert (await store.stats()).entries == 3


async def test_nothing_readable_is_in_redis(redis: RunningRedis) -> None:
    """Contract 6: stored bodies are encrypted; the fields too."""
    async with in_redis(redis) as store:
        await put(store, body=b"the-answer-itself", fields=((b"x-name", b"the-field-itself"),))
        await put(store, b"l", body=b"a-large-one" * CHUNK)
        octets = b"".join([value async for value in everything(store)])
    assert len(octets) > 11 * CHUNK
    for text in (b"the-answer-itself", b"the-field-itself", b"x-name", b"a-large-one"):
        assert text not in octets


async def everything(store: RedisStore) -> AsyncIterator[bytes]:
    engine = store._shelves._engine
    async for name in engine.client.scan_iter(f"{PREFIX}*"):
        yield name + await engine.client.dump(name)


async def test_all_that_is_in_redis_has_an_end(redis: RunningRedis) -> None:
    """So that Redis may evict it, and a server that is gone for ever leaves nothing for ever."""
    async with in_redis(redis) as store:
        await put(store)
        await put(store, b"l", body=LARGE)
        await store.purge(Purge(NOW - 9, None, None))
        await until(lambda: not store._purging)
    lasting = {name for name in names(redis) if redis.say("ttl", name) == "-1"}
    assert lasting == {f"{PREFIX}:{{cache-of:}}:tenants"}


@pytest.mark.parametrize("what", ["label", "value", "moved", "nonsense", "short"])
async def test_what_was_changed_or_moved_does_not_open(redis: RunningRedis, what: str) -> None:
    """Contract 6: bound to their key, their times and each other."""
    async with in_redis(redis) as store:
        await put(store)
        await put(store, b"o", body=b"BODY")
        client = store._shelves._engine.client
        shelf, other = (store._shelves.shelf(tag_of(key)) for key in (b"k", b"o"))
        ((field, value),) = (await client.hgetall(shelf)).items()
        ((label, moved),) = (await client.hgetall(other)).items()
        new = {
            "label": (field.replace(b" ", b" 1", 1), value),
            "value": (field, value[:-1] + bytes([value[-1] ^ 1])),
            "moved": (label, moved),
            "nonsense": (b"no label", value),
            "short": (field, value[:9]),
        }[what]
        await client.delete(shelf)
        await client.hset(shelf, *new)
        with pytest.raises(StoreError):
            await found(store)


@pytest.mark.parametrize("count", [b"0", b"1", b"2", b"4"])
async def test_a_label_that_tells_of_other_chunks_makes_no_answer_shorter(
    redis: RunningRedis, count: bytes
) -> None:
    """How long an answer is says its sealed head: a cut one never looks whole."""
    async with in_redis(redis) as store:
        await put(store, body=LARGE)
        client, shelf = store._shelves._engine.client, store._shelves.shelf(tag_of(b"k"))
        ((field, value),) = (await client.hgetall(shelf)).items()
        first = await client.get(chunks(redis)[0])
        parts = field.split(b" ", 4)
        await client.delete(shelf)
        changed = b" ".join((*parts[:3], count, parts[4]))
        await client.hset(shelf, changed, value + first if count == b"0" else value)
        with pytest.raises(StoreError):
            await found(store)


@pytest.mark.parametrize("label", [b"nonsense", b"0 1 9999999999999 0 1 1 AB v"])
async def test_a_shelf_with_nonsense_is_an_error_of_the_store(
    redis: RunningRedis, label: bytes
) -> None:
    """Also to whoever writes there: it does not try for ever."""
    async with in_redis(redis) as store:
        await store._shelves._engine.client.hset(store._shelves.shelf(tag_of(b"k")), label, b"")
        with pytest.raises(StoreError):
            await put(store)


async def test_a_list_of_tenants_with_nonsense_is_an_error_of_the_store(
    redis: RunningRedis,
) -> None:
    """Whoever asks for the sums goes on without them."""
    async with in_redis(redis) as store:
        await store._shelves._engine.client.sadd(store._registers._list, b"\xff")
        with pytest.raises(StoreError):
            await store.stats()


async def test_a_chunk_that_redis_evicted_is_a_miss(redis: RunningRedis) -> None:
    """Contract 6: half an answer is none; what is left of it goes."""
    async with in_redis(redis) as store:
        for lost in (0, 2):
            await put(store, body=LARGE)
            redis.say("del", chunks(redis)[lost])
            assert await found(store) is Miss.ABSENT
            assert chunks(redis) == []


async def test_a_chunk_that_goes_while_it_is_read_cuts(redis: RunningRedis) -> None:
    """A cut answer never looks whole."""
    async with in_redis(redis) as store:
        await put(store, body=LARGE)
        answer = await store.get(b"k", sending(), NOW)
        assert isinstance(answer, Found)
        redis.say("del", chunks(redis)[1])
        with pytest.raises(UpstreamIncomplete):
            await body_of(answer)


async def test_a_redis_that_goes_while_it_is_read_cuts(redis: RunningRedis) -> None:
    """The same; the answer stays for when it is back."""
    async with in_redis(redis) as store:
        await put(store, body=LARGE)
        answer = await store.get(b"k", sending(), NOW)
        assert isinstance(answer, Found)
        store._shelves._engine.fail(TimeoutError())
        with pytest.raises(UpstreamIncomplete):
            await body_of(answer)
        assert len(chunks(redis)) == 3


async def test_what_is_replaced_stays_readable_for_a_while(redis: RunningRedis) -> None:
    """Whoever reads it has begun before; a slow reader keeps it there."""
    clock = FakeClock(NOW)
    async with in_redis(redis, clock) as store:
        await put(store, body=LARGE, expires_at=NOW + 3600)
        answer = await store.get(b"k", sending(), NOW)
        assert isinstance(answer, Found)
        await put(store, body=b"new")
        old = chunks(redis)
        assert all(0 < int(redis.say("pttl", name)) <= GRACE_MS for name in old)
        redis.say("pexpire", old[2], "30000")
        clock.advance(GRACE_MS / 1000)
        assert await body_of(answer) == LARGE
        assert int(redis.say("pttl", old[2])) > 31000
        assert await found(store) == b"new"


async def test_a_failed_put_leaves_the_old_entry(redis: RunningRedis) -> None:
    """Contract 6: if the refresh fails, the old entry stays; here a chunk expired too early."""

    class Slow(Octets):
        async def blocks(self, size: int) -> Any:
            async for block in super().blocks(size):
                yield block
                for name in chunks(redis)[:1]:
                    redis.say("del", name)

    async with in_redis(redis) as store:
        await put(store)
        entry = an_entry(size=len(LARGE), requested_at=NOW, expires_at=NOW + 10)
        with pytest.raises(StoreError, match="dropped a part"):
            await store.put(entry, sending(), Slow(LARGE))
        assert await found(store) == b"body"
        assert chunks(redis) == []


async def test_a_writer_that_dies_leaves_what_soon_expires(redis: RunningRedis) -> None:
    """Chunks without a shelf end by themselves."""
    waiting = asyncio.Event()

    class Endless(Octets):
        async def blocks(self, size: int) -> Any:
            async for block in super().blocks(size):
                yield block
                if len(chunks(redis)) == 2:
                    waiting.set()
                    await asyncio.Event().wait()

    async with in_redis(redis) as store:
        entry = an_entry(size=len(LARGE), requested_at=NOW, expires_at=NOW + 10)
        task = asyncio.create_task(store.put(entry, sending(), Endless(LARGE)))
        await waiting.wait()
        assert all(0 < int(redis.say("pttl", one)) <= STAGED_MS for one in chunks(redis))
        assert await found(store) is Miss.ABSENT
        task.cancel()
        await asyncio.wait([task])


async def test_a_tenant_has_a_quota_and_what_ends_first_goes(redis: RunningRedis) -> None:
    """Nobody fills Redis alone; another tenant loses nothing."""
    async with in_redis(redis, tenant_bytes=3000) as store:
        await put(store, b"o", tenant="other")
        for number in range(4):
            await put(store, b"%d" % number, expires_at=NOW + 10 + number)
        stats = await store.stats()
        kept = [await found(store, b"%d" % number) for number in range(4)]
        assert kept == [Miss.ABSENT] * 2 + [b"body"] * 2
        assert await found(store, b"o") == b"body"
        assert (stats.entries, stats.evicted) == (3, 2)


async def test_stats_count_by_tenant_and_service(redis: RunningRedis) -> None:
    """A replaced answer counts once, and all processes see the same."""
    async with in_redis(redis) as one, in_redis(redis) as other:
        assert await one.stats() == CacheStats()
        await put(one, tenant="a", service="x")
        await put(other, tenant="a", service="x")
        await put(other, b"l", tenant="a", service="", body=LARGE)
        await put(one, b"o", tenant="b", service="x")
        cost = an_entry(size=4).cost
        assert dict((await other.stats()).holdings) == {
            ("a", "x"): Holding(1, cost),
            ("a", ""): Holding(1, an_entry(size=len(LARGE)).cost),
            ("b", "x"): Holding(1, cost),
        }


async def test_what_is_over_is_swept_out_of_the_sums(redis: RunningRedis) -> None:
    """Its octets end by themselves."""
    async with in_redis(redis) as store:
        await put(store)
        await put(store, b"later", expires_at=NOW + 20)
        await store.sweep(NOW + 10)
        assert (await store.stats()).entries == 1
        await store.sweep(NOW + 20)
        assert await store.stats() == CacheStats()


async def test_what_redis_has_evicted_leaves_the_sums(redis: RunningRedis) -> None:
    """By samples: the sums come right with time."""
    async with in_redis(redis) as store:
        await put(store)
        await put(store, b"evicted")
        name = store._registers._names("t")[0]
        replaced = f"{tag_of(b'k')} 77 5 {NOW}000 s"  # by another process at the same moment
        await store._shelves.ask("zadd", name, {replaced: NOW + 10})
        redis.say("del", *names(redis, f"*{tag_of(b'evicted')}*"))
        await store.sweep(NOW)
        assert await store._shelves.ask("zcard", name) == 1
        assert await found(store) == b"body"


async def test_what_is_answered_from_memory_counts_as_used(
    redis: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or Redis would evict first what is wanted most; a chunk beside its shelf too."""
    monkeypatch.setattr(store_module, "TOUCHES", 1)
    async with in_redis(redis) as store:
        await put(store, body=LARGE[:CHUNK])
        before = touched(redis)
        store.touch(b"k", NOW)
        store.touch(b"one too many", NOW)
        await store.sweep(NOW)
        assert touched(redis) == before + 2
        await store.sweep(NOW)
        assert touched(redis) == before + 2


def touched(at: RunningRedis) -> int:
    told = at.say("info", "commandstats")
    return int(told.partition("cmdstat_touch:calls=")[2].partition(",")[0] or 0)


async def test_an_emptied_redis_is_begun_anew(redis: RunningRedis) -> None:
    """By FLUSHALL or a restart: what comes after counts, what came before does not."""
    async with in_redis(redis) as store:
        await put(store)
        redis.say("flushall")
        redis.say("script", "flush")
        assert await found(store) is Miss.ABSENT
        await store.sweep(NOW)
        await put(store)
        assert (await store.stats()).entries == 1


@pytest.mark.parametrize(
    ("purge", "left"),
    [
        (Purge(NOW, None, None), []),
        (Purge(NOW, "a", None), [b"2", b"3"]),
        (Purge(NOW, "a", "x"), [b"1", b"2", b"3"]),
        (Purge(NOW, None, "x"), [b"1", b"3"]),
        (Purge(NOW - 1, None, None), [b"0", b"1", b"2", b"3"]),
    ],
)
async def test_a_purge_removes_what_it_covers(
    redis: RunningRedis, purge: Purge, left: list[bytes]
) -> None:
    """By tenant, service and time; large bodies with all their chunks."""
    places = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "")]
    async with in_redis(redis) as store:
        for number, (tenant, service) in enumerate(places):
            body = LARGE if number == 0 else b"body"
            await put(store, b"%d" % number, body, tenant=tenant, service=service)
        await purged(store, purge)
        kept = [b"%d" % number for number in range(4)]
        assert [key for key in kept if await found(store, key) is not Miss.ABSENT] == left
        assert (await store.stats()).entries == len(left)
        assert bool(chunks(redis, b"0")) is (b"0" in left)


async def test_a_large_register_is_purged_in_steps(redis: RunningRedis) -> None:
    """No step of it is long: Redis serves others meanwhile."""
    async with in_redis(redis) as store:
        await put(store)
        names = store._registers._names("t")
        others = {f"{number:032x} 1 5 0 s": NOW + 9 for number in range(3 * BATCH)}
        await store._shelves.ask("zadd", names[0], others)
        await purged(store, Purge(NOW, None, None))
        assert await store._shelves.ask("zcard", names[0]) == 0


async def purged(store: RedisStore, purge: Purge) -> None:
    await store.purge(purge)
    await until(lambda: not store._purging)


async def test_a_purge_ends_what_a_clock_that_ran_ahead_stored(redis: RunningRedis) -> None:
    """As on disk."""
    async with in_redis(redis) as store:
        await put(store, requested_at=NOW + 99)
        await purged(store, Purge(NOW, None, None))
        assert await found(store) is Miss.ABSENT


async def test_a_purge_is_done_once_for_all_processes(redis: RunningRedis) -> None:
    """One that starts later need not look for what is gone; one that came later is done."""
    async with in_redis(redis) as one, in_redis(redis) as other, in_redis(redis) as third:
        await purged(one, Purge(NOW, None, None))
        await put(third)
        await purged(other, Purge(NOW, None, None))
        assert await found(one) == b"body"
        await purged(other, Purge(NOW + 1, None, None))
        assert await found(one) is Miss.ABSENT


async def test_a_purge_that_failed_is_tried_again_with_the_next_sweep(
    redis: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody asks for it a second time."""
    async with in_redis(redis) as store:
        await put(store)
        tried, real = list[Purge](), store._registers.purge

        async def noted(purge: Purge) -> None:
            tried.append(purge)
            if len(tried) == 1:
                raise StoreError("Redis is gone")
            await real(purge)

        monkeypatch.setattr(store._registers, "purge", noted)
        await purged(store, Purge(NOW, None, None))
        for _ in range(2):
            await store.sweep(NOW)
            await until(lambda: not store._purging)
            assert (await store.stats()).entries == 0
        assert len(tried) == 2


async def test_what_is_written_after_its_purge_goes_at_once(redis: RunningRedis) -> None:
    """Its upstream call was under way."""
    async with in_redis(redis) as store:
        await purged(store, Purge(NOW, None, None))
        await put(store)
        assert await found(store) is Miss.ABSENT


async def test_closing_ends_a_purge_under_way(
    redis: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process, or the next start, does it."""
    monkeypatch.setattr(module, "SETTLE_SECONDS", 3600.0)
    async with in_redis(redis) as store:
        await store.purge(Purge(NOW, None, None))
    assert not store._purging


async def test_what_is_written_during_a_look_up_is_looked_up_again(redis: RunningRedis) -> None:
    """Nothing old gets into memory."""
    async with in_redis(redis) as one, in_redis(redis) as other:
        await put(one)
        asked = one._shelves.all_of

        async def ask(name: str) -> Any:
            found = await asked(name)
            if not told:
                told.append(name)
                await put(other, body=b"new")
                one.outdate(b"o")
                one.outdate(b"k")
            return found

        told: list[str] = []
        one._shelves.all_of = ask  # type: ignore[method-assign]
        assert await found(one) == b"new"


async def test_a_redis_that_is_gone_is_an_error_of_the_store() -> None:
    """Calls go on without it."""
    engine = Engine(Place.of("redis://127.0.0.1:1"), PREFIX, FakeClock(NOW))
    store = RedisStore(engine, a_sealer(), FakeClock(NOW), CacheSettings())
    for act in (store.start, store.stats, lambda: store.get(b"k", sending(), NOW)):
        with pytest.raises(StoreError, match="Redis"):
            await act()
    with pytest.raises(StoreError):
        await put(store)
    with pytest.raises(StoreError):
        await put(store, body=LARGE)
    await purged(store, Purge(NOW, None, None))
    store.touch(b"k", NOW)
    await store.close()
    await engine.aclose()


async def test_a_full_redis_is_an_error_and_leaves_nothing(redis: RunningRedis) -> None:
    """Where it may evict nothing; reading goes on."""
    async with in_redis(redis) as store:
        await put(store)
        redis.say("config", "set", "maxmemory", "1")
        try:
            for body in (b"body", LARGE):
                with pytest.raises(StoreError, match="refused"):
                    await put(store, b"more", body=body)
            assert await found(store) == b"body"
        finally:
            redis.say("config", "set", "maxmemory", "0")
        assert await found(store, b"more") is Miss.ABSENT
