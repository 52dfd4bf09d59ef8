"""Failing disks: the n-th write, read, open or lock below a directory, for n = 1 until none is met.

A small library (`faults.c`), compiled here and preloaded into a process of its own, lets system
calls fail under SQLite as it is. What is asked: one clear sentence, nothing half done, a repeat
that succeeds once the disk is well, and calls that go on where only cache or usage fail.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import json
import logging
import os
import shutil
import sqlite3
import sys
import tempfile
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

from proxy.cache.entry import Found, StoreError
from proxy.cache.lane import REST_SECONDS
from proxy.cache.row import CHUNK
from proxy.cache.sqlite import SqliteStore
from proxy.destinations import parse_registration
from proxy.errors import UpstreamIncomplete
from proxy.usage import SqliteUsage
from proxy.usage.store import UsageError, Which
from tests.attack.nursery import the_store
from tests.attack.outcome import Outcome
from tests.proxy.cache.conftest import NOW
from tests.proxy.cache.stores import body_of, put, sending
from tests.proxy.usage.conftest import a_row
from tests.support.caller import Answered, call
from tests.support.clock import FakeClock
from tests.support.origin import Origin, reply
from tests.support.process import environment
from tests.support.relay import Running, running_relay
from vault import (
    AlreadyExists,
    Backend,
    Changes,
    NewKey,
    NewToken,
    NotThere,
    Purge,
    Secret,
    Vault,
    VaultError,
    open_vault,
    sqlite,
)

SOURCE: Final = Path(__file__).with_name("faults.c")
WRITES, READS, OPENS, LOCKS = 1, 2, 4, 8
SECRET: Final = "sk-fault-0123456789abcdef"


class Fault(NamedTuple):
    """What fails, how, and whether it goes on failing."""

    kinds: int
    number: int
    lasting: bool


FAULTS: Final[Mapping[str, Fault]] = {
    "the n-th write": Fault(WRITES, errno.EIO, False),
    "disk full from the n-th write": Fault(WRITES, errno.ENOSPC, True),
    "read-only from the n-th open or write": Fault(WRITES | OPENS, errno.EROFS, True),
    "the n-th read": Fault(READS, errno.EIO, False),
    "no handles from the n-th open": Fault(OPENS, errno.EMFILE, True),
    "locked at the n-th lock": Fault(LOCKS, errno.EAGAIN, False),
    "locked from the n-th lock": Fault(LOCKS, errno.EAGAIN, True),
}


class Disk:
    """The library, as this process was started with it."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)

    def fail(self, below: Path, fault: Fault, n: int) -> None:
        """From now on."""
        self._library.faults_arm(
            os.fsencode(below),
            fault.kinds,
            ctypes.c_long(n),
            fault.number,
            int(fault.lasting),
        )

    def heal(self) -> int:
        """All goes well again; how many calls there were."""
        self._library.faults_counted.restype = ctypes.c_long
        counted: int = self._library.faults_counted()
        self._library.faults_arm(b"", 0, ctypes.c_long(0), 0, 0)
        return counted


@dataclass
class Sweep:
    """What became of one act under one fault. `broken`: promises, in words."""

    name: str
    tried: int = 0
    refused: int = 0
    broken: list[str] = field(default_factory=list)

    def check(self, holds: object, what: str) -> None:
        """One promise."""
        if not holds:
            self.broken.append(f"{self.name}, {self.tried}: {what}")

    def took(self, error: Exception | None, known: tuple[type[Exception], ...]) -> None:
        """How the act ended."""
        if error is None:
            return
        self.refused += 1
        words = str(error)
        self.check(isinstance(error, known), f"{type(error).__name__}: {words}")
        self.check(words and "\n" not in words and SECRET not in words, f"unclear: {words!r}")


async def tried(act: Awaitable[object]) -> Exception | None:
    """Its error."""
    try:
        await act
    except Exception as error:
        return error
    return None


# The vault.

Act = Callable[[Vault], Awaitable[object]]


def a_key(alias: str, value: str) -> NewKey:
    return NewKey("default", "openai", alias, {"key": Secret(f"{SECRET}{value}".encode())})


