"""kill -9 at random moments: nothing acknowledged is lost, nothing removed comes back.

Most kills meet workers that do what the commands do (`tests/attack/nursery.py`), some the commands
themselves and servers under load. Some twenty minutes for 2,000.

The next start is to take two seconds at most, to open what a worker had open. Of a process that is
started anew, until its first answer, most is the time of its imports, all the more on a busy
machine: it is to take no more than two seconds above the slowest start without a crash, of which
there is one for each kill, in turn with them.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from proxy.cache.entry import Found
from tests.attack.nursery import ANSWERS, Becomes, body_of, the_store
from tests.attack.outcome import Outcome
from tests.proxy.cache.conftest import NOW
from tests.proxy.cache.stores import body_of as octets_of
from tests.proxy.cache.stores import sending
from tests.support.caller import Caller, call
from tests.support.clock import FakeClock
from tests.support.command import command
from tests.support.origin import Exchange, Origin, head
from tests.support.process import COMMAND, Served, environment, keyrelay, served
from vault import Secret, open_vault

LONGEST: Final = 0.4
"""Seconds from a worker's start until it is killed, at most."""

START_SECONDS: Final = 2.0
"""That a start may take, or take more than one without a crash."""

EARLY: Final = 0.2
"""The share of those that are killed before they are ready: while they mend what is half."""

Value = str | None


@dataclass
class Figures:
    """Of one sort of kills. `acts`: those acknowledged; `unsound`: databases that SQLite finds
    broken; `starts`: seconds of each start after a kill, `usual`: of those without one, where that
    counts; `bound`: how many more they may be."""

    name: str
    named: str = "acknowledged acts"
    kills: int = 0
    acts: int = 0
    lost: int = 0
    back: int = 0
    wrong: int = 0
    unsound: int = 0
    starts: list[float] = field(default_factory=list)
    usual: list[float] = field(default_factory=list)
    bound: float = START_SECONDS
    faults: list[str] = field(default_factory=list)

    @property
    def outcome(self) -> Outcome:
        """One row of the table."""
        told = (
            f"{self.acts:,} {self.named} survived; {self.lost} lost, {self.back} back, "
            f"{self.wrong} wrong, {self.unsound} unsound; next start {max(self.starts):.2f} s at "
            f"most {self.wanted}"
        )
        faults = (*self.faults[:5], *self.slow[:5])
        found = self.lost + self.back + self.wrong + self.unsound + len(self.slow)
        return Outcome(f"kill -9: {self.name}", self.kills, "kills", found, told, faults)

    @property
    def wanted(self) -> str:
        """Of a start, in words."""
        if not self.usual:
            return f"(wanted: {self.bound:.0f})"
        return f"(wanted: {self.bound:.0f} more than the {max(self.usual):.2f} without a kill)"

    @property
    def slow(self) -> list[str]:
        """Starts that took longer than they may, in words."""
        most = max(self.usual, default=0.0) + self.bound
        return [f"slow: a start of {one:.2f} s {self.wanted}" for one in self.starts if one > most]

    def fault(self, what: str, name: str, words: str) -> None:
        """Counts one; `what`: lost, back, wrong or unsound."""
        setattr(self, what, getattr(self, what) + 1)
        self.faults.append(f"{what}: {name.split(maxsplit=1)[0]} {words}")


class Ledger:
    """What each thing may be worth: one value, or several where nobody knows how an act ended."""

    def __init__(self) -> None:
        self.possible: dict[str, set[Value]] = {}
        self.acts = 0

    def announce(self, becomes: Becomes) -> None:
        """It may be done from now on."""
        for name, value in becomes.items():
            self.possible.setdefault(name, {None}).add(value)

    def acknowledge(self, becomes: Becomes) -> None:
        """It is done for good."""
        self.acts += 1
        for name, value in becomes.items():
            self.possible[name] = {value}

    def judge(self, name: str, found: Value, figures: Figures) -> None:
        """Compares, and knows from now on."""
        may = self.possible.get(name, {None})
        if found not in may:
            what = "lost" if found is None else "back" if may == {None} else "wrong"
            figures.fault(what, name, f"{found!r} instead of {may}")
        self.possible[name] = {found}


