"""`master rotate` killed at random points over many keys: every key stays readable, it resumes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from tests.attack.outcome import Outcome
from tests.support.clock import FakeClock
from vault import Changes, NewKey, Secret, open_vault

KILLS = 200
KEYS = 10_000
LONGEST = 3.0
"""Seconds until a kill at most: about as long as one rotation of so many keys takes."""


@dataclass
class Figures:
    """What became of the kills. `between`: those on the way of a rotation; `unread`: keys that did
    not open, of all that were asked."""

    kills: int = 0
    between: int = 0
    asked: int = 0
    unread: int = 0
    left: int = 0


def value(alias: str) -> bytes:
    return f"sk-{alias}-0123456789abcdef".encode()


async def fill(data: Path, keys: int) -> None:
    vault = await open_vault(data, {}, FakeClock(), create=True)
    aliases = [f"a{number}" for number in range(keys)]
    new = tuple(NewKey("default", "openai", one, {"key": Secret(value(one))}) for one in aliases)
    await vault.apply(Changes(new))
    await vault.close()


def start(data: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.vault.worker", "rotate", str(data), "attack"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def kill(data: Path, after: float) -> str:
    """Rotates and re-seals again and again, until it is killed so many seconds after its word."""
    process = start(data)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("\n")
    process.stdin.flush()
    time.sleep(after)  # not for order: the moment is to be any
    process.kill()
    _, complaints = process.communicate(timeout=60)
    return complaints


async def look(data: Path, figures: Figures, sample: int, chance: random.Random) -> None:
    """Asks for some of the keys, as the next process would."""
    vault = await open_vault(data, {}, FakeClock())
    held = [record.ref for record in await vault.list_keys()]
    for ref in chance.sample(held, min(sample, len(held))):
        figures.asked += 1
        found = await vault.open_key(ref)
        figures.unread += found["key"] != Secret(value(ref.alias))
    await vault.close()
    figures.between += unfinished(data)


def unfinished(data: Path) -> bool:
    """Whether a rotation was killed on its way: two master keys, or two data keys for keys."""
    with contextlib.closing(sqlite3.connect(data / "vault.db")) as database:
        query = "SELECT count(*) FROM data_keys WHERE purpose = 'keys'"
        [(count,)] = database.execute(query)
    return count > 1 or (data / "master.key").read_text().count("\n") > 2


async def run(kills: int = KILLS, keys: int = KEYS, longest: float = LONGEST) -> Figures:
    """The kills one after the other, and at the end a rotation that is let be."""
    seed = random.randrange(2**32)
    chance, figures = random.Random(seed), Figures()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        await fill(data, keys)
        for _ in range(kills):
            complaints = await asyncio.to_thread(kill, data, chance.uniform(0, longest))
            assert complaints == "", f"seed {seed}: {complaints}"
            figures.kills += 1
            await look(data, figures, 50, chance)
        vault = await open_vault(data, {}, FakeClock())
        await vault.rotate_master()  # the rest of the last one
        await vault.close()
        await look(data, figures, keys, chance)
        assert (data / "master.key").read_text().count("\n") == 2, "it has not resumed"
        vault = await open_vault(data, {}, FakeClock())
        figures.left = keys - len(await vault.list_keys())
        await vault.close()
    return figures


async def outcomes(
    kills: int = KILLS, keys: int = KEYS, longest: float = LONGEST
) -> AsyncIterator[Outcome]:
    """One row."""
    found = await run(kills, keys, longest)
    told = (
        f"{found.between} on the way of a rotation of {keys:,} keys; {found.asked:,} keys asked, "
        f"{found.unread} unread, {found.left} lost"
    )
    bad = found.unread + found.left
    yield Outcome("`master rotate` killed", found.kills, "kills", bad, told)