ACTS: Final[Mapping[str, Act]] = {
    "key add": lambda vault: vault.put_key(a_key("new", "1")),
    "key rotate": lambda vault: vault.rotate_key(
        "default", "openai", "old", {"key": Secret(f"{SECRET}2".encode())}
    ),
    "key remove": lambda vault: vault.remove_key("default", "openai", "old"),
    "import": lambda vault: vault.apply(
        Changes((a_key("new", "1"), a_key("old", "3"))), replace=True
    ),
    "token issue": lambda vault: vault.issue_token(NewToken("default", "new")),
    "token revoke": lambda vault: vault.revoke_token("default", "old"),
    "backend add": lambda vault: vault.add_backend(
        Backend("default", "openai", parse_registration("https://new.example.com/v1"))
    ),
    "master rotate": lambda vault: vault.rotate_master(reseal=True),
}


@dataclass
class Ground:
    """A vault that was made once, and the token of one caller. `every`: which places are tried."""

    disk: Disk
    scratch: Path
    made: Path
    token: bytes
    every: int = 1

    def fresh(self) -> Path:
        """A copy."""
        data = self.scratch / "data"
        shutil.rmtree(data, ignore_errors=True)
        return Path(shutil.copytree(self.made, data))

    def places(self) -> Iterator[int]:
        """1, 2, 3 and so on; what takes hundreds of calls is done with a tenth of them."""
        n = 1
        while True:
            yield n
            n += self.every + n // 80 * 8

    @classmethod
    async def make(cls, scratch: Path) -> Ground:
        """With a key and two tokens."""
        vault = await open_vault(scratch / "made", {}, FakeClock(), create=True)
        await vault.put_key(a_key("old", "0"))
        await vault.issue_token(NewToken("default", "old"))
        _, text = await vault.issue_token(NewToken("default", "caller"))
        await vault.close()
        return cls(Disk(), scratch, scratch / "made", text.encode())


async def state_of(data: Path, sweep: Sweep) -> object:
    """All that a vault holds, as the next process sees it; and that it is sound."""
    vault = await open_vault(data, {}, FakeClock())
    try:
        keys = [
            (record.ref.alias, record.ref.version, await vault.open_key(record.ref))
            for record in await vault.list_keys()
        ]
        tokens = [(one.name, one.revoked_at) for one in await vault.list_tokens()]
        sweep.check(not (await vault.verify_audit()).faults, "the audit log is broken")
        backends = await vault.list_backends()
    finally:
        await vault.close()
    with closing(sqlite3.connect(data / "vault.db")) as database:
        found = database.execute("PRAGMA integrity_check").fetchall()
    sweep.check(found == [("ok",)], f"unsound: {found}")
    return keys, sorted(tokens), backends


async def sweep_vault(ground: Ground, sweep: Sweep, fault: Fault, act: Act) -> None:
    """One act, with the fault at every place where it can be."""
    old = await state_of(ground.fresh(), sweep)
    data = ground.fresh()
    vault = await open_vault(data, {}, FakeClock())
    await act(vault)
    await vault.close()
    new = await state_of(data, sweep)
    for n in ground.places():
        sweep.tried = n
        data = ground.fresh()
        vault = await open_vault(data, {}, FakeClock())
        await vault.verify_token(ground.token)
        ground.disk.fail(data, fault, n)
        error = await tried(act(vault))
        fired = ground.disk.heal() >= n
        sweep.took(error, (VaultError,))
        after = await state_of(data, sweep)
        sweep.check(after == new if error is None else after in (old, new), "half done")
        sweep.check(await vault.verify_token(ground.token), "the caller is gone")
        again = await tried(act(vault))
        sweep.check(
            again is None or (after == new and isinstance(again, AlreadyExists | NotThere)),
            f"not repeated: {again}",
        )
        await vault.close()
        if not fired:
            return


async def sweep_making(ground: Ground, sweep: Sweep, fault: Fault) -> None:
    """`init` with the fault at every place, and again without."""
    for n in ground.places():
        sweep.tried = n
        data = ground.scratch / "data"
        shutil.rmtree(data, ignore_errors=True)
        ground.disk.fail(data, fault, n)
        made: list[Vault] = []

        async def make(into: list[Vault] = made, there: Path = data) -> None:
            into.append(await open_vault(there, {}, FakeClock(), create=True))

        error = await tried(make())
        fired = ground.disk.heal() >= n
        sweep.took(error, (VaultError,))
        again = await tried(make())
        sweep.check(again is None, f"not repeated: {again}")
        for vault in made:
            await vault.close()
        if not fired:
            return