class Nursery:
    """The process that makes workers."""

    def __init__(self) -> None:
        command = [sys.executable, "-W", "error", "-m", "tests.attack.nursery"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders, self._words = self._process.stdin, self._process.stdout

    def close(self) -> None:
        """Ends it."""
        self._orders.close()
        self._words.read()
        self._words.close()
        self._process.wait(60)

    def say(self, *words: object) -> None:
        """Orders a worker."""
        self._orders.write(" ".join(map(str, words)).encode() + b"\n")
        self._orders.flush()

    def hear(self) -> dict[str, Any]:
        """The next word."""
        line = self._words.readline()
        assert line, "the nursery has ended"
        heard: dict[str, Any] = json.loads(line)
        assert "failed" not in heard, heard
        return heard


@contextmanager
def nursery() -> Iterator[Nursery]:
    """Until nobody needs it."""
    made = Nursery()
    try:
        yield made
    finally:
        made.close()


def one_life(workers: Nursery, ledger: Ledger, order: tuple[object, ...], until: float) -> None:
    """From a worker's start to its death, so many seconds after it was ready; if that is below
    zero, after it was made."""
    workers.say(*order)
    said = [workers.hear()]
    while not (any("worker" in one for one in said) and (until < 0 or is_ready(said))):
        said.append(workers.hear())
    time.sleep(abs(until))  # not for order: the moment is to be any
    os.kill(next(one["worker"] for one in said if "worker" in one), signal.SIGKILL)
    while "over" not in said[-1]:
        said.append(workers.hear())
    take(said, ledger)


def is_ready(said: Iterable[dict[str, Any]]) -> bool:
    """Whether a worker has opened what it works on."""
    return any("ready" in one for one in said)


def take(said: Iterable[dict[str, Any]], ledger: Ledger) -> None:
    """What a worker said until it died."""
    for words in said:
        if "do" in words:
            ledger.announce(words["becomes"])
        elif "did" in words:
            ledger.acknowledge(words["becomes"])


def look_at(database: Path, figures: Figures) -> None:
    """SQLite's own judgement."""
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute("PRAGMA integrity_check").fetchall()
        found += connection.execute("PRAGMA foreign_key_check").fetchall()
    if found != [("ok",)]:
        figures.fault("unsound", database.name, str(found[:3]))


async def look_at_vault(data: Path, ledger: Ledger, figures: Figures) -> float:
    """As the next process would find it; seconds until it was open."""
    began = perf_counter()
    vault = await open_vault(data, {}, FakeClock())
    took = perf_counter() - began
    try:
        held = {record.ref.alias: record.ref for record in await vault.list_keys()}
        names = {f"key {alias}" for alias in held}
        for name in names | {name for name in ledger.possible if name.startswith("key ")}:
            ref = held.get(name.split()[1])
            found = None if ref is None else (await vault.open_key(ref))["key"]
            ledger.judge(name, spelled(found, ledger.possible.get(name, set())), figures)
        for name in recent(ledger, "token "):
            token = await vault.verify_token(name.split()[1].encode())
            ledger.judge(name, None if token is None else "good", figures)
    finally:
        await vault.close()
    look_at(data / "vault.db", figures)
    return took


def spelled(secret: Secret | None, may: set[Value]) -> Value:
    """The value that a secret is, of those that it may be."""
    if secret is None:
        return None
    fits = (one for one in may if one is not None and Secret(one.encode()) == secret)
    return next(fits, "another")


def recent(ledger: Ledger, kind: str, most: int = 40) -> list[str]:
    """The newest things of a kind, and as many of all."""
    names = [name for name in ledger.possible if name.startswith(kind)]
    return list({*names[-most:], *random.sample(names, min(most, len(names)))})


async def look_at_cache(data: Path, ledger: Ledger, figures: Figures) -> float:
    """Every answer, octet for octet; seconds until it was open."""
    clock = FakeClock(NOW)
    began = perf_counter()
    store = the_store(data, clock)
    await store.start()
    took = perf_counter() - began
    try:
        for answer in range(ANSWERS):
            name = f"answer {answer}"
            found = await store.get(name.encode(), sending(), clock.now())
            octets = await octets_of(found) if isinstance(found, Found) else None
            ledger.judge(name, told(octets, ledger.possible.get(name, set())), figures)
    finally:
        await store.close()
    look_at(data / "cache.db", figures)
    return took


def told(octets: bytes | None, may: set[Value]) -> Value:
    """Which of the answers that there may be these octets are."""
    if octets is None:
        return None
    return next((one for one in may if one is not None and body_of(one) == octets), "another")


Look = Callable[[Path, Ledger, Figures], Awaitable[float]]
LOOKS: Final[dict[str, Look]] = {"vault": look_at_vault, "cache": look_at_cache}


async def kill_workers(act: str, kills: int, bound: float, longest: float = LONGEST) -> Figures:
    """One worker after the other, at one place."""
    seed = random.randrange(2**32)
    chance, ledger = random.Random(seed), Ledger()
    figures = Figures(f"{act} at work, seed {seed}", bound=bound)
    with tempfile.TemporaryDirectory() as folder, nursery() as workers:
        data = Path(folder) / "data"
        await (await open_vault(data, {}, FakeClock(), create=True)).close()
        for life in range(1, kills + 1):
            until = chance.uniform(0, longest)
            if chance.random() < EARLY:
                until = -chance.uniform(0.001, 0.06)
            order = (act, data, life)
            await asyncio.to_thread(one_life, workers, ledger, order, until)
            figures.kills += 1
            figures.starts.append(await LOOKS[act](data, ledger, figures))
        figures.acts = ledger.acts
    return figures


# The command itself.


async def kill_commands(kills: int, bound: float) -> Figures:
    """Commands that change the vault, each killed at some moment or at its end; the next one only
    asks, from its start to its end."""
    figures, ledger = Figures("commands", bound=bound), Ledger()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        await (await open_vault(data, {}, FakeClock(), create=True)).close()
        for number in range(kills):
            figures.usual.append(await one_command(data))
            after = random.uniform(0.3, 1.5) * figures.usual[-1]
            await kill_command(data, number, ledger, after)
            figures.kills += 1
            figures.starts.append(await one_command(data))
            await look_at_vault(data, ledger, figures)
    figures.acts = ledger.acts
    return figures


async def one_command(data: Path) -> float:
    """Its seconds."""
    began = perf_counter()
    ended = await keyrelay(data, "token", "list")
    assert ended.code == 0, ended.err
    return perf_counter() - began


async def kill_command(data: Path, number: int, ledger: Ledger, after: float) -> None:
    """One of those that are possible now. Acknowledged is what it printed, or an exit code of 0."""
    alias, value = f"a{number % 5}", f"sk-command-{number}-0123456789"
    held = ledger.possible.get(f"key {alias}", {None}) != {None}
    words = ("key", "remove" if number % 3 else "rotate") if held else ("key", "add")
    becomes: dict[str, Value] = {f"key {alias}": None if words[1] == "remove" else value}
    if number % 4 == 3:
        words, becomes = ("token", "issue"), {}
    more = (f"t{number}",) if not becomes else ("openai", "--alias", alias)
    if words[1] == "remove":
        more = (*more, "--yes")
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "--data",
        str(data),
        *words,
        *more,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    ledger.announce(becomes)
    assert process.stdin is not None
    process.stdin.write(value.encode())
    process.stdin.close()
    with suppress(TimeoutError):
        async with asyncio.timeout(after):
            await process.wait()
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)  # process.kill() could take its exit code away
    out, err = await process.communicate()
    assert process.returncode in {0, -signal.SIGKILL}, err
    printed = out.decode().split()
    if words == ("token", "issue") and out.endswith(b"\n"):
        becomes = {f"token {one}": "good" for one in printed if one.startswith("kr_")}
    if process.returncode == 0 or (out.endswith(b"\n") and becomes):
        ledger.acknowledge(becomes)


