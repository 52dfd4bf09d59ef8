"""Slots and their queues: never too many, none lost, tenants and services in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.errors import Overloaded
from proxy.upstream.slots import Load, Slot, SlotLimits, Slots

TENANTS = ("a", "b", "c")
SERVICES = ("x", "y")
LIMITS = (
    SlotLimits(total=2, queue_timeout=3600),
    SlotLimits(total=4, per_tenant=2, per_service=3, queue_timeout=3600),
    SlotLimits(total=inf, per_tenant=1, tenants={"b": 2}, queue_timeout=3600),
    SlotLimits(total=3, per_service=2, services={"y": 1}, queue_length=2, queue_timeout=3600),
)


@dataclass(eq=False)
class Waiter:
    """A call that waits; `order` in which it came."""

    tenant: str
    service: str
    order: int
    task: asyncio.Task[Slot]

    @property
    def place(self) -> tuple[str, str]:
        """The queue."""
        return self.tenant, self.service


@dataclass
class Held:
    """The slots of a test, each with the call that holds it."""

    slots: Slots
    got: list[str] = field(default_factory=list)

    async def call(self, name: str, tenant: str, service: str = "x") -> Slot:
        slot = self.slots.take(tenant, service) or await self.slots.wait(tenant, service)
        self.got.append(name)
        return slot

    def start(self, name: str, tenant: str, service: str = "x") -> asyncio.Task[Slot]:
        return asyncio.create_task(self.call(name, tenant, service))


async def settled() -> None:
    """Whatever can happen now has happened."""
    for _ in range(5):
        await asyncio.sleep(0)


class Queueing(RuleBasedStateMachine):
    """Calls come, end, and are given up, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.limits = LIMITS[0]
        self.slots = Slots(self.limits)
        self.held: list[tuple[str, str, Slot]] = []
        self.waiting: list[Waiter] = []
        self.turns: dict[str, int] = {}
        self.numbers = 0

    def teardown(self) -> None:
        """All that was held comes back, and nothing is left."""
        for waiter in self.waiting:
            waiter.task.cancel()
        self.settle()
        for _, _, slot in self.held:
            self.slots.release(slot)
        assert (self.slots.in_flight, self.slots.waiting) == (0, 0)
        assert set(self.slots.loads().values()) <= {Load(0, 0)}
        self.loop.close()

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def settle(self) -> None:
        self.loop.run_until_complete(settled())
        for waiter in tuple(self.waiting):
            if waiter.task.done():
                self.waiting.remove(waiter)
                if not waiter.task.cancelled():
                    self.held.append((waiter.tenant, waiter.service, waiter.task.result()))

    def fits(self, tenant: str, service: str) -> bool:
        limits = self.limits
        mine = sum(1 for one in self.held if one[0] == tenant)
        its = sum(1 for one in self.held if one[1] == service)
        return (
            len(self.held) < limits.total
            and mine < limits.tenants.get(tenant, limits.per_tenant)
            and its < limits.services.get(service, limits.per_service)
        )

    def expected(self) -> set[str]:
        """Whose turn it is: of the tenants that fit, the one served longest ago; those who were
        never served are equals."""
        fitting = {one.tenant for one in self.waiting if self.fits(one.tenant, one.service)}
        oldest = min((self.turns[tenant] for tenant in fitting), default=0)
        return {tenant for tenant in fitting if self.turns[tenant] == oldest}

    def serve(self) -> None:
        """What must have been given by now, one by one, each to the first in its queue."""
        while tenants := self.expected():
            given = [one for one in self.waiting if one.tenant in tenants and one.task.done()]
            assert given, f"it was the turn of {tenants}"
            waiter = min(given, key=lambda one: one.order)
            queue = [one for one in self.waiting if one.place == waiter.place]
            assert waiter is min(queue, key=lambda one: one.order)
            self.turns[waiter.tenant] = self.number()
            self.waiting.remove(waiter)
            self.held.append((waiter.tenant, waiter.service, waiter.task.result()))
        assert not any(waiter.task.done() for waiter in self.waiting)

    @rule(limits=st.sampled_from(LIMITS))
    def change(self, limits: SlotLimits) -> None:
        self.limits = limits
        self.slots.become(limits)
        self.loop.run_until_complete(settled())
        self.serve()

    @rule(tenant=st.sampled_from(TENANTS), service=st.sampled_from(SERVICES))
    def come(self, tenant: str, service: str) -> None:
        fits = self.fits(tenant, service)
        slot = self.slots.take(tenant, service)
        self.turns.setdefault(tenant, 0)
        assert (slot is not None) == fits
        if slot is not None:
            self.turns[tenant] = self.number()
            self.held.append((tenant, service, slot))
            return
        queued = [one for one in self.waiting if one.place == (tenant, service)]
        task = self.loop.create_task(self.slots.wait(tenant, service))
        self.loop.run_until_complete(settled())
        if len(queued) >= self.limits.queue_length:
            assert isinstance(task.exception(), Overloaded)
        else:
            self.waiting.append(Waiter(tenant, service, self.number(), task))

    @rule(data=st.data())
    @precondition(lambda self: self.held)
    def end(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.held))
        self.held.remove(one)
        self.slots.release(one[2])
        self.loop.run_until_complete(settled())
        self.serve()

    @rule(data=st.data())
    @precondition(lambda self: self.waiting)
    def give_up(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(waiter)
        waiter.task.cancel()
        self.loop.run_until_complete(settled())
        assert waiter.task.cancelled()

    @rule(data=st.data())
    @precondition(lambda self: self.held and self.waiting)
    def give_up_in_the_same_moment(self, data: st.DataObject) -> None:
        """A slot comes free and some callers go: what was given to one of them goes on."""
        one = data.draw(st.sampled_from(self.held))
        gone = data.draw(st.sets(st.sampled_from(self.waiting), min_size=1))
        self.held.remove(one)
        first = data.draw(st.booleans())
        for waiter in gone if first else ():
            waiter.task.cancel()
        self.slots.release(one[2])
        for waiter in () if first else gone:
            waiter.task.cancel()
        self.loop.run_until_complete(settled())
        self.waiting = [waiter for waiter in self.waiting if waiter not in gone]
        assert all(waiter.task.cancelled() for waiter in gone)
        self.settle()
        self.turns = {name: tenant.turn for name, tenant in self.slots._tenants.items()}

    @invariant()
    def counted(self) -> None:
        """What is told is what is."""
        assert self.slots.in_flight == len(self.held)
        assert self.slots.waiting == len(self.waiting)
        loads = self.slots.loads()
        for service in loads:
            held = sum(1 for one in self.held if one[1] == service)
            waiting = sum(1 for one in self.waiting if one.service == service)
            assert loads[service] == Load(held, waiting)

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        """There is no room for anybody who waits."""
        assert self.expected() == set()


TestQueueing = Queueing.TestCase
TestQueueing.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


async def test_a_tenants_first_call_goes_before_a_hundred_of_another() -> None:
    """Whose last turn is longest ago is next."""
    held = Held(Slots(SlotLimits(total=1)))
    slot = await held.call("noisy 0", "noisy")
    calls = [held.start(f"noisy {n}", "noisy") for n in range(1, 101)]
    await settled()
    calls.append(held.start("quiet", "quiet"))
    await settled()
    held.slots.release(slot)
    await settled()
    assert held.got == ["noisy 0", "quiet"]
    held.slots.release(await calls[-1])
    for call in calls[:-1]:
        held.slots.release(await call)
    assert held.got[2:] == [f"noisy {n}" for n in range(1, 101)]
    assert held.slots.in_flight == 0


async def test_tenants_take_turns() -> None:
    """One after the other, each in its own order."""
    held = Held(Slots(SlotLimits(total=1)))
    slot = await held.call("a0", "a")
    names = ["a1", "a2", "a3", "b1", "b2", "c1"]
    calls = {name: held.start(name, name[0]) for name in names}
    await settled()
    while len(held.got) < 7:
        held.slots.release(slot)
        await settled()
        slot = await calls[held.got[-1]]
    assert held.got == ["a0", "b1", "c1", "a1", "b2", "a2", "a3"]


async def test_a_full_service_delays_no_other() -> None:
    """Nor does it within one tenant."""
    held = Held(Slots(SlotLimits(total=2, services={"full": 1})))
    first = await held.call("1", "a", "full")
    other = await held.call("2", "a", "other")
    tasks = [held.start(name, "a", service) for name, service in (("3", "full"), ("4", "other"))]
    await settled()
    held.slots.release(other)
    assert await tasks[1]
    assert held.got == ["1", "2", "4"]
    held.slots.release(first)
    assert await tasks[0]
    assert held.slots.loads() == {"full": Load(1, 0), "other": Load(1, 0)}


async def test_a_full_tenant_delays_no_other() -> None:
    """Its calls wait for its own to end, others go past them."""
    held = Held(Slots(SlotLimits(per_tenant=1)))
    slot = await held.call("1", "a")
    waiting = held.start("2", "a")
    await settled()
    await held.call("3", "b")
    assert (held.got, held.slots.waiting) == (["1", "3"], 1)
    held.slots.release(slot)
    await waiting


async def test_the_services_of_a_tenant_take_turns() -> None:
    """A thousand calls for one do not delay those for another."""
    held = Held(Slots(SlotLimits(total=1)))
    slot = await held.call("x0", "a", "x")
    names = ["x1", "x2", "x3", "y1", "y2"]
    calls = {name: held.start(name, "a", name[0]) for name in names}
    await settled()
    while len(held.got) < 6:
        held.slots.release(slot)
        await settled()
        slot = await calls[held.got[-1]]
    assert held.got == ["x0", "x1", "y1", "x2", "y2", "x3"]


async def test_a_turn_that_does_not_come_in_time_is_a_refusal() -> None:
    """503 with the time to try again, and the place in the queue is free."""
    slots = Slots(SlotLimits(total=1, queue_timeout=0.01))
    held = Held(slots)
    await held.call("1", "a")
    with pytest.raises(Overloaded, match=r"0\.01 s") as failure:
        await held.call("2", "a")
    assert (failure.value.status, failure.value.retry_after) == (503, 5)
    assert (slots.in_flight, slots.waiting) == (1, 0)


async def test_a_full_queue_refuses_at_once_and_only_there() -> None:
    """One tenant's full queue leaves the others theirs."""
    held = Held(Slots(SlotLimits(total=1, queue_length=1)))
    slot = await held.call("1", "a")
    calls = {"2": held.start("2", "a")}
    await settled()
    with pytest.raises(Overloaded, match="as many as may wait"):
        await held.call("3", "a")
    calls |= {"4": held.start("4", "b"), "5": held.start("5", "a", "y")}
    await settled()
    assert held.slots.waiting == 3
    while len(held.got) < 4:
        held.slots.release(slot)
        await settled()
        slot = await calls[held.got[-1]]
    assert held.got == ["1", "4", "2", "5"]


async def test_larger_limits_let_those_go_who_wait() -> None:
    """At once; smaller ones cut nobody."""
    held = Held(Slots(SlotLimits(total=1)))
    await held.call("1", "a")
    waiting = held.start("2", "a")
    await settled()
    held.slots.become(SlotLimits(total=2, per_tenant=2))
    await waiting
    held.slots.become(SlotLimits(total=1))
    assert held.slots.in_flight == 2
    assert held.slots.take("b", "x") is None


@pytest.mark.parametrize("given_first", [True, False])
async def test_who_gives_up_hands_on_what_he_was_just_given(given_first: bool) -> None:
    """The slot is not lost, whichever comes first in the same turn of the loop."""
    held = Held(Slots(SlotLimits(total=1)))
    slot = await held.call("1", "a")
    second, third = held.start("2", "a"), held.start("3", "a")
    await settled()
    acts: list[Callable[[], object]] = [lambda: held.slots.release(slot), second.cancel]
    for act in acts if given_first else reversed(acts):
        act()
    await third
    assert second.cancelled()
    assert held.got == ["1", "3"]
    assert (held.slots.in_flight, held.slots.waiting) == (1, 0)
