"""Answers in Redis: sealed, whole or not there, the same for all processes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from proxy.cache import redis as store_module
from proxy.cache import registers as module
from proxy.cache.entry import CacheStats, Found, Holding, Miss, StoreError
from proxy.cache.policy import CacheSettings
from proxy.cache.redis import RedisStore
from proxy.cache.registers import BATCH
from proxy.cache.row import CHUNK
from proxy.cache.shelf import INLINE, tag_of
from proxy.cache.shelves import GRACE_MS, STAGED_MS
from proxy.engine import Engine, Place
from proxy.errors import UpstreamIncomplete
from tests.proxy.cache.conftest import NOW, a_sealer, until
from tests.proxy.cache.test_memory import an_entry, sending
from tests.proxy.cache.test_sqlite import Octets, body_of
from tests.support.clock import FakeClock
from tests.support.engines import RunningRedis
from vault import Purge
from vault.sealing import DataKey, KeyedSealer

LARGE = os.urandom(2 * CHUNK + 7)
PREFIX = "keyrelay-test"


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A purge looks once more at once."""
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.0)


@pytest.fixture
def empty(redis: RunningRedis) -> RunningRedis:
    """A Redis that nobody has written to."""
    redis.say("flushall")
    return redis


def patient(at: RunningRedis, clock: FakeClock) -> Engine:
    """One that a slow machine does not make impatient."""
    engine = Engine(Place.of(at.url), PREFIX, clock)
    engine.run = partial(engine.run, seconds=60.0)  # type: ignore[method-assign]
    engine.ask = partial(engine.ask, seconds=60.0)  # type: ignore[method-assign]
    return engine


@asynccontextmanager
async def opened(
    at: RunningRedis, clock: FakeClock | None = None, **bounds: Any
) -> AsyncIterator[RedisStore]:
    sealer, clock = bounds.pop("sealer", None) or a_sealer(), clock or FakeClock(NOW)
    engine = patient(at, clock)
    store = RedisStore(engine, sealer, clock, CacheSettings(**bounds))
    try:
        await store.start()
        yield store
    finally:
        await store.close()
        await engine.aclose()


async def put(store: RedisStore, key: bytes = b"k", body: bytes = b"body", **changes: Any) -> None:
    times = {"requested_at": NOW, "made_at": NOW, "expires_at": NOW + 10}
    entry = an_entry(key, **{**times, "size": len(body), **changes})
    await store.put(entry, sending(entry.variant), Octets(body))


async def found(store: RedisStore, key: bytes = b"k", value: bytes = b"", now: float = NOW) -> Any:
    """The body, or why there is none."""
    answer = await store.get(key, sending(value), now)
    return answer if isinstance(answer, Miss) else await body_of(answer)


def names(at: RunningRedis, pattern: str = "*") -> list[str]:
    return at.say("--scan", "--pattern", pattern).split()


def chunks(at: RunningRedis, key: bytes = b"k") -> list[str]:
    return sorted(names(at, f"*{tag_of(key)}}}:*"))


async def test_an_entry_comes_back_as_it_went(empty: RunningRedis) -> None:
    """Status, fields in order with all their octets, times."""
    fields = ((b"b", b"\xff\x00"), (b"a", b"1"), (b"a", b""))
    async with opened(empty) as store:
        await put(store, fields=fields, status=203, made_at=NOW - 5)
        answer = await store.get(b"k", sending(), NOW)
    assert isinstance(answer, Found)
    assert answer.entry == an_entry(
        requested_at=NOW, made_at=NOW - 5, expires_at=NOW + 10, status=203, fields=fields
    )
    assert answer.body == b"body"


@pytest.mark.parametrize("size", [0, 1, INLINE, INLINE + 1, CHUNK, CHUNK + 1, len(LARGE)])
async def test_another_process_finds_it(empty: RunningRedis, size: int) -> None:
    """Of any size, whole."""
    async with opened(empty) as one, opened(empty) as other:
        await put(one, body=LARGE[:size])
        assert await found(other) == LARGE[:size]
        assert await found(other, b"l") is Miss.ABSENT


