"""A leader that comes too late stores nothing: Redis looks at its lease in the step that keeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from proxy.cache import redis_commons, registers
from proxy.cache.commons import Fence, Lead, Overtaken
from proxy.cache.entry import Entry, Miss
from proxy.cache.policy import CacheSettings
from proxy.cache.redis import RedisStore
from proxy.cache.redis_commons import RedisCommons, RedisFollow
from proxy.cache.row import CHUNK
from proxy.cache.shelf import INLINE
from proxy.clock import SystemClock
from proxy.engine import Engine, Place
from tests.proxy.cache.conftest import NOW, a_call, a_sealer
from tests.proxy.cache.instances import Wire, instances, patiently
from tests.proxy.cache.test_redis_commons import KEY, a_wish
from tests.support.clock import FakeClock
from tests.support.engines import RunningRedis
from tests.support.upstream import Reply
from vault import Purge

SMALL = b"an answer"
LARGE = b"a large answer" * CHUNK
TIMES = (NOW, NOW, NOW + 10)
ENTRY = Entry(KEY, b"", b"", "t", "s", *TIMES, status=200, fields=(), size=0)


class Body:
    """A body to store; one that is `frozen` stands still before its last octets are stored."""

    def __init__(self, octets: bytes, *, frozen: bool = False) -> None:
        self.octets = octets
        self.stands, self.goes_on = asyncio.Event(), asyncio.Event()
        if not frozen:
            self.goes_on.set()

    async def blocks(self, size: int) -> AsyncGenerator[bytes, None]:
        for start in range(0, len(self.octets), size):
            if start + size >= len(self.octets):
                self.stands.set()
                await self.goes_on.wait()
            yield self.octets[start : start + size]


class Shared:
    """A store and its leases, in one Redis."""

    def __init__(self, engine: Engine, store: RedisStore) -> None:
        self.commons = RedisCommons(engine, a_sealer())
        self.store = store

    async def lead(self) -> Any:
        return (await self.commons.board(a_wish(joins=False))).lead

    async def keep(self, lead: Lead, body: Body) -> bool:
        return await lead.keep(partial(self.put, body))

    async def put(self, body: Body, fence: Fence | None = None, **changes: Any) -> bool:
        entry = replace(ENTRY, size=len(body.octets), **changes)
        await self.store.put(entry, lambda vary: vary and entry.variant, body, fence)
        return True

    async def kept(self) -> bytes | None:
        """The answer for a call without any fields."""
        found = await self.store.get(KEY, lambda _vary: b"", NOW)
        if isinstance(found, Miss):
            return None
        return b"".join([octets async for octets in found.octets()])


@pytest.fixture
async def shared(redis: RunningRedis, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shared]:
    """No lease is over because the machine is slow."""
    monkeypatch.setattr(redis_commons, "LEASE_MS", 60_000)
    redis.say("flushall")
    wire = Wire(Place.of(redis.url), "keyrelay-test", SystemClock())
    one = Shared(wire, RedisStore(wire, a_sealer(), FakeClock(NOW), CacheSettings()))
    yield one
    await one.commons.aclose()
    await wire.aclose()


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("later", ["stored", "forgotten", "under way", "failed"])
async def test_a_leader_that_stood_still_while_it_stored_stores_nothing(
    shared: Shared, redis: RunningRedis, body: bytes, later: str
) -> None:
    """However long it took: whether a later answer is there, its mark is over, it is on its way or
    has come to nothing. Nothing is left of what was written."""
    frozen, lead = Body(body, frozen=True), await shared.lead()
    storing = asyncio.create_task(shared.keep(lead, frozen))
    await frozen.stands.wait()
    other = await shared.lead()
    if later in ("stored", "forgotten"):
        await shared.keep(other, Body(b"newer"))
        await other.close(landed=True)
    if later == "failed":
        await other.close(landed=False)
    if later == "forgotten":
        redis.say("del", lead.names.lease)
    frozen.goes_on.set()
    with pytest.raises(Overtaken):
        await storing
    kept = {"stored": b"newer", "forgotten": b"newer"}
    assert await shared.kept() == kept.get(later)
    assert (await shared.store.stats()).entries == len(kept.keys() & {later})
    assert not await lead.close(landed=False)
    await other.close(landed=later == "stored")
    left = [name for name in redis.say("keys", "*").split() if "{cache:" in name]
    assert len(left) == {"stored": 2, "forgotten": 1}.get(later, 0)


async def test_a_leader_whose_lease_ran_out_stores_nothing(
    shared: Shared, redis: RunningRedis
) -> None:
    """Nobody has taken its place yet; somebody may have, and gone again."""
    lead = await shared.lead()
    redis.say("del", lead.names.lease)
    with pytest.raises(Overtaken):
        await shared.keep(lead, Body(SMALL))


async def test_one_step_keeps_an_answer_and_closes_the_lease(
    shared: Shared, redis: RunningRedis
) -> None:
    """Whoever asks from then on is told that it is there; without followers nothing else is left,
    and nothing more is asked."""
    lead = await shared.lead()
    assert await shared.keep(lead, Body(SMALL))
    assert (await shared.commons.board(a_wish())).landed == lead.id.encode()
    names = [name for name in redis.say("keys", "*").split() if "{cache:" in name]
    assert len(names) == 2
    assert all(int(redis.say("pttl", name)) > 0 for name in names)
    wire: Any = shared.commons.engine
    wire.is_cut = True
    assert not await lead.close(landed=True)
    assert not shared.commons.parties


async def test_those_who_follow_a_stored_answer_hear_it_to_its_end(shared: Shared) -> None:
    """Its lease is closed and it is said on."""
    lead = await shared.lead()
    follow = (await shared.commons.board(a_wish())).follow
    assert follow is not None
    assert await lead.say(b"one")
    assert await shared.keep(lead, Body(SMALL))
    assert await lead.close(landed=True)
    assert await lead.say(b"two")
    await lead.end()
    assert await follow.hear() == [b"one", b"two"]
    follow.leave()


async def test_without_a_lease_an_answer_is_kept_and_no_lease_is_asked_for(shared: Shared) -> None:
    """Whoever could ask nobody stores what it got: the store decides."""
    lead = await shared.lead()
    wire: Any = shared.commons.engine
    asked = wire.script
    names: list[Any] = []

    async def script(one: Any, keys: Any, *values: Any, **patience: Any) -> Any:
        names.append(keys)
        return await asked(one, keys, *values, **patience)

    wire.script = script
    await shared.put(Body(SMALL))
    assert len(names[0]) == 1
    assert await shared.keep(lead, Body(b"x" * (INLINE + 1)))
    assert await shared.kept() == b"x" * (INLINE + 1)


async def test_without_a_lease_the_answer_that_was_asked_for_later_stays(shared: Shared) -> None:
    """Of those that would answer the same request; one that is over stands in nobody's way."""
    for variant, asked in ((b"1", NOW + 1), (b"2", NOW)):
        await shared.put(Body(SMALL), vary=b"user-agent", variant=variant, requested_at=asked)
    await shared.put(Body(b"later"), requested_at=NOW + 2)
    with pytest.raises(Overtaken):
        await shared.put(Body(b"earlier"), requested_at=NOW + 1)
    assert await shared.kept() == b"later"
    assert (await shared.store.stats()).entries == 3
    await shared.put(Body(b"over"), requested_at=NOW + 9, expires_at=NOW - 1)
    await shared.put(Body(b"latest"), requested_at=NOW + 2)
    assert await shared.kept() == b"latest"


