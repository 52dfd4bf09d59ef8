"""Memory goes back when a crowd has gone, and is not asked for again and again."""

from __future__ import annotations

import asyncio
import sys

import pytest

from proxy import heap
from proxy.heap import WORTH_BYTES, Heap, given_back

MIB = 2**20


def trims(*levels: int) -> int:
    """How often it was asked, with so much in use at each look."""
    asked = 0

    def trim() -> None:
        nonlocal asked
        asked += 1

    left = iter(levels)
    heap = Heap(lambda: next(left), trim)
    for _ in levels:
        heap.look()
    return asked


def test_what_a_crowd_left_is_given_back_once() -> None:
    """Not again and again."""
    assert trims(100 * MIB, 300 * MIB, 120 * MIB, 110 * MIB, 105 * MIB) == 1


def test_nothing_is_asked_while_a_crowd_is_there_or_for_little() -> None:
    """It needs what it has."""
    assert trims(*range(100 * MIB, 500 * MIB, 10 * MIB), 490 * MIB) == 0
    assert trims(100 * MIB + WORTH_BYTES, 100 * MIB) == 0


def test_the_next_crowd_counts_anew() -> None:
    """From what was left."""
    assert trims(*[300 * MIB, 100 * MIB, 100 * MIB] * 3) == 3
    assert trims(300 * MIB, 270 * MIB, 260 * MIB) == 1


async def test_a_server_looks_as_long_as_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no longer; with a C library that can't be asked not at all."""
    looks, loop = asyncio.Semaphore(0), asyncio.get_running_loop()
    monkeypatch.setattr(heap, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(Heap, "look", lambda _: loop.call_soon_threadsafe(looks.release))
    async with given_back():
        await looks.acquire()
        await looks.acquire()
    while len(asyncio.all_tasks()) > 1:
        await asyncio.sleep(0)
    monkeypatch.setattr(heap, "of_process", lambda: None)
    async with given_back():
        assert len(asyncio.all_tasks()) == 1


def test_this_process_tells_what_is_in_use() -> None:
    """glibc, as in the image."""
    there = heap.of_process()
    if there is None:
        pytest.skip("glibc")
    before = there._used()
    held = [bytes(40_000) for _ in range(1000)]
    assert there._used() - before > 30 * MIB
    there.look()
    held.clear()
    there.look()
    assert there._used() - before < 10 * MIB


def test_a_python_without_ctypes_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was built without libffi has none."""
    monkeypatch.setitem(sys.modules, "ctypes", None)
    assert heap.of_process() is None