# The server under load.

UNTIL: Final = 4102444800
KEY: Final = "sk-attack-0123456789abcdefghij"
CALLERS: Final = 4
SETTLED: Final = 2.0
"""Seconds after which an answer that was marked as stored is on disk, even on a busy machine."""


def expected(target: str) -> bytes:
    """What the upstream says to a call, always."""
    number = int(target.rsplit("/", 1)[1])
    size = 700_000 if number % 40 == 7 else number * 37 % 5000
    return (b"%d." % number * (size // 2 + 1))[:size]


async def answer(exchange: Exchange) -> None:
    """Slowly now and then, so that kills meet answers on their way."""
    body = expected(exchange.request.path)
    half = len(body) // 2
    await exchange.send(head(200, [("Content-Length", str(len(body)))]) + body[:half])
    if len(body) > 100_000:
        await asyncio.sleep(0.02)
    await exchange.send(body[half:])


@dataclass
class Town:
    """What callers of a server know. `stored`: when a call was begun whose answer was whole and
    marked as stored, by no store in trouble, and when that was there; `kept`: calls whose answers
    a restarted server gave."""

    credential: tuple[str, str]
    next_one: int = 1
    stored: dict[int, tuple[float, float]] = field(default_factory=dict)
    kept: set[int] = field(default_factory=set)

    async def load(self, up: Served) -> None:
        """New calls on one connection until it is cut."""
        with suppress(OSError, EOFError):
            async with await Caller.connect(up.url) as caller:
                while True:
                    number, self.next_one = self.next_one, self.next_one + 1
                    began = perf_counter()
                    await caller.request("GET", path_of(number, UNTIL), self.credential)
                    got = await caller.answer()
                    if not got.complete:
                        return
                    assert got.status == 200, got.body
                    assert got.body == expected(f"/{number}")
                    said = got.header("cache-status") or ""
                    if "stored" in said and "store-error" not in said:
                        self.stored[number] = began, perf_counter()

    async def greet(self, up: Served) -> None:
        """The first call of all."""
        found = await call(up.url, "GET", path_of(0, UNTIL), self.credential)
        assert found.body == expected("/0")

    async def look(self, up: Served, died: Iterable[float], figures: Figures) -> None:
        """Asks for what was stored: all of the last life, and some of what was found before.
        `died`: when a process did, which may take what it had stored just then."""
        newest = sorted(set(self.stored) - self.kept)[-150:]
        older = random.sample(sorted(self.kept), min(50, len(self.kept)))
        async with await Caller.connect(up.url) as caller:
            for number in (*newest, *older):
                await caller.request("GET", path_of(number, 1), self.credential)
                got = await caller.answer()
                if got.body != expected(f"/{number}") or not got.complete:
                    figures.fault("wrong", "answer", f"{number}")
                hit = "; hit" in (got.header("cache-status") or "")
                if not hit and (number in self.kept or self.is_settled(number, died)):
                    figures.fault("lost", "answer", f"{number}; {self.when(number, died)}")
                if hit:
                    self.kept.add(number)
        self.stored = {}

    def when(self, number: int, died: Iterable[float]) -> str:
        """When it was there, beside the deaths, in words."""
        if number in self.kept:
            return "found before"
        began, ended = (", ".join(f"{at - one:+.2f}" for one in died) for at in self.stored[number])
        return f"begun {began} and there {ended} s from the deaths"

    def is_settled(self, number: int, died: Iterable[float]) -> bool:
        """Whether nobody died while it was on its way to the disk."""
        began, ended = self.stored[number]
        return not any(began <= at <= ended + SETTLED for at in died)


def path_of(number: int, until: int) -> str:
    """One call."""
    return f"/proxy/openai/cache={until}/-/v1/{number}"


@asynccontextmanager
async def town(*role: str) -> AsyncIterator[tuple[Path, Town]]:
    """A data directory, an upstream, and a token. `role`: as options of `token issue`."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir(mode=0o700)
        async with Origin() as origin:
            origin.answer_with(answer)
            (data / "keys.yaml").write_text(
                f"services: {{openai: {{origin: '{origin.url}'}}}}\nkeys: {{openai: '${{KEY}}'}}\n"
                "server: {log_level: warning}\n"
            )
            await command(data, "init", KEY=KEY)
            issued = await command(data, "token", "issue", "one", *role, KEY=KEY)
            yield data, Town(("X-Relay-Token", issued.out.strip()))


@asynccontextmanager
async def greeted(
    data: Path, callers: Town, starts: list[float], *options: str
) -> AsyncIterator[Served]:
    """A server, once it has answered; how many seconds that took."""
    began = perf_counter()
    async with served(data, *options, KEY=KEY) as up:
        await callers.greet(up)
        starts.append(perf_counter() - began)
        yield up


async def kill_servers(kills: int, longest: float, bound: float) -> Figures:
    """A server under load, again and again; the next one is asked for what was kept."""
    figures = Figures("servers under load", "answers", bound=bound)
    async with town() as (data, callers):
        for _ in range(kills):
            async with greeted(data, callers, figures.usual) as up:
                loads = [asyncio.create_task(callers.load(up)) for _ in range(CALLERS)]
                await asyncio.sleep(random.uniform(0.05, longest))  # the moment is to be any
                died = perf_counter()
                up.kill()
                await up.process.wait()  # before anybody asks it to end
                await asyncio.gather(*loads)
                figures.kills += 1
            for name in ("vault.db", "cache.db", "usage.db"):
                look_at(data / name, figures)
            async with greeted(data, callers, figures.starts) as up:
                await callers.look(up, [died], figures)
        figures.acts = len(callers.kept)
    return figures


async def outcomes(
    vault: int = 1250,
    cache: int = 600,
    commands: int = 90,
    servers: int = 60,
    longest: float = 3.0,
    bound: float = START_SECONDS,
) -> AsyncIterator[Outcome]:
    """So many kills of each sort; `longest`: seconds that a server lives at most; `bound`: seconds
    of a start."""
    yield (await kill_workers("vault", vault, bound)).outcome
    yield (await kill_workers("cache", cache, bound)).outcome
    yield (await kill_commands(commands, bound)).outcome
    yield (await kill_servers(servers, longest, bound)).outcome