async def test_who_comes_just_when_an_answer_is_stored_is_told_so(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its question who leads and its coming aboard: it makes no call."""
    lead = await shared.lead()
    join = RedisFollow.join

    async def late(follow: RedisFollow) -> bool:
        if not kept:
            kept.append(await shared.keep(lead, Body(SMALL)))
        return await join(follow)

    kept: list[bool] = []
    monkeypatch.setattr(RedisFollow, "join", late)
    boarded = await shared.commons.board(a_wish())
    assert kept
    assert boarded.landed == lead.id.encode()


async def test_what_comes_too_late_goes_out_whole_and_is_kept_nowhere(
    tmp_path: Path, redis: RunningRedis
) -> None:
    """Neither in Redis nor in memory; the store has no trouble. All answer with the later one."""
    async with instances(tmp_path, redis, 2) as two:
        store, frozen = two[0].bench.store, asyncio.Event()
        real = store.put

        async def late(*given: Any) -> None:
            await frozen.wait()
            await real(*given)

        store.put = late  # type: ignore[method-assign]
        first, exchange = await two.lead()
        exchange.play(Reply(chunks=(b"old",)))
        assert (await first).body == b"old"
        refresh = two[1].bench.begin(a_call(invalidate=True))
        (await two[1].bench.upstream.next()).play(Reply(chunks=(b"new",)))
        assert (await refresh).body == b"new"
        await two[1].bench.landed()
        frozen.set()
        await two.landed()
        assert [(await one.bench.get()).body for one in two.all] == [b"new", b"new"]
        assert await two.kept() == 1
        assert not two[0].bench.cache.ails
        assert two.sent == [1, 1]


async def test_nothing_older_is_stored_over_a_refresh_that_could_ask_nobody(
    tmp_path: Path, redis: RunningRedis
) -> None:
    """It began while Redis was away and holds no lease; the older call's has outlasted that."""
    async with instances(tmp_path, redis, 2) as two:
        first, exchange = await two.lead()
        for one in two.all:
            one.bench.clock.advance(1)
        assert two[1].wire is not None
        two[1].wire.is_cut = True
        refresh = two[1].bench.begin(a_call(invalidate=True))
        (await two[1].bench.upstream.next()).play(Reply(chunks=(b"new",)))
        assert (await refresh).body == b"new"
        await two[1].bench.landed()
        two[1].wire.is_cut = False
        exchange.play(Reply(chunks=(b"old",)))
        assert (await first).body == b"old"
        await two.landed()
        assert [(await one.bench.get()).body for one in two.all] == [b"new", b"new"]
        assert await two.kept() == 1
        assert two.sent == [1, 1]


async def test_what_was_asked_before_a_purge_is_nobodys_answer_however_late_it_is_stored(
    tmp_path: Path, redis: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the one that stores it has not heard of the purge, and nobody looks for it any
    more: whoever reads it looks at its time."""
    monkeypatch.setattr(registers, "SETTLE_SECONDS", 0.0)
    async with instances(tmp_path, redis, 2) as two:
        first, exchange = await two.lead()
        for one in two.all:
            one.bench.clock.advance(1)
        purge = Purge(NOW + 0.5)
        await two[1].bench.cache.purge(purge)
        await patiently(lambda: not two[1].bench.store._purging)  # type: ignore[attr-defined]
        exchange.play(Reply(chunks=(b"purged",)))
        assert (await first).body == b"purged"
        await two.landed()
        assert await two.kept() == 1
        other = two[1].bench.begin()
        (await two[1].bench.upstream.next()).play(Reply(chunks=(b"new",)))
        assert (await other).body == b"new"
        two[0].bench.cache.apply_purges((purge,))
        await two.landed()
        assert (await two[0].bench.get()).body == b"new"
        assert two.sent == [1, 1]
