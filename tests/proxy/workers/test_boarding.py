"""Equal calls of all workers: the rules of flights across processes, over the coordinator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from proxy.cache.commons import Boarded, Fence, Lost, Overtaken, Wish
from proxy.cache.entry import Entry, Found
from proxy.workers import boarding
from proxy.workers.boarding import Boarding, TeamCommons
from proxy.workers.store import SharedStore
from tests.proxy.cache.conftest import NOW, open_bench
from tests.proxy.cache.instances import Instance, Instances
from tests.proxy.cache.test_commons import (  # the same rules, tried over this
    test_a_cut_answer_is_cut_for_all,
    test_a_follower_elsewhere_hears_what_has_arrived_then_the_live_tail,
    test_a_follower_whose_callers_have_gone_hears_no_more,
    test_a_later_call_may_follow_an_invalidating_one,
    test_a_leader_that_dies_is_over_within_the_time_of_its_lease,
    test_a_leader_that_fails_before_its_header_wakes_one_follower_of_all,
    test_an_answer_larger_than_memory_is_heard_whole,
    test_an_invalidating_call_joins_nobody_and_the_older_answer_is_not_stored,
    test_equal_calls_of_three_instances_are_one_upstream_call,
    test_one_who_looked_a_moment_too_early_looks_again,
    test_where_nobody_can_be_asked_each_calls_for_itself,
    test_whoever_leads_alone_leaves_nothing_behind,
)
from tests.proxy.cache.test_fence import Body
from tests.proxy.workers.conftest import Office, until

__all__ = [
    "test_a_cut_answer_is_cut_for_all",
    "test_a_follower_elsewhere_hears_what_has_arrived_then_the_live_tail",
    "test_a_follower_whose_callers_have_gone_hears_no_more",
    "test_a_later_call_may_follow_an_invalidating_one",
    "test_a_leader_that_dies_is_over_within_the_time_of_its_lease",
    "test_a_leader_that_fails_before_its_header_wakes_one_follower_of_all",
    "test_an_answer_larger_than_memory_is_heard_whole",
    "test_an_invalidating_call_joins_nobody_and_the_older_answer_is_not_stored",
    "test_equal_calls_of_three_instances_are_one_upstream_call",
    "test_one_who_looked_a_moment_too_early_looks_again",
    "test_where_nobody_can_be_asked_each_calls_for_itself",
    "test_whoever_leads_alone_leaves_nothing_behind",
]


class Worker(TeamCommons):
    """One that can be killed."""

    def die(self) -> None:
        companion = self._companion
        assert companion._staying is not None
        assert companion._link is not None
        companion._staying.cancel()
        companion._link.close()


@dataclass
class Workers(Instances):
    """All of them, and where they meet."""

    boarding: Boarding = field(default_factory=Boarding)
    store: Any = None
    apart = 0  # who has lost the coordinator has lost the store

    async def kept(self) -> int:
        return int((await self.store.stats()).entries)

    async def followed(self, leader: int) -> None:
        wanted = self[leader].commons._wanted
        leadings = self.boarding._all
        await until(lambda: any(leadings[number].followers for number in wanted))


@pytest.fixture
def several(tmp_path: Path, office: Office) -> Any:
    """`async with several(settings...) as three`."""

    @asynccontextmanager
    async def opener(count: int = 3, **settings: Any) -> AsyncIterator[Instances]:
        made = []
        async with AsyncExitStack() as stack:
            for number in range(count):
                (tmp_path / str(number)).mkdir()
                companion = office.worker()
                commons = Worker(companion)
                await companion.start()
                known = {"store": SharedStore(companion), "clock": office.clock, **settings}
                opening = open_bench(tmp_path / str(number), commons=commons, **known)
                made.append(Instance(await stack.enter_async_context(opening), commons, None))
            yield Workers(made, boarding=office.boarding, store=office.store)

    return opener


def a_wish(at: float = 1.0, room: int = 100) -> Wish:
    return Wish(b"k", at, 0.0, True, room, lambda: None)


async def aboard(office: Office, wish: Wish | None = None) -> Boarded:
    companion = office.worker()
    await companion.start()
    return await TeamCommons(companion).board(wish or a_wish())


async def test_no_more_is_held_than_there_is_room_for(office: Office) -> None:
    """Who has not heard the oldest records is lost; nothing of it is left at the end."""
    lead = (await aboard(office)).lead
    follow = (await aboard(office)).follow
    assert lead is not None
    assert follow is not None
    for _ in range(3):
        assert await lead.say(b"x" * 60)
    with pytest.raises(Lost):
        await follow.hear()
    assert await lead.close(landed=False)
    await lead.end()
    follow.leave()
    await until(lambda: not len(office.boarding))


async def test_who_gives_up_while_it_asks_leads_nobody(office: Office) -> None:
    """The next one leads, and waits for nothing."""
    companion = office.worker()
    await companion.start()
    asking = asyncio.create_task(TeamCommons(companion).board(a_wish()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await companion.ask("ping")
    assert (await aboard(office)).lead is not None


async def test_who_is_far_behind_hears_a_part_at_a_time(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much is held for it: a message has an end."""
    monkeypatch.setattr(boarding, "AT_ONCE", 50)
    wish = a_wish(room=1000)
    lead = (await aboard(office, wish)).lead
    follow = (await aboard(office, wish)).follow
    assert lead is not None
    assert follow is not None
    for number in range(5):
        assert await lead.say(b"%d" % number * 30)
    heard = [await follow.hear(), await follow.hear(), await follow.hear()]
    assert [[record[:1] for record in records] for records in heard] == [
        [b"0", b"1"],
        [b"2", b"3"],
        [b"4"],
    ]
    follow.leave()
    await lead.end()


