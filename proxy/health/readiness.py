"""Whether this server can do its work now: its databases open and take writes; it is not ending."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from proxy.causes import lineage
from proxy.clock import Clock

KEPT_SECONDS: Final = 1.0
"""How long a result holds: whoever may ask without a token can't make the disk work."""

PATIENCE: Final = 3.0
"""Seconds after which a part that does not answer counts as failing."""

Check = Callable[[], Awaitable[None]]
"""Raises where a part fails, whatever it raises."""

_log = logging.getLogger("keyrelay.health")
_PAGE: Final = 4096


class Ready(NamedTuple):
    """What was found: the names of the parts that fail, and whether the server is ending."""

    failing: tuple[str, ...] = ()
    stopping: bool = False

    @property
    def ready(self) -> bool:
        """Whether calls should come here."""
        return not self.failing and not self.stopping

    @property
    def word(self) -> str:
        """Why they should not."""
        return "stopping" if self.stopping else "failing"


class Readiness:
    """Asks every part at once, one time for all who want to know in the same second."""

    def __init__(self, checks: Mapping[str, Check], clock: Clock) -> None:
        self._checks = checks
        self._clock = clock
        self._failing: tuple[str, ...] = ()
        self._until: float | None = None
        self._turn = asyncio.Lock()
        self._stopping = False

    def stop(self) -> None:
        """From now on not ready: the server is going down."""
        self._stopping = True

    async def look(self) -> Ready:
        """What is so now, or was within the last second."""
        if self._stopping:
            return Ready(stopping=True)
        async with self._turn:
            if self._until is None or self._clock.monotonic() >= self._until:
                self._failing = await self._ask()
                self._until = self._clock.monotonic() + KEPT_SECONDS
        return Ready(self._failing, self._stopping)

    async def _ask(self) -> tuple[str, ...]:
        asked = [_fails(name, check) for name, check in self._checks.items()]
        failing = tuple(name for name in await asyncio.gather(*asked) if name)
        if failing != self._failing:
            _log.warning("not ready: %s", ", ".join(failing)) if failing else _log.info("ready")
        return failing


async def _fails(name: str, check: Check) -> str:
    """The name of a part that fails, or nothing; why stands in the log alone."""
    try:
        async with asyncio.timeout(PATIENCE):
            await check()
    except Exception as error:
        _log.debug("%s fails: %s", name, lineage(error))
        return name
    return ""


def writes_to(folder: Path) -> Check:
    """Checks that a folder takes a file, durably: the disk is there, writable, and not full."""
    return partial(asyncio.to_thread, _write, folder)


def _write(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"\0" * _PAGE)
        file.flush()
        os.fsync(file.fileno())
