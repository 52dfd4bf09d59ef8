"""Three instances of two workers each over one PostgreSQL and one Redis, and what happens to those.

Some two minutes. Equal calls on all instances are one upstream call; a revoked token ends at all
within a second; engines are killed, stopped and cut off under load, and come back.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Final

from tests.attack.outcome import Outcome
from tests.support.engines import (
    Running,
    RunningPostgres,
    RunningRedis,
    postgres_running,
    redis_running,
)
from tests.support.fleet import Fleet, Instance, fleet
from tests.support.namespaces import apart
from tests.support.origin import Exchange, Origin

CALLS: Final = 300
LOADED_SECONDS: Final = 3.0
"""How long an engine is there, away, and there again."""

BOUND_SECONDS: Final = 1.0
REFUSED: Final = frozenset({401, 429})
"""So many tries with a token that is over are soon too many for one address."""

KEPT: Final = "cache=9999999999"
SETTINGS: Final = "server: {log_level: error, max_connections_per_address: 4000}\n"


async def answer(exchange: Exchange) -> None:
    """Slowly, where that is asked for."""
    if exchange.request.target.endswith("/slow"):
        await asyncio.sleep(2)
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@dataclass
class Load:
    """Calls at all instances, one after the other on each, half of them for kept answers."""

    answers: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0

    async def run(self, instance: Instance, token: str, done: asyncio.Event) -> None:
        """Until told to end."""
        number = 0
        while not done.is_set():
            number += 1
            began = perf_counter()
            try:
                found = await instance.ask(token, f"{number % 2}", KEPT if number % 2 else "")
            except OSError:
                self.answers["no answer"] += 1
                continue
            self.slowest = max(self.slowest, perf_counter() - began)
            detail = "store-error" if "store-error" in (found.header("cache-status") or "") else ""
            self.answers[f"{found.status} {detail}".strip()] += 1

    @property
    def failed(self) -> int:
        """Calls that were not answered with what the upstream has."""
        return sum(count for what, count in self.answers.items() if not what.startswith("200"))

    @property
    def told(self) -> str:
        """In words."""
        parts = ", ".join(f"{count:,} {what}" for what, count in sorted(self.answers.items()))
        return f"{parts}; slowest {self.slowest * 1000:.0f} ms"


@asynccontextmanager
async def loaded(here: Fleet) -> AsyncIterator[Load]:
    """Under load, as long as the context lasts."""
    load, done = Load(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for instance in here.instances * 2:
            group.create_task(load.run(instance, here.token, done))
        try:
            yield load
        finally:
            done.set()


async def one_call_for_all(here: Fleet, calls: int) -> Outcome:
    """Equal slow calls at once, spread over all instances."""
    before = len(here.origin.requests)
    each = [here[number % len(here)].ask(here.token, "slow", KEPT) for number in range(calls)]
    answers = await asyncio.gather(*each)
    made = len(here.origin.requests) - before
    wrong = sum(one.status != 200 or one.body != b"ok" for one in answers)
    found = (made != 1) + wrong
    told = f"{made} upstream calls, {wrong} answered wrongly"
    return Outcome("equal slow calls, three instances", calls, "calls", found, told)


async def revoked_everywhere(here: Fleet, times: int) -> Outcome:
    """A token of its own each time, seen by all, revoked by a command at one of them."""
    took, late = [], 0
    for number in range(times):
        token = await here[0].run("token", "issue", f"short{number}")
        for instance in here.instances:
            while (await instance.ask(token)).status != 200:
                pass
        await here[number % len(here)].run("token", "revoke", f"short{number}")
        began = perf_counter()  # the command has said that it is done
        for instance in here.instances:
            row = 0
            while row < 8:  # its workers answer by chance
                row = row + 1 if (await instance.ask(token)).status in REFUSED else 0
                took.append(perf_counter() - began) if row == 1 else None
        late += max(took) > BOUND_SECONDS
    told = f"refused by all within {max(took) * 1000:.0f} ms"
    return Outcome("a token revoked at one instance", times, "tokens", late, told)


async def without(
    here: Fleet, name: str, goes: Callable[[], None], back: Callable[[], None]
) -> Outcome:
    """An engine goes and comes back under load."""
    async with loaded(here) as load:
        await asyncio.sleep(LOADED_SECONDS)
        goes()
        await asyncio.sleep(LOADED_SECONDS)
        back()
        began = perf_counter()
        await until_kept(here)
        healed = perf_counter() - began
        await asyncio.sleep(LOADED_SECONDS)
    told = f"{load.told}; kept again {healed:.1f} s after it was back"
    return Outcome(name, load.answers.total(), "calls", load.failed, told)


async def until_kept(here: Fleet) -> None:
    """Until every instance finds kept answers again."""
    async with asyncio.timeout(60):
        for instance in here.instances:
            row = 0
            while row < 8:
                found = await instance.ask(here.token, "1", KEPT)
                row = row + 1 if "hit" in (found.header("cache-status") or "") else 0


def restarted(engine: Running) -> Callable[[], None]:
    """Starts it again; not waited for: calls are."""

    def back() -> None:
        with suppress(ProcessLookupError):
            engine.start_again()

    return back


def acts(
    here: Fleet, engines: tuple[RunningPostgres, RunningRedis], calls: int
) -> list[Callable[[], Awaitable[Outcome]]]:
    """In this order."""
    postgres, redis = engines
    return [
        lambda: one_call_for_all(here, calls),
        lambda: revoked_everywhere(here, 5),
        lambda: without(here, "Redis killed under load", redis.kill, restarted(redis)),
        lambda: without(here, "Redis stopped under load", redis.pause, redis.go_on),
        lambda: without(here, "PostgreSQL killed under load", postgres.kill, restarted(postgres)),
        lambda: without(here, "PostgreSQL stopped under load", postgres.pause, postgres.go_on),
    ]


async def outcomes(calls: int = CALLS, workers: int = 2) -> AsyncIterator[Outcome]:
    """One fleet for what is done to its engines, another whose engines are on another machine."""
    with postgres_running() as postgres, redis_running() as redis:
        engines = postgres, redis
        async with _fleet(engines, workers) as here:
            for act in acts(here, engines, calls):
                yield await act()
    with (
        apart() as there,
        postgres_running(there=there) as postgres,
        redis_running(there=there) as redis,
    ):
        async with _fleet((postgres, redis), workers) as here:
            name = "the network to both cut under load"
            yield await without(here, name, there.cut, there.mend)


@asynccontextmanager
async def _fleet(
    engines: tuple[RunningPostgres, RunningRedis], workers: int
) -> AsyncIterator[Fleet]:
    with tempfile.TemporaryDirectory() as folder:
        async with (
            Origin(answer) as origin,
            fleet(Path(folder), origin, engines, workers=workers, settings=SETTINGS) as here,
        ):
            yield here