@dataclass
class Writer:
    """A worker that leads, and what it stores."""

    store: SharedStore
    lead: Any

    async def keep(self, body: Body) -> bool:
        return await self.lead.keep(partial(self._put, body))

    async def keep_alone(self, body: Body, at: float) -> bool:
        """As one whose call began while it could ask nobody."""
        return await self._put(body, Fence(), at)

    async def _put(self, body: Body, fence: Fence | None, at: float = NOW) -> bool:
        times = at, at, NOW + 10
        entry = Entry(b"k", b"", b"", "t", "s", *times, 200, (), len(body.octets))
        await self.store.put(entry, lambda _vary: b"", body, fence)
        return True


async def a_writer(office: Office) -> Writer:
    companion = office.worker()
    await companion.start()
    lead = (await TeamCommons(companion).board(replace(a_wish(), joins=False))).lead
    return Writer(SharedStore(companion), lead)


@pytest.mark.parametrize("size", [10, 600_000])
async def test_a_worker_that_stood_still_while_it_stored_stores_nothing(
    office: Office, size: int
) -> None:
    """The coordinator looks at its lease when it has all of its answer; a later one stays."""
    first, frozen = await a_writer(office), Body(b"1" * size, frozen=True)
    late = asyncio.create_task(first.keep(frozen))
    await frozen.stands.wait()
    later = await a_writer(office)
    storing = asyncio.create_task(later.keep(Body(b"2")))
    frozen.goes_on.set()
    with pytest.raises(Overtaken):
        await late
    assert await storing
    found = await first.store.get(b"k", lambda _vary: b"", NOW)
    assert isinstance(found, Found)
    assert found.body == b"2"
    assert (await office.store.stats()).entries == 1


async def test_a_worker_that_lost_its_lease_with_the_coordinator_stores_nothing(
    office: Office,
) -> None:
    """The next one does not know who led."""
    one = await a_writer(office)
    await office.gone()
    await office.back()
    with pytest.raises(Overtaken):
        await one.keep(Body(b"1"))


async def test_a_lease_of_a_coordinator_that_is_gone_is_none_of_the_next(office: Office) -> None:
    """Also where one worker leads the same call again: what it began first is not stored."""
    one = await a_writer(office)
    await office.gone()
    await office.back()
    commons = TeamCommons(office.companions[0])
    later = Writer(one.store, (await commons.board(replace(a_wish(), joins=False))).lead)
    with pytest.raises(Overtaken):
        await one.keep(Body(b"1"))
    assert await later.keep(Body(b"2"))


@pytest.mark.parametrize("size", [10, 600_000])
async def test_nothing_older_is_stored_over_a_refresh_that_could_ask_nobody(
    office: Office, size: int
) -> None:
    """It began while its worker had no coordinator and holds no lease; the older one's is over."""
    first = await a_writer(office)
    refresh = Writer(SharedStore(office.companions[0]), None)
    assert await refresh.keep_alone(Body(b"2" * size), NOW + 1)
    with pytest.raises(Overtaken):
        await first.keep(Body(b"1" * size))
    assert (await office.store.stats()).entries == 1


@pytest.mark.parametrize("size", [10, 600_000])
async def test_who_could_ask_nobody_stores_nothing_over_what_was_asked_for_later(
    office: Office, size: int
) -> None:
    """Its call began first; the other one held a lease, and was faster."""
    later = await a_writer(office)
    assert await later.keep(Body(b"2" * size))
    with pytest.raises(Overtaken):
        await later.keep_alone(Body(b"1" * size), NOW - 1)
    found = await later.store.get(b"k", lambda _vary: b"", NOW)
    assert isinstance(found, Found)
    assert found.entry.requested_at == NOW
    found.close()
