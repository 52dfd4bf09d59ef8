"""Slots over several instances: never too many, none lost, in turns; a share each without Redis."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from secrets import token_hex

import pytest

from proxy.config import Limits
from proxy.engine import PAUSE_SECONDS, Engine, Place
from proxy.errors import Overloaded
from proxy.upstream import leases
from proxy.upstream.leases import Leases
from proxy.upstream.settings import spanning_limits
from proxy.upstream.slots import Slot, SlotLimits
from proxy.upstream.spanning import SpanningSlots
from tests.support.clock import FakeClock
from tests.support.engines import RunningRedis, redis_running


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine may be slow: only where a test says so is anybody given up."""
    monkeypatch.setattr(leases, "SECONDS", 20.0)
    monkeypatch.setattr(leases, "LEASE_SECONDS", 60.0)


@dataclass
class Member:
    """One instance."""

    clock: FakeClock
    engine: Engine
    leases: Leases
    slots: SpanningSlots

    async def hold(self, tenant: str = "a", service: str = "x") -> Slot:
        """A slot, at once or in turn."""
        return self.slots.take(tenant, service) or await self.slots.wait(tenant, service)

    async def settle(self, up: bool) -> None:
        """Until it knows that Redis is there, or is not."""
        async with asyncio.timeout(30):
            while self.leases.up != up:
                self.clock.advance(PAUSE_SECONDS)
                await self.leases.beat()
        await self.leases.beat()


@asynccontextmanager
async def together(url: str, limits: SlotLimits, members: int = 3) -> AsyncIterator[list[Member]]:
    prefix = f"test-{token_hex(4)}"
    made = []
    for _ in range(members):
        clock = FakeClock()
        engine = Engine(Place.of(url), prefix, clock)
        held = Leases(engine)
        made.append(Member(clock, engine, held, SpanningSlots(limits, held, lambda: members)))
    for one in made:
        await one.slots.start()
    try:
        yield made
    finally:
        for one in made:
            await one.slots.stop()
            await one.engine.aclose()


async def until_waiting(member: Member, calls: int) -> None:
    async with asyncio.timeout(20):
        while member.slots.waiting < calls:
            await asyncio.sleep(0.001)


def in_flight(members: Sequence[Member]) -> int:
    return sum(one.slots.in_flight for one in members)


TOTAL = SlotLimits(total=4, spans_total=True)
BOTH = SlotLimits(total=5, spans_total=True, per_tenant=3, services={"y": 2})


@pytest.mark.parametrize("limits", [TOTAL, BOTH])
async def test_there_are_never_more_than_may_be(redis: RunningRedis, limits: SlotLimits) -> None:
    """Of two hundred calls on three instances; each comes to its turn."""
    async with together(redis.url, limits) as members:
        now: Counter[str] = Counter()
        most: Counter[str] = Counter()

        async def call(number: int) -> None:
            member, tenant = members[number % 3], "abc"[number % 7 % 3]
            service = "xy"[number % 2]
            slot = await member.hold(tenant, service)
            for name in ("all", tenant, service):
                now[name] += 1
                most[name] = max(most[name], now[name])
            await asyncio.sleep(0)
            now.subtract(("all", tenant, service))
            member.slots.release(slot)

        await asyncio.gather(*(call(number) for number in range(200)))
        assert most["all"] == limits.total
        assert all(most[tenant] <= limits.per_tenant for tenant in "abc")
        assert most["y"] <= limits.services.get("y", 99)
        for one in members:
            await one.leases.beat()
            assert (one.slots.in_flight, one.slots.waiting, +one.leases.held) == (0, 0, Counter())
        prefix = members[0].engine.key("slots", "all", "held")
        assert redis.say("HGETALL", prefix) == ""


async def test_a_bound_that_nobody_named_asks_nobody(redis: RunningRedis) -> None:
    """The thousand of the defaults are of each process."""
    limits = spanning_limits(Limits(), 1)
    async with together(redis.url, limits, 1) as [one]:
        await one.leases.beat()
        redis.say("CONFIG", "RESETSTAT")
        slot = one.slots.take("a", "x")
        assert slot is not None
        one.slots.release(slot)
        assert one.leases.held == Counter()
    named = Limits.model_validate({"concurrency": {"total": 1000, "per_service": 7}})
    limits = spanning_limits(named, 2)
    assert (limits.total, limits.spans_total, limits.per_service) == (1000, True, 7)
    assert spanning_limits(Limits(), 2).total == 500
    none = Limits.model_validate({"concurrency": {"total": None}})
    assert not spanning_limits(none, 1).spans_total


