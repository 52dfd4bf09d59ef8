"""A vault as `init` leaves it: made once for all tests of a process, and copied, since to make one
takes several times as long."""

from __future__ import annotations

import asyncio
import atexit
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from proxy.clock import SystemClock
from vault import open_vault


def begin(data: Path) -> None:
    """Puts one into a data directory that has none; its keys are those of every other copy."""
    if not [*data.glob("vault.db"), *data.glob("master.*")]:
        shutil.copytree(_made(), data, dirs_exist_ok=True)


@cache
def _made() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="kr-made-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with ThreadPoolExecutor(1) as beside:  # a test's own loop is running
        beside.submit(asyncio.run, _make(folder / "data")).result()
    return folder / "data"


async def _make(data: Path) -> None:
    await (await open_vault(data, {}, SystemClock(), create=True, actor="test")).close()
