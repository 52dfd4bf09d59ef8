"""Another process holds a lock on one of the databases: for a while, or until it is made to let go.

A process of its own takes SHARED, RESERVED or EXCLUSIVE in the file, as a backup, a shell or a scan
would: before the n-th change of a vault, before the n-th call of a server, or before it starts.
What is asked: calls go on where only cache or usage are locked, what needs the vault is refused in
one clear sentence, nothing is half done, and all goes on by itself once the lock is gone.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final
from unittest.mock import patch

from proxy.cache.lane import REST_SECONDS
from proxy.usage import sqlite as usage
from tests.attack.faults import ACTS, Ground, Sweep, asked, state_of, tried
from tests.attack.outcome import Outcome
from tests.proxy.cache.conftest import NOW
from tests.support.caller import Answered, call
from tests.support.clock import FakeClock
from tests.support.origin import Origin, reply
from tests.support.relay import Running, running_relay
from vault import StoreUnavailable, open_vault, sqlite

KINDS: Final[Mapping[str, str]] = {
    "SHARED": "BEGIN; SELECT count(*) FROM sqlite_master",
    "RESERVED": "BEGIN IMMEDIATE",
    "EXCLUSIVE": "BEGIN EXCLUSIVE",
}
"""A lock by what takes it. Of a file with a WAL the last two stop writers alone."""

FILES: Final = ("vault.db", "cache.db", "usage.db")
_LOCKED: Final = re.compile(r"the vault's database can't be used now \(.*\); .*: try again")
_HOLDER: Final = """
import sqlite3, sys
held = None
for line in sys.stdin:
    if held is not None:
        held.close()
        held = None
    if line.strip():
        path, act = line.rstrip("\\n").split("\\t")
        held = sqlite3.connect(path, isolation_level=None, timeout=30)
        for statement in act.split("; "):
            held.execute(statement).fetchall()
    print("done", flush=True)