async def test_an_entry_is_over_at_its_time(empty: RunningRedis) -> None:
    """Contract 6: its own time must be ahead."""
    async with opened(empty) as store:
        assert await found(store) is Miss.ABSENT
        await put(store)
        assert await found(store, now=NOW + 9.9) == b"body"
        assert await found(store, now=NOW + 10) is Miss.OVER
        assert await found(store, now=NOW - 1000) == b"body"


async def test_variants_stand_side_by_side(empty: RunningRedis) -> None:
    """RFC 9111 section 4.1; what would have answered is replaced."""
    async with opened(empty) as store:
        await put(store, body=b"plain")
        await put(store, body=b"one", vary=b"user-agent", variant=b"1")
        await put(store, body=b"two", vary=b"user-agent", variant=b"2")
        assert await found(store, value=b"1") == b"one"
        assert await found(store, value=b"2") == b"two"
        assert await found(store, value=b"3") is Miss.VARIES
        await put(store, body=b"new", vary=b"user-agent", variant=b"2", expires_at=NOW + 5)
        assert await found(store, value=b"2", now=NOW + 6) is Miss.OVER
        assert (await store.stats()).entries == 2


async def test_names_to_vary_by_may_change(empty: RunningRedis) -> None:
    """What would have answered is replaced, whatever it varied by: the caller is asked for it."""
    async with opened(empty) as store:
        await put(store, vary=b"user-agent", variant=b"1")
        await put(store, vary=b"x-other", variant=b"1")
        entry = an_entry(requested_at=NOW, expires_at=NOW + 10, size=3)
        await store.put(entry, sending(b"1"), Octets(b"new"))
        assert (await store.stats()).entries == 1
        assert await found(store, value=b"1") == b"new"