# The cache.

LARGE: Final = b"l" * (2 * CHUNK + 7)


async def octets_in(store: SqliteStore) -> bytes | None:
    """What is kept under the one key."""
    found = await store.get(b"k", sending(), NOW)
    return await body_of(found) if isinstance(found, Found) else None


STORES: Final[Mapping[str, Callable[[SqliteStore], Awaitable[object]]]] = {
    "an answer": lambda store: put(store, body=b"new"),
    "a large answer": lambda store: put(store, body=LARGE),
    "a purge": lambda store: store.purge(Purge(NOW + 1)),
    "a look-up": octets_in,
}


async def sweep_store(ground: Ground, sweep: Sweep, fault: Fault, name: str) -> None:
    """One act of the store, with the fault at every place; before it there was another answer."""
    act = STORES[name]
    new = {"an answer": b"new", "a large answer": LARGE, "a purge": None}.get(name, b"old")
    for n in ground.places():
        sweep.tried = n
        data, clock = ground.fresh(), FakeClock(NOW)
        store = the_store(data, clock)
        await store.start()
        await put(store, body=b"old")
        ground.disk.fail(data, fault, n)
        error = await tried(act(store))
        fired = ground.disk.heal() >= n
        sweep.took(error, (StoreError, UpstreamIncomplete))
        clock.advance(REST_SECONDS + 1)
        after = await octets_in(store)
        sweep.check(after == new if error is None else after in (b"old", new), f"is {after!r:.40}")
        again = await tried(act(store))
        sweep.check(again is None, f"not repeated: {again}")
        await store.close()
        store = the_store(data, clock)
        await store.start()
        sweep.check(await octets_in(store) == new, "not there after a restart")
        await store.close()
        if not fired:
            return


# Usage.


async def sweep_usage(ground: Ground, sweep: Sweep, fault: Fault) -> None:
    """Calls written down, tried again until they are: never lost, never counted twice."""
    for n in count(1):
        sweep.tried = n
        data = ground.fresh()
        store = SqliteUsage(data / "usage.db")
        store.open()
        store.write([a_row(call="first")])
        ground.disk.fail(data, fault, n)
        rows = [a_row(call=f"c{number}") for number in range(3)]
        error = await tried(asyncio.to_thread(store.write, rows))
        fired = ground.disk.heal() >= n
        sweep.took(error, (UsageError,))
        if error is not None:
            store.write(rows)
        [[sums]] = store.sums(Which(0, 10**11), ())
        sweep.check(sums.calls == 4, f"{sums.calls} calls instead of 4")
        store.close()
        if not fired:
            return


# Calls go on.


async def sweep_calls(ground: Ground, sweep: Sweep, fault: Fault, file: str) -> None:
    """A server whose cache or usage fails answers every call, and says so in Cache-Status."""
    async with Origin(reply(200, body=b"yes")) as origin:
        for n in (*range(1, 12, ground.every), 20, 40):
            sweep.tried = n
            data, clock = ground.fresh(), FakeClock(NOW)
            services = {"openai": {"origin": origin.url}}
            async with running_relay(data, services, clock=clock) as up:
                ground.disk.fail(data / file, fault, n)
                answers = [await asked(up, number) for number in range(3)]
                fired = ground.disk.heal() >= n
                clock.advance(REST_SECONDS + 1)
                answers += [await asked(up, number) for number in (3, 3)]
            for one in answers:
                sweep.check(
                    (one.status, one.body) == (200, b"yes"), f"{one.status} {one.body[:200]!r}"
                )
            said = [one.header("cache-status") or "" for one in answers]
            sweep.check("; hit" in said[-1], f"no hit: {said[-1]}")
            sweep.refused += any("store-error" in one for one in said)
            if not fired:
                break


