"""Entries survive a kill -9; half a response never does."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from hashlib import shake_128
from itertools import count
from pathlib import Path

import pytest

from proxy.cache.entry import Found
from proxy.cache.policy import CacheSettings
from proxy.cache.row import CHUNK
from proxy.cache.sqlite import SqliteStore
from tests.proxy.cache.conftest import NOW
from tests.proxy.cache.stores import Octets, an_entry, body_of, sending
from tests.support.clock import FakeClock
from vault.sealing import DataKey, KeyedSealer

ROOT = Path(__file__).parents[3]
SIZES = (0, 100, CHUNK, CHUNK + 1, 3 * CHUNK, 7, 0, 8)
TOGETHER = 6


def the_store(path: Path) -> SqliteStore:
    key = DataKey(b"12345678", "cache", b"k" * 32)
    return SqliteStore(path, KeyedSealer(key, {}), FakeClock(NOW), CacheSettings())


def the_body(number: int) -> bytes:
    return shake_128(b"%d" % number).digest(SIZES[number % len(SIZES)])


async def write_for_ever(path: Path) -> None:
    """Stores entries together, and says the numbers once they are there."""
    store = the_store(path)
    await store.start()

    async def put(number: int) -> None:
        body = the_body(number)
        entry = an_entry(b"%d" % number, size=len(body), expires_at=NOW + 10)
        await store.put(entry, sending(), Octets(body))

    for first in count(step=TOGETHER):
        numbers = range(first, first + TOGETHER)
        await asyncio.gather(*map(put, numbers))
        sys.stdout.write("".join(f"{number}\n" for number in numbers))
        sys.stdout.flush()


def killed_after(path: Path, lines: int, moments: int) -> int:
    """How many entries a process had said to be stored when it was killed."""
    command = [sys.executable, "-m", "tests.proxy.cache.test_crash", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        for _ in range(moments):  # somewhere in the middle of a later entry
            path.stat()
        os.kill(process.pid, signal.SIGKILL)
        return lines + len(process.stdout.read().splitlines())


@pytest.mark.parametrize("seed", range(4))
async def test_entries_survive_a_kill_and_half_a_response_never_does(
    tmp_path: Path, seed: int
) -> None:
    """Contract 6: whatever was being written when the process died."""
    chance = random.Random(seed)
    path = tmp_path / "cache.db"
    said = killed_after(path, chance.randrange(1, 40), chance.randrange(0, 5000))
    store = the_store(path)
    await store.start()
    for number in range(said + TOGETHER):
        found = await store.get(b"%d" % number, sending(), NOW)
        if number < said or isinstance(found, Found):
            assert isinstance(found, Found)
            assert await body_of(found) == the_body(number)
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT COUNT(*) FROM entries WHERE state <> 1").fetchone() == (
            0,
        )
        query = "SELECT COUNT(*) FROM chunks WHERE entry NOT IN (SELECT id FROM entries)"
        assert connection.execute(query).fetchone() == (0,)


if __name__ == "__main__":
    asyncio.run(write_for_ever(Path(sys.argv[1])))