async def test_a_key_has_so_many_variants_and_the_oldest_go(
    empty: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upstream that varies by everything fills no shelf."""
    monkeypatch.setattr(store_module, "VARIANTS", 3)
    async with opened(empty) as store:
        for number in range(5):
            await put(store, vary=b"user-agent", variant=b"%d" % number)
        kept = [await found(store, value=b"%d" % number) for number in range(5)]
        assert kept == [Miss.VARIES] * 2 + [b"body"] * 3
        assert (await store.stats()).entries == 3


async def test_nothing_readable_is_in_redis(empty: RunningRedis) -> None:
    """Contract 6: stored bodies are encrypted; the fields too."""
    async with opened(empty) as store:
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


async def test_all_that_is_in_redis_has_an_end(empty: RunningRedis) -> None:
    """So that Redis may evict it, and a server that is gone for ever leaves nothing for ever."""
    async with opened(empty) as store:
        await put(store)
        await put(store, b"l", body=LARGE)
        await store.purge(Purge(NOW - 9, None, None))
        await until(lambda: not store._purging)
    lasting = {name for name in names(empty) if empty.say("ttl", name) == "-1"}
    assert lasting == {f"{PREFIX}:{{cache-of:}}:tenants"}


async def test_another_data_key_opens_nothing(empty: RunningRedis) -> None:
    """It is an error of the store, and not an answer."""
    async with opened(empty) as store:
        await put(store)
    async with opened(empty, sealer=KeyedSealer(DataKey.random("cache"), {})) as store:
        with pytest.raises(StoreError):
            await found(store)


@pytest.mark.parametrize("what", ["label", "value", "moved", "nonsense", "short"])
async def test_what_was_changed_or_moved_does_not_open(empty: RunningRedis, what: str) -> None:
    """Contract 6: bound to their key, their times and each other."""
    async with opened(empty) as store:
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
    empty: RunningRedis, count: bytes
) -> None:
    """How long an answer is says its sealed head: a cut one never looks whole."""
    async with opened(empty) as store:
        await put(store, body=LARGE)
        client, shelf = store._shelves._engine.client, store._shelves.shelf(tag_of(b"k"))
        ((field, value),) = (await client.hgetall(shelf)).items()
        first = await client.get(chunks(empty)[0])
        parts = field.split(b" ", 4)
        await client.delete(shelf)
        changed = b" ".join((*parts[:3], count, parts[4]))
        await client.hset(shelf, changed, value + first if count == b"0" else value)
        with pytest.raises(StoreError):
            await found(store)


@pytest.mark.parametrize("label", [b"nonsense", b"0 1 9999999999999 0 1 1 AB v"])
async def test_a_shelf_with_nonsense_is_an_error_of_the_store(
    empty: RunningRedis, label: bytes
) -> None:
    """Also to whoever writes there: it does not try for ever."""
    async with opened(empty) as store:
        await store._shelves._engine.client.hset(store._shelves.shelf(tag_of(b"k")), label, b"")
        with pytest.raises(StoreError):
            await put(store)


async def test_a_list_of_tenants_with_nonsense_is_an_error_of_the_store(
    empty: RunningRedis,
) -> None:
    """Whoever asks for the sums goes on without them."""
    async with opened(empty) as store:
        await store._shelves._engine.client.sadd(store._registers._list, b"\xff")
        with pytest.raises(StoreError):
            await store.stats()


async def test_a_chunk_that_redis_evicted_is_a_miss(empty: RunningRedis) -> None:
    """Contract 6: half an answer is none; what is left of it goes."""
    async with opened(empty) as store:
        for lost in (0, 2):
            await put(store, body=LARGE)
            empty.say("del", chunks(empty)[lost])
            assert await found(store) is Miss.ABSENT
            assert chunks(empty) == []


async def test_a_chunk_that_goes_while_it_is_read_cuts(empty: RunningRedis) -> None:
    """A cut answer never looks whole."""
    async with opened(empty) as store:
        await put(store, body=LARGE)
        answer = await store.get(b"k", sending(), NOW)
        assert isinstance(answer, Found)
        empty.say("del", chunks(empty)[1])
        with pytest.raises(UpstreamIncomplete):
            await body_of(answer)


async def test_a_redis_that_goes_while_it_is_read_cuts(empty: RunningRedis) -> None:
    """The same; the answer stays for when it is back."""
    async with opened(empty) as store:
        await put(store, body=LARGE)
        answer = await store.get(b"k", sending(), NOW)
        assert isinstance(answer, Found)
        store._shelves._engine.fail(TimeoutError())
        with pytest.raises(UpstreamIncomplete):
            await body_of(answer)
        assert len(chunks(empty)) == 3


async def test_a_later_chunk_that_does_not_open_cuts_and_ends_the_entry(
    empty: RunningRedis,
) -> None:
    """A cut answer never looks whole, and is not served again."""
    async with opened(empty) as store:
        await put(store, body=LARGE)
        empty.say("set", chunks(empty)[2], "nonsense")
        with pytest.raises(UpstreamIncomplete):
            await found(store)
        assert await found(store) is Miss.ABSENT


async def test_what_is_replaced_stays_readable_for_a_while(empty: RunningRedis) -> None:
    """Whoever reads it has begun before; a slow reader keeps it there."""
    clock = FakeClock(NOW)
    async with opened(empty, clock) as store:
        await put(store, body=LARGE, expires_at=NOW + 3600)
        answer = await store.get(b"k", sending(), NOW)
        assert isinstance(answer, Found)
        await put(store, body=b"new")
        old = chunks(empty)
        assert all(0 < int(empty.say("pttl", name)) <= GRACE_MS for name in old)
        empty.say("pexpire", old[2], "30000")
        clock.advance(GRACE_MS / 1000)
        assert await body_of(answer) == LARGE
        assert int(empty.say("pttl", old[2])) > 31000
        assert await found(store) == b"new"


async def test_half_an_entry_is_never_there(empty: RunningRedis) -> None:
    """Contract 6: half a response never survives, and what was written of it goes."""
    async with opened(empty) as store:
        entry = an_entry(size=len(LARGE), requested_at=NOW, expires_at=NOW + 10)
        with pytest.raises(ValueError, match="broken"):
            await store.put(entry, sending(), Octets(LARGE, ValueError("broken")))
        assert await found(store) is Miss.ABSENT
        assert chunks(empty) == []


async def test_a_failed_put_leaves_the_old_entry(empty: RunningRedis) -> None:
    """Contract 6: if the refresh fails, the old entry stays; here a chunk expired too early."""

    class Slow(Octets):
        async def blocks(self, size: int) -> Any:
            async for block in super().blocks(size):
                yield block
                for name in chunks(empty)[:1]:
                    empty.say("del", name)

    async with opened(empty) as store:
        await put(store)
        entry = an_entry(size=len(LARGE), requested_at=NOW, expires_at=NOW + 10)
        with pytest.raises(StoreError, match="dropped a part"):
            await store.put(entry, sending(), Slow(LARGE))
        assert await found(store) == b"body"
        assert chunks(empty) == []


async def test_a_writer_that_dies_leaves_what_soon_expires(empty: RunningRedis) -> None:
    """Chunks without a shelf end by themselves."""
    waiting = asyncio.Event()

    class Endless(Octets):
        async def blocks(self, size: int) -> Any:
            async for block in super().blocks(size):
                yield block
                if len(chunks(empty)) == 2:
                    waiting.set()
                    await asyncio.Event().wait()

    async with opened(empty) as store:
        entry = an_entry(size=len(LARGE), requested_at=NOW, expires_at=NOW + 10)
        task = asyncio.create_task(store.put(entry, sending(), Endless(LARGE)))
        await waiting.wait()
        assert all(0 < int(empty.say("pttl", one)) <= STAGED_MS for one in chunks(empty))
        assert await found(store) is Miss.ABSENT
        task.cancel()
        await asyncio.wait([task])


async def test_a_tenant_has_a_quota_and_what_ends_first_goes(empty: RunningRedis) -> None:
    """Nobody fills Redis alone; another tenant loses nothing."""
    async with opened(empty, tenant_bytes=3000) as store:
        await put(store, b"o", tenant="other")
        for number in range(4):
            await put(store, b"%d" % number, expires_at=NOW + 10 + number)
        stats = await store.stats()
        kept = [await found(store, b"%d" % number) for number in range(4)]
        assert kept == [Miss.ABSENT] * 2 + [b"body"] * 2
        assert await found(store, b"o") == b"body"
        assert (stats.entries, stats.evicted) == (3, 2)


async def test_stats_count_by_tenant_and_service(empty: RunningRedis) -> None:
    """A replaced answer counts once, and all processes see the same."""
    async with opened(empty) as one, opened(empty) as other:
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


async def test_what_is_over_is_swept_out_of_the_sums(empty: RunningRedis) -> None:
    """Its octets end by themselves."""
    async with opened(empty) as store:
        await put(store)
        await put(store, b"later", expires_at=NOW + 20)
        await store.sweep(NOW + 10)
        assert (await store.stats()).entries == 1
        await store.sweep(NOW + 20)
        assert await store.stats() == CacheStats()


async def test_what_redis_has_evicted_leaves_the_sums(empty: RunningRedis) -> None:
    """By samples: the sums come right with time."""
    async with opened(empty) as store:
        await put(store)
        await put(store, b"evicted")
        name = store._registers._names("t")[0]
        replaced = f"{tag_of(b'k')} 77 5 {NOW}000 s"  # by another process at the same moment
        await store._shelves.ask("zadd", name, {replaced: NOW + 10})
        empty.say("del", *names(empty, f"*{tag_of(b'evicted')}*"))
        await store.sweep(NOW)
        assert await store._shelves.ask("zcard", name) == 1
        assert await found(store) == b"body"


async def test_what_is_answered_from_memory_counts_as_used(
    empty: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or Redis would evict first what is wanted most; a chunk beside its shelf too."""
    monkeypatch.setattr(store_module, "TOUCHES", 1)
    async with opened(empty) as store:
        await put(store, body=LARGE[:CHUNK])
        before = touched(empty)
        store.touch(b"k", NOW)
        store.touch(b"one too many", NOW)
        await store.sweep(NOW)
        assert touched(empty) == before + 2
        await store.sweep(NOW)
        assert touched(empty) == before + 2


def touched(at: RunningRedis) -> int:
    told = at.say("info", "commandstats")
    return int(told.partition("cmdstat_touch:calls=")[2].partition(",")[0] or 0)


async def test_an_emptied_redis_is_begun_anew(empty: RunningRedis) -> None:
    """By FLUSHALL or a restart: what comes after counts, what came before does not."""
    async with opened(empty) as store:
        await put(store)
        empty.say("flushall")
        empty.say("script", "flush")
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
    empty: RunningRedis, purge: Purge, left: list[bytes]
) -> None:
    """By tenant, service and time; large bodies with all their chunks."""
    places = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "")]
    async with opened(empty) as store:
        for number, (tenant, service) in enumerate(places):
            body = LARGE if number == 0 else b"body"
            await put(store, b"%d" % number, body, tenant=tenant, service=service)
        await purged(store, purge)
        kept = [b"%d" % number for number in range(4)]
        assert [key for key in kept if await found(store, key) is not Miss.ABSENT] == left
        assert (await store.stats()).entries == len(left)
        assert bool(chunks(empty, b"0")) is (b"0" in left)