async def asked(up: Running, number: int) -> Answered:
    """One call that wants to be kept."""
    path = f"/proxy/openai/cache=4102444800/-/v1/{number}"
    answer = await call(up.url, "GET", path, ("Authorization", f"Bearer {up.token}"))
    parts: Any = up.relay._parts
    for flight in parts.cache._flights.all():
        await flight.ended()  # what is to be stored is stored, or refused
    for part in parts.lasting:
        if hasattr(part, "flush"):
            await part.flush()
    return answer


# All of them.


async def sweeps(ground: Ground, short: bool) -> AsyncIterator[Sweep]:
    """Each as it is over."""
    faults = list(FAULTS)[1:2] if short else list(FAULTS)
    for fault in faults:
        # Whoever finds a lock waits for it, in each of these places.
        ground.every = 10 if short else 4 if FAULTS[fault].kinds & LOCKS else 1
        for name, sweeping in _of_rooms(ground, FAULTS[fault], short):
            yield await carried_out(ground, f"{name}: {fault}", sweeping)
    for fault in faults:
        for file in ("cache.db",) if short else ("cache.db", "usage.db"):
            calls = partial(sweep_calls, ground, fault=FAULTS[fault], file=file)
            yield await carried_out(ground, f"calls without {file}: {fault}", calls)


Sweeping = Callable[[Sweep], Awaitable[None]]


def _of_rooms(ground: Ground, fault: Fault, short: bool) -> Iterator[tuple[str, Sweeping]]:
    """What is under attack without a server, by name."""
    for name in ("token revoke",) if short else ACTS:
        yield name, partial(sweep_vault, ground, fault=fault, act=ACTS[name])
    if not short:
        yield "init", partial(sweep_making, ground, fault=fault)
    for name in ("an answer",) if short else STORES:
        yield name, partial(sweep_store, ground, fault=fault, name=name)
    yield "usage", partial(sweep_usage, ground, fault=fault)


async def carried_out(ground: Ground, name: str, sweeping: Sweeping) -> Sweep:
    """One of them. What nobody expected is a broken promise, and no end of the others."""
    sweep = Sweep(name)
    try:
        await sweeping(sweep)
    except Exception as error:
        ground.disk.heal()
        traceback.print_exc()
        sweep.check(False, f"broke off: {type(error).__name__}: {error}")
    return sweep


def compiled(folder: Path) -> Path | None:
    """The library; None: there is no gcc."""
    compiler = shutil.which("gcc")
    if compiler is None:
        return None
    library = folder / "faults.so"
    words = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    done = os.spawnv(os.P_WAIT, compiler, words)
    assert done == 0, "the library can't be compiled"
    return library


async def outcomes(short: int = 0) -> AsyncIterator[Outcome]:
    """By what was under attack."""
    with tempfile.TemporaryDirectory() as folder:
        library = await asyncio.to_thread(compiled, Path(folder))
        if library is None:
            yield Outcome("disks that fail", 0, "faults", 0, "left out: there is no gcc")
            return
        command = [sys.executable, "-m", "tests.attack.faults", folder, str(short)]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            env=environment(LD_PRELOAD=str(library)),
            limit=2**26,
        )
        assert process.stdout is not None
        found = [json.loads(line) async for line in process.stdout]
        code = await process.wait()
        assert code == 0, f"the process under attack ended after {len(found)} sweeps: {code}"
    for part in dict.fromkeys(name.split(":")[0] for name, *_ in found):
        yield summed(part, [one for one in found if one[0].split(":")[0] == part])


def summed(part: str, found: list[Any]) -> Outcome:
    """The sweeps of one act as one row."""
    tries = sum(one[1] for one in found)
    broken = [words for one in found for words in one[3]]
    told = f"{sum(one[2] for one in found)} refused, in {len(found)} kinds of faults"
    return Outcome(f"failing disk: {part}", tries, "faults", len(broken), told, (*broken[:5],))


async def main(folder: Path, short: bool) -> None:
    """In the process under attack: a line for each sweep."""
    logging.disable()
    sqlite._PRAGMAS = ("PRAGMA busy_timeout = 50", *sqlite._PRAGMAS[1:])  # type: ignore[misc]
    ground = await Ground.make(folder)
    async for one in sweeps(ground, short):
        print(json.dumps([one.name, one.tried, one.refused, one.broken]), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2] == "1"))
