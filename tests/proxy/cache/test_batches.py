"""What waits is written in its order and together, and whoever put it learns how that ended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from proxy.cache import batches
from proxy.cache.batches import MANY, MUCH, Batches, Waiting
from tests.proxy.cache.conftest import until
from tests.proxy.cache.stores import Octets, an_entry, sending

LONG = 3600


class Written:
    """What was written together; a batch with a key in `fails` is not."""

    def __init__(self, *fails: bytes) -> None:
        self.batches: list[list[bytes]] = []
        self.fails = fails
        self.go = asyncio.Event()
        self.go.set()

    async def write(self, batch: Sequence[Waiting]) -> None:
        keys = [one.entry.key for one in batch]
        self.batches.append(keys)
        await self.go.wait()
        if any(key in self.fails for key in keys):
            raise ValueError("refused")


def waiting(key: bytes, octets: bytes | None = b"body") -> Waiting:
    return Waiting(an_entry(key), sending(), Octets(b""), octets)


def put(queue: Batches, *all_waiting: Waiting) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(queue.put(one)) for one in all_waiting]


async def test_what_comes_together_is_written_together() -> None:
    """In its order."""
    written = Written()
    queue = Batches(written.write)
    await asyncio.gather(*put(queue, *(waiting(b"%d" % n) for n in range(5))))
    assert written.batches == [[b"0", b"1", b"2", b"3", b"4"]]
    await queue.put(waiting(b"later"))
    assert written.batches[1:] == [[b"later"]]
    await queue.close()


async def test_a_large_answer_is_written_alone() -> None:
    """What came before it goes before it, what came after it after it."""
    written = Written()
    queue = Batches(written.write)
    large = waiting(b"large", None), waiting(b"larger", None)
    await asyncio.gather(*put(queue, waiting(b"a"), waiting(b"b"), *large, waiting(b"c")))
    assert written.batches == [[b"a", b"b"], [b"large"], [b"larger"], [b"c"]]


async def test_many_do_not_wait_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no more than so many are written in one go."""
    monkeypatch.setattr(batches, "PACE", LONG)
    written = Written()
    queue = Batches(written.write)
    tasks = put(queue, *(waiting(b"%d" % n) for n in range(2 * MANY + 1)))
    await asyncio.gather(*tasks[: 2 * MANY])
    assert [len(batch) for batch in written.batches] == [MANY, MANY]
    await queue.close()
    assert written.batches[2:] == [[b"%d" % (2 * MANY)]]
    await tasks[-1]


async def test_much_does_not_wait_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Octets are bounded too."""
    monkeypatch.setattr(batches, "PACE", LONG)
    written = Written()
    queue = Batches(written.write)
    half = bytes(MUCH // 2)
    await asyncio.gather(*put(queue, *(waiting(b"%d" % n, half) for n in range(4))))
    assert written.batches == [[b"0", b"1"], [b"2", b"3"]]


async def test_after_closing_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is written before `close` returns."""
    monkeypatch.setattr(batches, "PACE", LONG)
    written = Written()
    queue = Batches(written.write)
    [task] = put(queue, waiting(b"a"))
    await until(lambda: queue._task is not None)
    await queue.close()
    assert written.batches == [[b"a"]]
    await task
    await queue.put(waiting(b"b"))
    assert written.batches == [[b"a"], [b"b"]]


async def test_each_of_a_batch_learns_that_it_failed() -> None:
    """The next batch is another matter."""
    written = Written(b"bad")
    queue = Batches(written.write)
    tasks = put(queue, waiting(b"a"), waiting(b"bad"), waiting(b"large", None))
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ValueError, ValueError, type(None)]


async def test_who_put_it_may_go() -> None:
    """It is written all the same, and for the others nothing changes."""
    written = Written()
    written.go.clear()
    queue = Batches(written.write)
    gone, stays = put(queue, waiting(b"a"), waiting(b"b"))
    await until(lambda: bool(written.batches))
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    written.go.set()
    await stays
    assert written.batches == [[b"a", b"b"]]