async def test_a_large_register_is_purged_in_steps(empty: RunningRedis) -> None:
    """No step of it is long: Redis serves others meanwhile."""
    async with opened(empty) as store:
        await put(store)
        names = store._registers._names("t")
        others = {f"{number:032x} 1 5 0 s": NOW + 9 for number in range(3 * BATCH)}
        await store._shelves.ask("zadd", names[0], others)
        await purged(store, Purge(NOW, None, None))
        assert await store._shelves.ask("zcard", names[0]) == 0


async def purged(store: RedisStore, purge: Purge) -> None:
    await store.purge(purge)
    await until(lambda: not store._purging)


async def test_a_purge_ends_what_a_clock_that_ran_ahead_stored(empty: RunningRedis) -> None:
    """As on disk."""
    async with opened(empty) as store:
        await put(store, requested_at=NOW + 99)
        await purged(store, Purge(NOW, None, None))
        assert await found(store) is Miss.ABSENT


async def test_a_purge_is_done_once_for_all_processes(empty: RunningRedis) -> None:
    """One that starts later need not look for what is gone; one that came later is done."""
    async with opened(empty) as one, opened(empty) as other, opened(empty) as third:
        await purged(one, Purge(NOW, None, None))
        await put(third)
        await purged(other, Purge(NOW, None, None))
        assert await found(one) == b"body"
        await purged(other, Purge(NOW + 1, None, None))
        assert await found(one) is Miss.ABSENT


