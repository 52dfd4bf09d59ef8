"""Who is signed in, at whichever instance: sessions in Redis, sealed, so that whoever reaches it
makes none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from proxy.admin.session import IDLE_SECONDS, Kept
from proxy.clock import Clock
from proxy.engine import Engine, Gone
from proxy.memo import bounded_put
from vault import Sealer, VaultError

TELL_SECONDS: Final = 60.0
"""How often a use of one session is told at most."""

MOST: Final = 1024
_IDLE: Final = IDLE_SECONDS * 1000


class SpreadSessions:
    """Those of all instances over one Redis. It counts how long one is idle; how old it is stands
    inside. While Redis is away each instance knows its own."""

    hears: Final = False

    def __init__(self, engine: Engine, sealer: Sealer, clock: Clock) -> None:
        self._engine = engine
        self._sealer = sealer
        self._clock = clock
        self._here: Callable[[], dict[bytes, Kept]] = dict
        self._told: dict[bytes, float] = {}
        self._ended: dict[bytes, None] = {}  # here, and Redis does not know it yet
        self._telling: set[asyncio.Task[None]] = set()
        engine.when_back(self._tell_ends)

    def follow(
        self,
        _learn: Callable[[bytes, Kept], None],
        _forget: Callable[[bytes], None],
        recall: Callable[[], dict[bytes, Kept]],
    ) -> None:
        """Nobody is told: Redis is asked each time."""
        self._here = recall

    async def opened(self, name: bytes, kept: Kept) -> None:
        """Somebody signed in here; known everywhere when this returns."""
        token_id, tenant, began, _ = kept
        at = self._clock.now() - (self._clock.monotonic() - began)
        sealed = self._sealer.seal(json.dumps((token_id, tenant, at)).encode(), name)
        with suppress(Gone):
            await self._engine.ask("SET", self._key(name), sealed, "PX", _IDLE)

    async def find(self, name: bytes) -> Kept | None:
        """A session as it is now, wherever it began."""
        if name in self._ended:
            return None
        key = self._key(name)
        try:
            sealed = await self._engine.ask("GET", key)
            left = await self._engine.ask("PTTL", key)
        except Gone:
            return self._here().get(name)
        return None if sealed is None or left < 0 else self._read(name, sealed, left / 1000)

    def _read(self, name: bytes, sealed: bytes, left: float) -> Kept | None:
        try:
            token_id, tenant, at = json.loads(self._sealer.open(sealed, name))
        except VaultError:
            return None
        now = self._clock.monotonic()
        age = max(0.0, self._clock.now() - at)
        return token_id, tenant, now - age, now - max(0.0, IDLE_SECONDS - left)

    def used(self, name: bytes, at: float) -> None:
        """Somebody does something."""
        told = self._told.get(name)
        if told is None or at >= told + TELL_SECONDS:
            bounded_put(self._told, name, at, MOST)
            self._tell("PEXPIRE", name, _IDLE)

    def ended(self, name: bytes) -> None:
        """Somebody has signed out, or had to make room."""
        bounded_put(self._ended, name, None, MOST)
        self._tell("DEL", name)

    def _tell_ends(self) -> None:
        for name in self._ended:
            self._tell("DEL", name)

    def _tell(self, command: str, name: bytes, *words: Any) -> None:
        task = asyncio.create_task(self._told_of(command, name, *words), name="keyrelay-sessions")
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _told_of(self, command: str, name: bytes, *words: Any) -> None:
        with suppress(Gone):
            await self._engine.ask(command, self._key(name), *words)
            if command == "DEL":
                self._ended.pop(name, None)

    def _key(self, name: bytes) -> str:
        return self._engine.key("sessions", name.hex())
