"""The caller who is kind beside those who are not, and what is promised to it and of memory.

    python -m tests.attack.kind URL TOKEN

is one in a process of its own, so that what a crowd does in the campaign's process is not taken for
the server's doing: a line begins its calls, the next one ends them and is answered by how long each
took, as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import AsyncIterator, Callable
from time import perf_counter
from typing import Final

from tests.attack.swarm import SMALL
from tests.support.caller import Caller
from tests.support.process import environment

ADDRESS: Final = "127.0.0.2"
"""The others come from 127.0.0.1."""

PAUSE_SECONDS: Final = 0.005

LINE_OCTETS: Final = 16 * 2**20
"""Hours of calls."""

ANSWER_SECONDS: Final = 60.0
"""For its last call, on a busy machine."""

SLOWER: Final = 2.0
UNNOTICED_MS: Final = 2.0
"""Nobody notices a p99 below that, whatever it was alone."""

LARGER: Final = 1.1
WANTED_P99: Final = f"(wanted: at most double, or {UNNOTICED_MS:.0f} ms)"
WANTED_MEMORY: Final = "(wanted: at most a tenth more)"


def p99(took: list[float]) -> float:
    """Of some, in whatever order."""
    return sorted(took)[len(took) * 99 // 100]


def slowed_down(alone: float, beside: float) -> list[str]:
    """In words, where that is a broken promise. Milliseconds of the kind caller's p99."""
    if beside <= max(SLOWER * alone, UNNOTICED_MS):
        return []
    return [f"p99 of the kind {alone:.1f} ms alone, {beside:.1f} beside {WANTED_P99}"]


def swollen(before: float, after: float) -> list[str]:
    """In words, where that is a broken promise. MiB of the server."""
    if after <= LARGER * before:
        return []
    return [f"{before:.0f} MiB before, {after:.0f} after {WANTED_MEMORY}"]


async def be_kind(
    url: str,
    token: str,
    until: asyncio.Event,
    after_each: Callable[[], object],
    tls: ssl.SSLContext | None = None,
) -> list[float]:
    """Call after call on one connection, one at least; milliseconds of each."""
    took = []
    async with await Caller.connect(url, tls, ADDRESS) as caller:
        while not (took and until.is_set()):
            began = perf_counter()
            await caller.request("GET", SMALL, ("X-Relay-Token", token))
            assert (await caller.answer()).status == 200
            took.append((perf_counter() - began) * 1000)
            after_each()
            await asyncio.sleep(PAUSE_SECONDS)
    return took


class Bystander:
    """One in a process of its own."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._orders, self._words = process.stdin, process.stdout

    def begin(self) -> None:
        """Calls from now on."""
        self._orders.write(b"\n")

    async def end(self) -> list[float]:
        """Calls no more; milliseconds of each call since it began."""
        self._orders.write(b"\n")
        async with asyncio.timeout(ANSWER_SECONDS):
            took: list[float] = json.loads(await self._words.readline())
        return took


@contextlib.asynccontextmanager
async def bystander(url: str, token: str) -> AsyncIterator[Bystander]:
    """Ready to begin, as often as one likes."""
    words = ("-m", "tests.attack.kind", url, token)
    process = await create_subprocess_exec(
        sys.executable, *words, stdin=PIPE, stdout=PIPE, env=environment(), limit=LINE_OCTETS
    )
    try:
        yield Bystander(process)
    finally:
        process.kill()
        await process.wait()


async def obey(url: str, token: str) -> None:
    """Until there are no more lines."""
    while await asyncio.to_thread(sys.stdin.readline):
        done = asyncio.Event()
        calls = asyncio.create_task(be_kind(url, token, done, lambda: None))
        await asyncio.to_thread(sys.stdin.readline)
        done.set()
        print(json.dumps([round(each, 3) for each in await calls]), flush=True)


if __name__ == "__main__":
    asyncio.run(obey(*sys.argv[1:]))
