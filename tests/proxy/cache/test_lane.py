"""The thread of a SQLite connection: in order, together where many wait, nothing lost."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from proxy.cache.entry import StoreError
from proxy.cache.lane import TRIP_SECONDS, Lane
from tests.proxy.cache.conftest import NOW
from tests.support.clock import FakeClock

MOST = 3


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
async def lane(clock: FakeClock) -> AsyncIterator[Lane]:
    """On a database of its own in memory."""
    one = Lane("test", lambda: sqlite3.connect(":memory:"), clock, MOST)
    yield one
    await one.close()


class Held:
    """The thread is kept busy until it is let go."""

    def __init__(self, lane: Lane) -> None:
        self._gate = threading.Event()
        self._begun = threading.Event()
        self.work = asyncio.create_task(lane.run(self._wait))

    def _wait(self, _connection: sqlite3.Connection) -> None:
        self._begun.set()
        assert self._gate.wait(30)

    async def begun(self) -> None:
        """The thread is in it."""
        assert await asyncio.to_thread(self._begun.wait, 30)

    def let_go(self) -> None:
        """What waits is next."""
        self._gate.set()


def counted(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One entry each time that the thread comes back."""
    loop, came_back = asyncio.get_running_loop(), list[object]()
    back = loop.call_soon_threadsafe

    def call(callback: Callable[..., object], *told: object) -> object:
        came_back.append(callback)
        return back(callback, *told)

    monkeypatch.setattr(loop, "call_soon_threadsafe", call)
    return came_back


async def test_what_waits_is_done_in_order_and_so_many_at_a_time(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread comes back once for what was under way, and once for each load."""
    held = Held(lane)
    await held.begun()
    came_back = counted(monkeypatch)
    seen: list[int] = []

    def counting(number: int) -> Callable[[sqlite3.Connection], int]:
        def work(_connection: sqlite3.Connection) -> int:
            seen.append(number)
            return len(seen)

        return work

    tasks = [asyncio.create_task(lane.run(counting(number))) for number in range(2 * MOST)]
    await asyncio.sleep(0)  # each has asked
    held.let_go()
    assert await asyncio.gather(*tasks) == [1, 2, 3, 4, 5, 6]
    assert seen == [0, 1, 2, 3, 4, 5]
    assert len(came_back) == 1 + 2


async def test_what_takes_long_goes_by_itself(
    lane: Lane, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load comes back early with what is done; the rest is next, in its order."""
    held = Held(lane)
    await held.begun()
    came_back = counted(monkeypatch)
    seen: list[int] = []

    def long(number: int) -> Callable[[sqlite3.Connection], None]:
        def work(_connection: sqlite3.Connection) -> None:
            seen.append(number)
            clock.advance(TRIP_SECONDS)

        return work

    tasks = [asyncio.create_task(lane.run(long(number))) for number in range(2 * MOST)]
    await asyncio.sleep(0)
    held.let_go()
    await asyncio.gather(*tasks)
    assert seen == [0, 1, 2, 3, 4, 5]
    assert len(came_back) == 1 + 6


async def test_one_that_fails_takes_no_other_of_its_load_with_it(lane: Lane) -> None:
    """An error is of whoever asked; the others have their answers."""
    held = Held(lane)
    await held.begun()
    asked = [
        lane.run(lambda connection: connection.execute("SELECT 7").fetchone()),
        lane.run(lambda connection: connection.execute("SELECT nothing").fetchone()),
        lane.run(lambda connection: connection.execute("SELECT 8").fetchone()),
    ]
    tasks = [asyncio.ensure_future(one) for one in asked]
    await asyncio.sleep(0)
    held.let_go()
    first, failed, last = await asyncio.gather(*tasks, return_exceptions=True)
    assert (first, last) == ((7,), (8,))
    assert isinstance(failed, StoreError)


async def test_a_result_that_nobody_waits_for_is_given_back(lane: Lane) -> None:
    """Whoever asked has gone: the work is done all the same, and what it took is let go."""
    held = Held(lane)
    await held.begun()
    let_go: list[int] = []
    asked = asyncio.create_task(lane.run(lambda _connection: 5, let_go.append))
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    held.let_go()
    assert await lane.run(lambda _connection: 6) == 6
    assert let_go == [5]


async def test_what_nobody_waits_for_comes_after_what_was_asked_before(lane: Lane) -> None:
    """`post` keeps its place in the queue."""
    held = Held(lane)
    await held.begun()
    order: list[str] = []
    asked = asyncio.create_task(lane.run(lambda _connection: order.append("asked")))
    await asyncio.sleep(0)
    lane.post(lambda: order.append("posted"))
    held.let_go()
    await asked
    await lane.run(lambda _connection: None)
    assert order == ["asked", "posted"]