"""


@contextmanager
def impatient(milliseconds: int) -> Iterator[None]:
    """Vault and usage wait for a lock no longer than this."""
    pragmas = (f"PRAGMA busy_timeout = {milliseconds}", *sqlite._PRAGMAS[1:])
    with (
        patch.object(sqlite, "_PRAGMAS", pragmas),
        patch.object(usage, "BUSY_SECONDS", milliseconds / 1000),
    ):
        yield


class Holder:
    """The other process. One lock at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    @asynccontextmanager
    async def started(cls) -> AsyncIterator[Holder]:
        """As long as it lasts."""
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-c", _HOLDER)
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        try:
            yield cls(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()

    async def take(self, path: Path, kind: str) -> None:
        """Once it is there nobody else holds anything against it."""
        await self._say(f"{path}\t{KINDS[kind]}")

    async def let_go(self) -> None:
        """Of what it holds."""
        await self._say("")

    async def _say(self, words: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{words}\n".encode())
        assert await self._process.stdout.readline() == b"done\n"


async def sweep_vault(ground: Ground, holder: Holder, name: str, kind: str) -> Sweep:
    """One act beside a lock that stays, then beside one that goes while it waits."""
    act, sweep = ACTS[name], Sweep(f"{name}: {kind}")
    old = await state_of(ground.fresh(), sweep)
    for lasting in (True, False):
        sweep.tried += 1
        data = ground.fresh()
        vault = await open_vault(data, {}, FakeClock())
        await vault.verify_token(ground.token)
        await holder.take(data / "vault.db", kind)
        if lasting:
            error = await tried(act(vault))
            sweep.took(error, (StoreUnavailable,))
            sweep.check(_LOCKED.fullmatch(str(error)), f"unclear: {error}")
            sweep.check(await vault.verify_token(ground.token), "who was seen is gone")
            await holder.let_go()
            sweep.check(await state_of(data, sweep) == old, "half done")
            again = await tried(act(vault))
            sweep.check(again is None, f"not repeated: {again}")
        else:
            acting = asyncio.ensure_future(tried(act(vault)))
            await asyncio.sleep(0.1)  # so that it mostly waits by now; it may do either
            await holder.let_go()
            error = await acting
            sweep.check(error is None, f"not waited for: {error}")
        await vault.close()
    return sweep


async def sweep_calls(ground: Ground, holder: Holder, file: str, kind: str) -> Sweep:
    """A server beside a lock that comes before the n-th call, and goes behind some."""
    sweep = Sweep(f"calls beside {file}: {kind}")
    async with Origin(reply(200, body=b"yes")) as origin:
        for n in (0, 1, 2)[:: ground.every]:
            sweep.tried += 1
            data, clock = ground.fresh(), FakeClock(NOW)
            async with running_relay(data, {"openai": {"origin": origin.url}}, clock=clock) as up:
                answers = [await asked(up, number) for number in range(n)]
                unseen = await up.issue("unseen")
                await asked(up, 9)
                await holder.take(data / file, kind)
                answers += [await asked(up, number) for number in (n, n + 1, 9)]
                stranger = await _as_somebody(up, unseen)
                await holder.let_go()
                clock.advance(REST_SECONDS + 1)
                answers += [await asked(up, number) for number in (n + 2, n + 2)]
                answers.append(await _as_somebody(up, unseen))
            for one in answers:
                fine = (one.status, one.body) == (200, b"yes")
                sweep.check(fine, f"{one.status} {one.body[:200]!r}")
            said = answers[-2].header("cache-status") or ""
            sweep.check("; hit" in said, f"no hit: {said}")
            closed = file == "vault.db" and kind == "EXCLUSIVE"
            sweep.check(stranger.status == (503 if closed else 200), f"unseen {stranger.status}")
            sweep.refused += closed
    return sweep


async def _as_somebody(up: Running, token: str) -> Answered:
    path = "/proxy/openai/v1/else"
    return await call(up.url, "GET", path, ("Authorization", f"Bearer {token}"))


async def sweep_start(ground: Ground, holder: Holder, file: str) -> Sweep:
    """A server that starts beside the lock: without its vault it says why, else it serves."""
    sweep, data, clock = Sweep(f"start beside {file}: EXCLUSIVE", 1), ground.fresh(), FakeClock(NOW)
    async with Origin(reply(200, body=b"yes")) as origin:
        services = {"openai": {"origin": origin.url}}
        async with running_relay(data, services, clock=clock) as up:  # so that all files are there
            await up.vault.revoke_token("default", "everything")
        await holder.take(data / file, "EXCLUSIVE")
        if file == "vault.db":
            error = await tried(open_vault(data, {}, clock))
            sweep.took(error, (StoreUnavailable,))
            sweep.check(_LOCKED.fullmatch(str(error)), f"unclear: {error}")
            await holder.let_go()
        async with running_relay(data, services, clock=clock) as up:
            answers = [await asked(up, number) for number in range(2)]
            await holder.let_go()
            clock.advance(REST_SECONDS + 1)
            answers += [await asked(up, number) for number in (3, 3)]
    for one in answers:
        sweep.check((one.status, one.body) == (200, b"yes"), f"{one.status} {one.body[:200]!r}")
    said = answers[-1].header("cache-status") or ""
    sweep.check("; hit" in said, f"no hit: {said}")
    return sweep


async def sweeps(ground: Ground, holder: Holder, short: bool) -> AsyncIterator[Sweep]:
    """Each as it is over."""
    ground.every = 10 if short else 1
    kinds = ("EXCLUSIVE",) if short else tuple(KINDS)
    for kind in kinds:
        for name in ("token revoke",) if short else ACTS:
            yield await sweep_vault(ground, holder, name, kind)
        for file in FILES:
            yield await sweep_calls(ground, holder, file, kind)
    for file in () if short else FILES:
        yield await sweep_start(ground, holder, file)


async def outcomes(short: int = 0) -> AsyncIterator[Outcome]:
    """By what was locked."""
    with tempfile.TemporaryDirectory() as folder, impatient(500 if short else 2000):
        ground = await Ground.make(Path(folder))
        async with Holder.started() as holder:
            found = [one async for one in sweeps(ground, holder, bool(short))]
    for part in dict.fromkeys(one.name.split(":")[0] for one in found):
        mine = [one for one in found if one.name.split(":")[0] == part]
        broken = [words for one in mine for words in one.broken]
        told = f"{sum(one.refused for one in mine)} refused, {len(mine)} kinds of locks"
        tries = sum(one.tried for one in mine)
        yield Outcome(f"locked: {part}", tries, "locks", len(broken), told, (*broken[:5],))
