"""How many instances share a Redis, by their heartbeats; and whether it is still the one it was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from secrets import token_hex
from typing import Any, Final

from proxy.engine import Engine, Gone, Refused
from proxy.limits.census import Census

BEAT_SECONDS: Final = 1.0
MISSED: Final = 5
"""After so many beats that did not come an instance counts no more."""

SECONDS: Final = 1.0
"""How long Redis may take for one."""

FEWER: Final = 3600
"""After so many beats with fewer instances than were written down, that is their number: until then
some may only be starting again."""

_SCRIPT: Final = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('HSETNX', KEYS[2], 'memory', ARGV[3])
if ARGV[5] == '1' and redis.call('HSETNX', KEYS[2], 'sure', '1') == 1 then
  redis.call('HSET', KEYS[2], 'run', ARGV[4])
end
redis.call('HSETNX', KEYS[2], 'run', ARGV[4])
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, 86400) end
local facts = redis.call('HMGET', KEYS[2], 'memory', 'run')
return {redis.call('ZCARD', KEYS[1]), facts[1], facts[2]}
"""


class Instances:
    """Beats once a second. `count`: how many there were when Redis was last asked; before that, as
    many as the census knows."""

    def __init__(self, engine: Engine, run: str, census: Census) -> None:
        self._engine = engine
        self._census = census
        self._written = 1
        self._fewer = 0
        self._writing: asyncio.Task[None] | None = None
        self._id = token_hex(8)
        self._names = (
            engine.key("instances", "all", "seen"),
            engine.key("instances", "all", "facts"),
        )
        self._memory = ""
        self._run = run
        self._agreed = 0
        self._beaten: list[Callable[[], None]] = []
        self._forgot: list[Callable[[], None]] = []
        self._runs: list[Callable[[str], None]] = []
        self._beating: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self.count = 1

    def when_beaten(self, act: Callable[[], None]) -> None:
        """To be called with each beat that Redis took."""
        self._beaten.append(act)

    def when_forgotten(self, act: Callable[[], None]) -> None:
        """To be called each time that Redis has lost its memory."""
        self._forgot.append(act)

    def when_running(self, act: Callable[[str], None]) -> None:
        """To be told the run that all who share this Redis have in common."""
        self._runs.append(act)

    async def start(self) -> None:
        """The first beat; where Redis can't be asked, it comes later."""
        self.count = self._written = await self._census.last()
        await self.beat()
        self._beating = asyncio.create_task(self._beat_forever(), name="keyrelay-instances")

    async def stop(self) -> None:
        """Counts no more."""
        self._stopping.set()
        for task in (self._beating, self._writing):
            if task is not None:
                await task
        with suppress(Gone):
            await self._engine.run(lambda client: client.zrem(self._names[0], self._id))

    async def beat(self) -> None:
        """Says that this one is there; so it is known whether Redis takes what is written."""
        try:
            count, memory, run = await self._engine.run(self._ask, SECONDS)
        except Gone as error:
            self._engine.refuses = isinstance(error, Refused)
            return
        self._engine.refuses = False
        self.count = max(1, count)
        self._keep_census()
        self._take_up(memory.decode(), run.decode())

    async def _ask(self, client: Any) -> list[Any]:
        sure = int(self._agreed > MISSED)  # who is new knows no run that tokens were given in
        facts = (self._id, int(MISSED * BEAT_SECONDS), token_hex(8), self._run, sure)
        found: list[Any] = await client.eval(_SCRIPT, 2, *self._names, *facts)
        return found

    def _take_up(self, memory: str, run: str) -> None:
        before, self._memory = self._memory, memory
        self._agreed += 1
        if run != self._run or not before:
            self._run, self._agreed = run, 0
            for tell in self._runs:
                tell(run)
        if before and before != memory:
            for act in self._forgot:
                act()
        for act in self._beaten:
            act()

    def _keep_census(self) -> None:
        """More at once, fewer when it has been so for long; no beat waits for it."""
        self._fewer = self._fewer + 1 if self.count < self._written else 0
        due = self.count > self._written or self._fewer > FEWER
        if due and (self._writing is None or self._writing.done()):
            self._writing = asyncio.create_task(self._write(self.count), name="keyrelay-census")

    async def _write(self, count: int) -> None:
        if await self._census.note(count):
            self._written = count

    async def _beat_forever(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), BEAT_SECONDS)
            await self.beat()
