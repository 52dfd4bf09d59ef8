"""How many instances there were, for one that starts while Redis is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.limits import instances
from proxy.limits.census import Census, PostgresCensus
from proxy.limits.keeping import census_at
from tests.proxy.limits.conftest import Book
from tests.proxy.limits.together import Member, member
from tests.support.engines import RunningPostgres, redis_running

Make = Callable[[], Census]


@pytest.fixture(params=["file", "postgresql"])
def census(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """The same one each time that it is asked for."""
    if request.param == "file":
        return lambda: census_at(tmp_path, None)
    server: RunningPostgres = request.getfixturevalue("postgres")
    url = server.another()
    return lambda: census_at(tmp_path, url)


async def test_an_instance_that_starts_without_redis_takes_its_share(census: Make) -> None:
    """As if it had seen the others; it learns how many there are as soon as somebody can tell."""
    with redis_running() as redis:
        running = [member(redis.url, "here", "sliding", Book(), census()) for _ in range(3)]
        for one in running:
            await one.instances.start()
        for one in running:
            await _knows(one, census(), 3)
        redis.kill()
        new = member(redis.url, "here", "sliding", Book(), census())
        await new.instances.start()
        await new.counts.start()
        assert (new.engine.up, new.instances.count) == (False, 3)
        own = {"upstream_calls": ("30/day",), "budget": 100}
        assert sum([await new.send(**own) for _ in range(30)]) == 10
        assert sum([await new.send(budget=100) for _ in range(99)]) == 33 - 10
        redis.start_again()
        redis.wait()
        await new.find_again()
        for one in (*running, new):
            await one.counts.stop()
            await one.instances.stop()
            await one.engine.aclose()


async def _knows(one: Member, census: Census, count: int) -> None:
    async with asyncio.timeout(30):
        while one.instances.count != count or await census.last() != count:
            await one.instances.beat()
            await asyncio.sleep(0.01)


async def test_fewer_instances_are_written_down_when_it_has_been_so_for_long(
    census: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some may only be starting again."""
    monkeypatch.setattr(instances, "FEWER", 3)
    await census().note(5)
    with redis_running() as redis:
        one = member(redis.url, "here", "sliding", Book(), census())
        one.instances.count = one.instances._written = await census().last()
        for _ in range(3):
            await one.instances.beat()
        assert (one.instances.count, await census().last()) == (1, 5)
        await _knows(one, census(), 1)
        await one.instances.stop()
        await one.engine.aclose()


async def test_what_can_not_be_read_or_written_keeps_nobody(
    tmp_path: Path, postgres: RunningPostgres
) -> None:
    """One instance is what there is then."""
    (tmp_path / "instances").write_text("many\n")
    for one in (
        census_at(tmp_path, None),
        census_at(tmp_path / "nowhere", None),
        PostgresCensus(postgres.url_of("nowhere")),
    ):
        assert await one.last() == 1
    assert await census_at(tmp_path, None).note(2)
    assert not await census_at(tmp_path / "nowhere", None).note(2)
    assert not await PostgresCensus(postgres.url_of("nowhere")).note(2)


async def test_no_beat_waits_for_what_is_written(tmp_path: Path) -> None:
    """Whoever misses beats counts no more."""

    class Slow:
        wrote = asyncio.Event()
        tries = 0

        async def last(self) -> int:
            return 1

        async def note(self, instances: int) -> bool:
            self.tries += 1
            await self.wrote.wait()
            return True

    slow = Slow()
    with redis_running() as redis:
        two = [member(redis.url, "here", "sliding", Book(), slow) for _ in range(2)]
        for _ in range(5):
            for one in two:
                await one.instances.beat()
        await asyncio.sleep(0)
        assert slow.tries == 2
        slow.wrote.set()
        for one in two:
            await one.instances.stop()
            await one.engine.aclose()