async def test_what_is_written_after_its_purge_goes_at_once(empty: RunningRedis) -> None:
    """Its upstream call was under way."""
    async with opened(empty) as store:
        await purged(store, Purge(NOW, None, None))
        await put(store)
        assert await found(store) is Miss.ABSENT


async def test_closing_ends_a_purge_under_way(
    empty: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process, or the next start, does it."""
    monkeypatch.setattr(module, "SETTLE_SECONDS", 3600.0)
    async with opened(empty) as store:
        await store.purge(Purge(NOW, None, None))
    assert not store._purging


async def test_what_is_written_during_a_look_up_is_looked_up_again(empty: RunningRedis) -> None:
    """Nothing old gets into memory."""
    async with opened(empty) as one, opened(empty) as other:
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


async def test_a_full_redis_is_an_error_and_leaves_nothing(empty: RunningRedis) -> None:
    """Where it may evict nothing; reading goes on."""
    async with opened(empty) as store:
        await put(store)
        empty.say("config", "set", "maxmemory", "1")
        try:
            for body in (b"body", LARGE):
                with pytest.raises(StoreError, match="refused"):
                    await put(store, b"more", body=body)
            assert await found(store) == b"body"
        finally:
            empty.say("config", "set", "maxmemory", "0")
        assert await found(store, b"more") is Miss.ABSENT
