"""What it costs a worker to ask the coordinator: CPU of both, and the wait, by question.

python -m bench.workers
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from proxy.cache.entry import Entry
from proxy.cache.policy import CacheSettings
from proxy.cache.sqlite import SqliteStore
from proxy.clock import SystemClock
from proxy.limits.budgets import Budgets
from proxy.limits.counts import LocalCounts
from proxy.limits.ledger import SqliteLedger
from proxy.limits.rules import Bill, Budget, Window
from proxy.workers.boarding import Boarding
from proxy.workers.companion import Companion, Meeting
from proxy.workers.coordinator import Coordinator
from proxy.workers.counting import Counting, TeamCounts
from proxy.workers.link import Link, Verb
from proxy.workers.store import SharedStore
from proxy.workers.storing import Storing

CALLS = 8000
KEYS = [os.urandom(32) for _ in range(500)]
CLOCK = SystemClock()
ONE = Bill("t", (Window("a", 10**9, 60, "p", "r"),))
MANY = Bill(
    "t", tuple(Window(f"w{n}", 10**9, 60, "p", "r") for n in range(4)), None, Budget("b", 10**9)
)


class Plain:
    """Seals nothing: what that costs is not the question."""

    def seal(self, plaintext: bytes, aad: bytes) -> bytes:  # noqa: ARG002
        """As it is."""
        return plaintext

    def open(self, sealed: bytes, aad: bytes) -> bytes:  # noqa: ARG002
        """As it is."""
        return sealed


class Body:
    """A small answer."""

    async def blocks(self, _size: int):  # type: ignore[no-untyped-def]
        """At once."""
        yield b"x" * 2048


class Cpu:
    """An Office that tells what the coordinator has used."""

    @property
    def verbs(self) -> dict[str, Verb]:
        """One."""
        return {"cpu": lambda _link: used()}

    def forget(self, link: Link) -> None:
        """Nothing."""


def used() -> float:
    """Seconds of CPU of this process."""
    found = resource.getrusage(resource.RUSAGE_SELF)
    return found.ru_utime + found.ru_stime


async def coordinate(meeting: Meeting, listener: socket.socket, data: Path) -> None:
    """Serves until it is killed."""
    coordinator = Coordinator(meeting)
    store = SqliteStore(data / "cache.db", Plain(), CLOCK, CacheSettings())
    await store.start()
    counts = LocalCounts("sliding", Budgets(SqliteLedger(data / "usage.db"), CLOCK), CLOCK)
    await counts.start()
    for office in (
        Storing(store, coordinator.spread, Boarding()),
        Counting(counts, CLOCK),
        Cpu(),
    ):
        coordinator.add(office)
    await coordinator.serve(listener)
    await asyncio.Event().wait()


async def measure(
    name: str, companion: Companion, ask: Callable[[int], Awaitable[object]], at_once: int
) -> None:
    """One line of the table."""

    async def some(calls: int) -> None:
        for number in range(calls):
            await ask(number)

    await some(200)
    theirs, ours, began = await companion.ask("cpu"), used(), time.perf_counter()
    await asyncio.gather(*(some(CALLS // at_once) for _ in range(at_once)))
    wall, own = time.perf_counter() - began, used() - ours
    other = await companion.ask("cpu") - theirs
    figures = (f"{1e6 * one / CALLS:8.1f}" for one in (own, other, wall * at_once))
    print(f"| {name} | {at_once} | {' | '.join(figures)} |")


async def work(meeting: Meeting) -> None:
    """Asks."""
    companion = Companion(meeting, 1)
    counts, store = TeamCounts(companion, "sliding", CLOCK), SharedStore(companion)
    await companion.start()
    await store.start()
    now = CLOCK.now()
    for key in KEYS:
        times = now, now, now + 999
        entry = Entry(key, b"", b"", "t", "s", *times, 200, ((b"a", b"b"),) * 6, 2048)
        await store.put(entry, lambda vary: vary, Body())
    print("| question | at once | worker, us CPU | coordinator, us CPU | wait, us |")
    for at_once in (1, 32):
        for name, ask in (
            ("a call with one window", lambda _number: counts.take(ONE)),
            ("with four windows and a budget", lambda _number: counts.take(MANY)),
            ("an answer that is not there", lambda n: store.get(b"%032d" % n, bytes, now)),
            ("an answer of 2 KB", lambda n: store.get(KEYS[n % 500], bytes, now)),
        ):
            await measure(name, companion, ask, at_once)
    await store.close()
    await companion.stop()


def main() -> None:
    """Both processes."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        data = Path(folder)
        meeting = Meeting(data / "s", os.urandom(32), 1)
        listener.bind(str(meeting.path))
        listener.listen()
        child = os.fork()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            if not child:
                runner.run(coordinate(meeting, listener, data))
            try:
                runner.run(work(meeting))
            finally:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


if __name__ == "__main__":
    main()