async def test_instances_take_turns(redis: RunningRedis) -> None:
    """One with many calls waiting does not keep another's first from its turn."""
    async with together(redis.url, SlotLimits(total=1, spans_total=True), 2) as [one, other]:
        first = await one.hold()
        got: list[str] = []

        async def call(name: str, member: Member) -> None:
            slot = await member.hold()
            got.append(name)
            await asyncio.sleep(0)
            member.slots.release(slot)

        many = [asyncio.create_task(call("one", one)) for _ in range(30)]
        await until_waiting(one, 30)
        single = asyncio.create_task(call("other", other))
        await until_waiting(other, 1)
        held = other.engine.key("slots", "all", "line", "all")
        async with asyncio.timeout(20):
            while redis.say("ZCARD", held) != "1":
                await asyncio.sleep(0.01)
        one.slots.release(first)
        await single
        assert got.index("other") <= 3
        await asyncio.gather(*many)


async def test_a_full_queue_and_a_turn_that_does_not_come_are_refused(redis: RunningRedis) -> None:
    """As in one process; where nobody may wait, a call that finds room goes all the same."""
    limits = SlotLimits(total=1, spans_total=True, queue_length=0)
    async with together(redis.url, limits, 2) as [one, other]:
        slot = await one.hold()
        with pytest.raises(Overloaded):
            await other.hold()
        one.slots.release(slot)
        other.slots.release(await other.hold())
    limits = SlotLimits(total=1, spans_total=True, queue_timeout=0.05)
    async with together(redis.url, limits, 2) as [one, other]:
        slot = await one.hold()
        with pytest.raises(Overloaded, match="not enough"):
            await other.hold()
        assert other.slots.waiting == 0
        one.slots.release(slot)


async def test_a_call_that_has_gone_leaves_nothing_behind(redis: RunningRedis) -> None:
    """While Redis is asked, and while it waits."""
    async with together(redis.url, SlotLimits(total=1, spans_total=True), 2) as [one, other]:
        asking = asyncio.create_task(one.hold())
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        slot = await other.hold()
        waiting = asyncio.create_task(one.hold())
        await until_waiting(one, 1)
        waiting.cancel()
        await asyncio.wait([waiting])
        other.slots.release(slot)
        one.slots.release(await one.hold())
        other.slots.release(await other.hold())
        assert in_flight([one, other]) == 0


async def test_a_call_that_goes_with_its_answer_leaves_nothing_behind(redis: RunningRedis) -> None:
    """It hangs up when the answer is there and before it has heard it."""
    async with together(redis.url, SlotLimits(total=1, spans_total=True), 1) as [one]:
        calls = [asyncio.create_task(one.hold())]
        learn = one.leases.carry

        async def carry(questions: Sequence[leases.Ask]) -> Sequence[str]:
            answers = await learn(questions)
            asyncio.get_running_loop().call_soon(calls[0].cancel)  # before the call wakes
            return answers

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(one.leases, "carry", carry)
            await asyncio.wait(calls)
        assert calls[0].cancelled()
        async with asyncio.timeout(20):
            one.slots.release(await one.hold())


async def test_who_waits_asks_now_and_then(redis: RunningRedis) -> None:
    """A refusal is not what the next question waits for: that comes in its time."""
    async with together(redis.url, SlotLimits(total=1, spans_total=True), 2) as [one, other]:
        slot = await one.hold()
        waiting = asyncio.create_task(other.hold())
        await until_waiting(other, 1)
        async with asyncio.timeout(20):
            while not other.slots._full:
                await asyncio.sleep(0)
        assert not other.slots._news.is_set()
        one.slots.release(slot)
        other.slots.release(await waiting)


async def test_what_waits_for_one_service_delays_no_other(redis: RunningRedis) -> None:
    """It is full; the other is not."""
    limits = SlotLimits(services={"x": 1, "y": 1})
    async with together(redis.url, limits, 2) as [one, other]:
        full = await other.hold("a", "x")
        waiting = asyncio.create_task(one.hold("a", "x"))
        await until_waiting(one, 1)
        for tenant in "ab":
            one.slots.release(await one.hold(tenant, "y"))
            one.slots.release(await one.hold(tenant, "z"))
        other.slots.release(full)
        one.slots.release(await waiting)


