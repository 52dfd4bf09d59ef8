"""What `crashes`, `callers` and `soak` do to one process, done to a server of two workers.

The coordinator, a worker, the supervisor, or all of them at one moment are killed under load, while
an admin changes keys and tokens; a crowd of every manner comes over TLS, and so does mixed traffic.
Some five minutes.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Final

from tests.attack.callers import SETTLED_SECONDS, Figures, attack, ground
from tests.attack.crashes import (
    CALLERS,
    START_SECONDS,
    Ledger,
    Town,
    greeted,
    look_at,
    look_at_vault,
    town,
)
from tests.attack.crashes import Figures as Kills
from tests.attack.outcome import Outcome
from tests.attack.soak import QUIET_SECONDS, SETTINGS, Soak, soaked
from tests.attack.swarm import SECURED
from tests.attack.traffic import Upstream
from tests.support.caller import Answered, Caller
from tests.support.process import Served
from tests.support.team import children

WORKERS: Final = 2
PROCESSES: Final = WORKERS + 1
"""Below the supervisor."""

PATIENCE_SECONDS: Final = 30.0
"""In which a process is replaced, answers are kept again, or what a supervisor left has ended."""

COORDINATOR: Final = "the coordinator"
IN_ONE_LIFE: Final = ("a worker", COORDINATOR, "a worker", "the end")
"""Who is killed, one after the other, at the end the supervisor or all; where fewer are to be, the
last of them."""

ALIASES: Final = 20


def below(up: Served) -> list[int]:
    """The coordinator and the workers."""
    return [pid for _, _, pid in children(up.process.pid)]


def holds_cache(pid: int) -> bool:
    """Whether it is the coordinator: nobody else has the database open."""
    with suppress(OSError):
        opened = [one.readlink() for one in Path(f"/proc/{pid}/fd").iterdir()]
        return any(one.name == "cache.db" for one in opened)
    return False


async def until(found: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> bool:
    """Whether it comes to be in time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not found():
                await asyncio.sleep(0.02)
            return True
    return False


class Admin:
    """Adds, rotates and removes keys, issues and revokes tokens, over the API of any worker."""

    def __init__(self, token: str, ledger: Ledger) -> None:
        self._bearer = ("Authorization", f"Bearer {token}")
        self._ledger = ledger
        self._held: set[str] = set()
        self._tokens: list[tuple[str, str]] = []
        self._number = 0

    async def work(self, up: Served, over: asyncio.Event) -> None:
        """One act after the other; who is cut goes on with another worker."""
        while not over.is_set():
            with suppress(OSError, EOFError):
                async with await Caller.connect(up.url) as caller:
                    while not over.is_set():
                        await random.choice((self._key, self._token))(caller)
            await asyncio.sleep(0.02)

    async def _key(self, caller: Caller) -> None:
        self._number += 1
        alias = f"k{random.randrange(ALIASES)}"
        value = f"sk-{self._number:06d}-0123456789abcdef"
        path = f"/keys/openai/{alias}"
        body: dict[str, str] | None = {"value": value}
        if alias not in self._held:
            act, path, body = "POST", "/keys", {"service": "openai", "alias": alias, "value": value}
        elif self._number % 3:
            act, body = "DELETE", None
        else:
            act, path = "POST", f"{path}/rotate"
        becomes = {f"key {alias}": None if body is None else value}
        self._ledger.announce(becomes)
        (self._held.discard if body is None else self._held.add)(alias)
        answer = await self._ask(caller, act, path, body)
        if answer.status in (200, 201, 204):
            self._ledger.acknowledge(becomes)
        else:  # one that was cut before may have been done or not
            assert answer.status in (404, 409), answer.body
            (self._held.discard if answer.status == 404 else self._held.add)(alias)

    async def _token(self, caller: Caller) -> None:
        self._number += 1
        if len(self._tokens) > 10:
            id_, text = self._tokens.pop(random.randrange(len(self._tokens)))
            self._ledger.announce({f"token {text}": None})
            answer = await self._ask(caller, "DELETE", f"/tokens/{id_}", None)
            assert answer.status in (200, 204), answer.body
            self._ledger.acknowledge({f"token {text}": None})
        else:
            answer = await self._ask(caller, "POST", "/tokens", {"name": f"t{self._number}"})
            assert answer.status == 201, answer.body
            told = answer.json()
            self._tokens.append((told["id"], told["token"]))
            self._ledger.acknowledge({f"token {told['token']}": "good"})

    async def _ask(
        self, caller: Caller, method: str, path: str, body: dict[str, str] | None
    ) -> Answered:
        octets = None if body is None else json.dumps(body).encode()
        kind = ("Content-Type", "application/json")
        await caller.request(method, f"/admin/api/v1{path}", self._bearer, kind, body=octets)
        answer = await caller.answer(method)
        if not answer.complete:
            raise EOFError
        return answer


