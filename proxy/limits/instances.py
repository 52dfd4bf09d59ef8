"""How many instances share a Redis, by their heartbeats; and whether it is still the one it was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from secrets import token_hex
from typing import Any, Final

from proxy.engine import Engine, Gone

BEAT_SECONDS: Final = 1.0
MISSED: Final = 5
"""After so many beats that did not come an instance counts no more."""

SECONDS: Final = 1.0
"""How long Redis may take for one."""

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
    """Beats once a second. `count`: how many there were when Redis was last asked."""

    def __init__(self, engine: Engine, run: str) -> None:
        self._engine = engine
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
        await self.beat()
        self._beating = asyncio.create_task(self._beat_forever(), name="keyrelay-instances")

    async def stop(self) -> None:
        """Counts no more."""
        self._stopping.set()
        if self._beating is not None:
            await self._beating
        with suppress(Gone):
            await self._engine.run(lambda client: client.zrem(self._names[0], self._id))

    async def beat(self) -> None:
        """Says that this one is there."""
        with suppress(Gone):
            count, memory, run = await self._engine.run(self._ask, SECONDS)
            self.count = max(1, count)
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

    async def _beat_forever(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), BEAT_SECONDS)
            await self.beat()