async def test_a_dead_instance_holds_nothing_after_its_time(
    redis: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that was only still, and gives back later, gives back nobody else's."""
    async with together(redis.url, SlotLimits(total=1, spans_total=True), 2) as [still, other]:
        slot = await still.hold()
        beating = still.leases._beating
        assert beating is not None
        beating.cancel()
        await asyncio.wait([beating])
        still.leases._beating = None
        monkeypatch.setattr(leases, "LEASE_SECONDS", 1.5)
        taken = await other.hold()
        monkeypatch.setattr(leases, "LEASE_SECONDS", 60.0)
        still.slots.release(slot)
        late = asyncio.create_task(still.hold())
        await until_waiting(still, 1)
        assert still.slots.in_flight <= 1  # which asks, and is told no
        assert not late.done()
        other.slots.release(taken)
        still.slots.release(await late)


async def test_what_redis_forgets_in_part_is_right_again_soon(redis: RunningRedis) -> None:
    """It was full, and took a name away: what each holds is added up every other second."""
    async with together(redis.url, SlotLimits(total=9, spans_total=True), 2) as [one, other]:
        slots = [await one.hold(), await one.hold()]
        taken = await other.hold()
        for name in ("held", f"of:{other.leases._id}", "held"):
            redis.say("DEL", one.engine.key("slots", "all", name))
            async with asyncio.timeout(20):
                while redis.say("HGET", one.engine.key("slots", "all", "held"), "all") != "3":
                    await one.leases.beat()
                    await other.leases.beat()
                    await asyncio.sleep(0.02)
        for slot in slots:
            one.slots.release(slot)
        other.slots.release(taken)


async def test_other_limits_hold_at_once(redis: RunningRedis) -> None:
    """A larger one lets those go who wait; a bound that is new counts what goes on already."""
    async with together(redis.url, SlotLimits(total=1, spans_total=True), 2) as [one, other]:
        slot = await one.hold()
        waiting = asyncio.create_task(other.hold())
        await until_waiting(other, 1)
        for member in (one, other):
            member.slots.become(SlotLimits(total=2, spans_total=True, per_tenant=2))
        second = await waiting
        for member in (one, other):
            await member.leases.beat()
        third = asyncio.create_task(one.hold())
        await until_waiting(one, 1)
        one.slots.release(slot)
        one.slots.release(await third)
        other.slots.release(second)
        for member in (one, other):
            member.slots.become(SlotLimits())
            assert +member.leases.held == Counter()


async def test_without_redis_each_has_its_share() -> None:
    """Calls go on; when it is there again, empty, it hears of them, and all wait for all."""
    limits = SlotLimits(total=6, spans_total=True, per_tenant=6, queue_timeout=60)
    with redis_running() as redis:
        async with together(redis.url, limits) as members:
            before = [await one.hold() for one in members]
            redis.kill()
            for one in members:
                await one.settle(up=False)
            held = [await one.hold() for one in members]
            waiting = [asyncio.create_task(one.hold()) for one in members]
            for one in members:
                await until_waiting(one, 1)
            assert in_flight(members) == 6
            redis.start_again()
            redis.wait()
            for one in members:
                await one.settle(up=True)
            extra = asyncio.create_task(members[0].hold())
            members[1].slots.release(held[1])
            members[1].slots.release(before[1])
            async with asyncio.timeout(20):
                while sum(task.done() for task in (*waiting, extra)) < 2:
                    await asyncio.sleep(0.01)
            assert in_flight(members) <= 6 + 3  # three may be asking
            for one, slot in ((members[0], held[0]), (members[2], held[2])):
                one.slots.release(slot)
            for one, slot in ((members[0], before[0]), (members[2], before[2])):
                one.slots.release(slot)
            for one, task in zip((*members, members[0]), (*waiting, extra), strict=True):
                one.slots.release(await task)
            assert in_flight(members) == 0


async def test_what_was_full_everywhere_is_not_full_alone() -> None:
    """Whoever was refused last before Redis went away goes by the share from then on."""
    with redis_running() as redis:
        limits = SlotLimits(total=2, spans_total=True)
        async with together(redis.url, limits, 2) as [one, other]:
            slots = [await one.hold(), await one.hold()]
            waiting = asyncio.create_task(other.hold())
            await until_waiting(other, 1)
            async with asyncio.timeout(20):
                while not other.slots._full:
                    await asyncio.sleep(0.001)
            redis.kill()
            await other.settle(up=False)
            async with asyncio.timeout(20):
                other.slots.release(await waiting)
                other.slots.release(await other.hold())
            for slot in slots:
                one.slots.release(slot)


async def test_a_redis_that_stands_still_makes_an_instance_go_by_its_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After the deadline; and again with all when it goes on."""
    with redis_running() as redis:
        limits = SlotLimits(total=4, spans_total=True)
        async with together(redis.url, replace(limits, queue_length=0), 2) as members:
            redis.pause()
            monkeypatch.setattr(leases, "SECONDS", 0.05)
            slots = [await one.hold() for one in members for _ in range(2)]
            assert not any(one.leases.up for one in members)
            redis.go_on()
            monkeypatch.setattr(leases, "SECONDS", 20.0)
            for one in members:
                one.slots.become(limits)
                await one.settle(up=True)
            late = asyncio.create_task(members[0].hold())
            await until_waiting(members[0], 1)
            members[1].slots.release(slots.pop())
            members[0].slots.release(await late)
            for number, slot in enumerate(slots):
                members[number // 2].slots.release(slot)