@dataclass
class Life:
    """One server, until all of it is dead. `died`: when a process was killed; `cut`: how often a
    caller lost a connection."""

    up: Served
    callers: Town
    admin: Admin
    figures: Kills
    longest: float
    over: asyncio.Event = field(default_factory=asyncio.Event)
    died: list[float] = field(default_factory=list)
    cut: int = 0

    async def go(self, victims: Sequence[str]) -> None:
        """Under load, from one death to the next."""
        async with asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(self._load())
            group.create_task(self.admin.work(self.up, self.over))
            for victim in victims:
                await asyncio.sleep(random.uniform(0.05, self.longest))  # the moment is to be any
                self.figures.kills += 1
                if victim == "the end":
                    await self._end()
                else:
                    await self._kill_one(victim)
            self.over.set()

    async def _load(self) -> None:
        while not self.over.is_set():
            await self.callers.load(self.up)
            self.cut += 1
            await asyncio.sleep(0.02)

    async def _kill_one(self, victim: str) -> None:
        there, before = below(self.up), self.cut
        leads = [pid for pid in there if holds_cache(pid)]
        chosen = leads if victim == COORDINATOR else [pid for pid in there if pid not in leads]
        pid = random.choice(chosen)
        self.died.append(perf_counter())
        os.kill(pid, signal.SIGKILL)

        def replaced() -> bool:
            now = below(self.up)
            return pid not in now and len(now) == PROCESSES

        def kept() -> bool:
            return any(began > back for began, _ in self.callers.stored.values())

        if not await until(replaced):
            self.figures.fault("wrong", victim, "was not replaced")
        back = perf_counter()
        if not await until(kept):
            self.figures.fault("wrong", victim, "was replaced, and nothing is kept")
        if victim == COORDINATOR and self.cut != before:
            self.figures.fault("wrong", victim, f"took {self.cut - before} connections with it")

    async def _end(self) -> None:
        """The supervisor is killed, or all processes are."""
        everybody = below(self.up)
        self.died.append(perf_counter())
        self.up.kill()
        for pid in everybody if random.random() < 0.5 else ():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self.up.process.wait()
        if not await until(lambda: not any(map(lives, everybody))):
            self.figures.fault("wrong", "orphans", "of a killed supervisor live on")


def lives(pid: int) -> bool:
    """Whether there is such a process that is not dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def kill_teams(kills: int, longest: float, bound: float) -> Kills:
    """Servers under load, a few deaths in each life; the next one is asked for what was kept."""
    figures, ledger = Kills("two workers, their coordinator, all", bound=bound), Ledger()
    options = ("--workers", str(WORKERS))
    async with town("--role", "admin") as (data, callers):
        admin = Admin(callers.credential[1], ledger)
        while figures.kills < kills:
            async with greeted(data, callers, figures.usual, *options) as up:
                life = Life(up, callers, admin, figures, longest)
                await life.go(IN_ONE_LIFE[-kills:])
            for name in ("vault.db", "cache.db", "usage.db"):
                look_at(data / name, figures)
            await look_at_vault(data, ledger, figures)
            async with greeted(data, callers, figures.starts, *options) as up:
                await callers.look(up, life.died, figures)
        figures.acts = ledger.acts + len(callers.kept)
    figures.named = "acknowledged acts and answers"
    return figures


@dataclass
class Crowd(Figures):
    """Callers of every manner, as many of each; or of the quick one alone."""

    patient: bool = True

    @property
    def manners(self) -> list[str]:
        """Of the crowd, each as often."""
        return list(SECURED) if self.patient else ["call all at once"]

    @property
    def outcome(self) -> Outcome:
        """One row of the table."""
        name = "callers of every manner at once, two workers, TLS"
        faults = self.faults
        return Outcome(name, self.callers, "connections", len(faults), self.told, faults)


async def outcomes(
    kills: int = 24,
    callers: int = 1000,
    seconds: float = 30.0,
    longest: float = 1.5,
    bound: float = START_SECONDS,
    quiet: float = QUIET_SECONDS,
    every: int = 1,
) -> AsyncIterator[Outcome]:
    """So many kills, each after at most so many seconds; a crowd; mixed calls for so many seconds.
    `every`: whether callers come in every manner, those too who are cut after a minute."""
    yield (await kill_teams(kills, longest, bound)).outcome
    alone, settled = (5.0, SETTLED_SECONDS) if every else (0.5, 0.0)
    async with ground(Upstream(), SETTINGS, WORKERS, secured=True) as here:
        await attack(here, Figures("call all at once", callers), 0.5, settled)
        yield (await attack(here, Crowd("", callers, patient=bool(every)), alone, settled)).outcome
        name = f"soak of {seconds:,.0f} s, two workers, TLS"
        yield await soaked(Soak(here, seconds, quiet), name)
