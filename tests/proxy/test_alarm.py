"""One timer for deadlines that move."""

import asyncio
from collections.abc import Callable

import pytest

from proxy.alarm import NEVER, Alarm


class Loop:
    """An event loop of one timer, whose time a test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.started = 0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> "Loop":
        self.started += 1
        self.timers.append((when, callback))
        return self

    def cancel(self) -> None:
        self.timers.pop()

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for timer in [one for one in self.timers if one[0] <= self.now]:
            self.timers.remove(timer)
            timer[1]()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def rung() -> list[float]:
    return []


@pytest.fixture
def alarm(loop: Loop, rung: list[float]) -> Alarm:
    return Alarm(loop, lambda: rung.append(loop.now))  # type: ignore[arg-type]


def test_it_rings_once_at_its_time(loop: Loop, rung: list[float], alarm: Alarm) -> None:
    alarm.set(5)
    for _ in range(10):
        loop.advance(1)
    assert rung == [5]


def test_a_deadline_that_moves_away_costs_no_timer(
    loop: Loop, rung: list[float], alarm: Alarm
) -> None:
    for _ in range(100):
        alarm.set(loop.now + 60)
        alarm.set(NEVER)
    assert loop.started == 1
    alarm.set(100)
    loop.advance(60)
    assert (rung, loop.started) == ([], 2)
    loop.advance(40)
    assert rung == [100]


def test_a_nearer_deadline_replaces_the_timer(loop: Loop, rung: list[float], alarm: Alarm) -> None:
    alarm.set(60)
    alarm.set(5)
    assert len(loop.timers) == 1
    loop.advance(5)
    assert rung == [5]


@pytest.mark.parametrize("stopped", [False, True])
def test_no_deadline_is_silent(loop: Loop, rung: list[float], alarm: Alarm, stopped: bool) -> None:
    alarm.set(5)
    if stopped:
        alarm.stop()
        alarm.stop()
        assert loop.timers == []
    else:
        alarm.set(NEVER)
    loop.advance(10)
    assert rung == []
    alarm.set(15)
    loop.advance(5)
    assert rung == [15]


async def test_it_rings_in_an_event_loop() -> None:
    rung = asyncio.Event()
    loop = asyncio.get_running_loop()
    alarm = Alarm(loop, rung.set)
    alarm.set(loop.time() + 0.01)
    await asyncio.wait_for(rung.wait(), 5)
