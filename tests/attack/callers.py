"""Load that is not kind, beside one caller that is. Some four minutes.

The kind caller is somebody else than the crowd: another tenant's token, from another address. The
crowd's process is nice to the server, whose cores it is on: a real one would be somewhere else.
Found is what was promised and not kept: connections that are left after their deadline, memory that
stays, a kind caller that waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Final

from proxy.patience import Waits
from tests.attack import kind
from tests.attack.kind import p99
from tests.attack.outcome import Outcome
from tests.attack.swarm import LARGE, MANNERS, SMALL
from tests.support.caller import call
from tests.support.certificates import trusting, write_pair
from tests.support.origin import Exchange, Handler, Origin
from tests.support.process import Served, environment, keyrelay, served
from tests.support.team import children

CALLERS: Final = 1000
ALONE_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.25
"""How often the server is asked how many connections it has; alone as beside an attack, since the
answer takes the server longer than a call of the kind caller's does."""

PATIENCE_SECONDS: Final = 150.0
"""Longer than any deadline of ours and the pauses before it."""

SETTLED_SECONDS: Final = 22.0
"""Two looks of the server at the memory that a crowd has left."""

DEADLINES: Final[Mapping[str, float]] = {
    "say nothing": Waits().header,
    "drip headers": Waits().header,
    "drip bodies": 5 + Waits().body,
    "read nothing": Waits().answer,
    "call all at once": 0.0,
    "agree on nothing": Waits().header,
    "half agree": Waits().header,
}
"""Seconds that a server gives to each manner."""

SPARE_SECONDS: Final = 30.0
"""For a thousand to connect, and to fill buffers, on a busy machine."""

NICE: Final = 19
"""Of the crowd: as much as may be."""

LARGE_BYTES: Final = 16 * 2**20
KEY: Final = "sk-attack-0123456789abcdefghij"
KEYS: Final = (
    "keys:\n"
    "  - {service: openai, value: '${KEY}'}\n"
    "  - {service: openai, tenant: kind, value: '${KEY}'}\n"
)
ENDED_BY_US: Final = frozenset({"read nothing"})
"""Who does not read sees no end: those are told to go once the server has none of them."""


@dataclass
class Figures:
    """Of one attack of so many callers: seconds until no connection of it was left; p99 of the kind
    caller in milliseconds, alone and beside it; resident MiB of the server before, on the way, and
    after."""

    name: str
    callers: int
    seconds: float = math.nan
    alone: float = 0.0
    beside: float = 0.0
    calls: int = 0
    memory: list[float] = field(default_factory=list)

    @property
    def told(self) -> str:
        """In words."""
        before, most, after = self.memory[0], max(self.memory), self.memory[-1]
        return (
            f"gone after {self.seconds:.1f} s (wanted: {self.allowed:.0f}); "
            f"p99 of the kind {self.alone:.1f} ms alone, {self.beside:.1f} beside "
            f"{kind.WANTED_P99}; {before:.0f} MiB before, {most:.0f} at most, {after:.0f} after "
            f"{kind.WANTED_MEMORY}"
        )

    @property
    def manners(self) -> list[str]:
        """Of the crowd, each as often."""
        return [self.name]

    @property
    def allowed(self) -> float:
        """Seconds until the last connection is to be gone."""
        return max(DEADLINES[name] for name in self.manners) + SPARE_SECONDS

    @property
    def goes(self) -> bool:
        """Whether the whole crowd sees its end."""
        return ENDED_BY_US.isdisjoint(self.manners)

    @property
    def faults(self) -> tuple[str, ...]:
        """Promises that were not kept."""
        late = f"connections left after {self.allowed:.0f} s: gone after {self.seconds:.1f}"
        closed = [] if self.seconds <= self.allowed else [late]
        before, after = self.memory[0], self.memory[-1]
        slow, large = kind.slowed_down(self.alone, self.beside), kind.swollen(before, after)
        return (*closed, *slow, *large)

    @property
    def outcome(self) -> Outcome:
        """One row of the table."""
        faults, name = self.faults, f"callers that {self.name}"
        return Outcome(name, self.callers, "connections", len(faults), self.told, faults)


@dataclass
class Ground:
    """A server of its own, the token of the others and that of the kind, and what is kept there.
    `tls`: what a caller needs, if it speaks TLS."""

    up: Served
    token: str
    kind: str
    data: Path
    tls: ssl.SSLContext | None = None

    @property
    def processes(self) -> list[int]:
        """Of the server: itself, and what it has started."""
        return [self.up.process.pid, *(pid for _, _, pid in children(self.up.process.pid))]

    @property
    def credential(self) -> tuple[str, str]:
        """Of the others."""
        return ("X-Relay-Token", self.token)

    def resident(self) -> float:
        """MiB, of all processes."""
        status = "".join(Path(f"/proc/{pid}/status").read_text() for pid in self.processes)
        return sum(map(int, re.findall(r"VmRSS:\s+(\d+)", status))) / 1024

    def handles(self) -> int:
        """Open files and sockets, of all processes."""
        return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in self.processes)

    def cpu(self) -> float:
        """Seconds that all processes have taken of a core (proc_pid_stat(5): utime and stime)."""
        stats = [Path(f"/proc/{pid}/stat").read_text() for pid in self.processes]
        fields = [stat.rpartition(")")[2].split() for stat in stats]
        return sum(int(one[11]) + int(one[12]) for one in fields) / os.sysconf("SC_CLK_TCK")

    async def connections(self) -> float:
        """What the server counts, without the one that asks."""
        bearer = ("Authorization", f"Bearer {self.token}")
        answer = await call(self.up.url, "GET", "/metrics", bearer, tls=self.tls)
        found = re.findall(r"^keyrelay_connections (\S+)", answer.body.decode(), re.MULTILINE)
        return float(found[0]) - 1


async def answer(exchange: Exchange) -> None:
    """A large one where that is asked for."""
    size = LARGE_BYTES if exchange.request.target.endswith("/large") else 2
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, b"x" * size))


@contextlib.asynccontextmanager
async def ground(
    answer: Handler = answer, settings: str = "", workers: int = 1, secured: bool = False
) -> AsyncIterator[Ground]:
    """With a small and a large answer kept. `settings`: more lines of keys.yaml."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir(mode=0o700)
        async with Origin() as origin:
            origin.answer_with(answer)
            (data / "keys.yaml").write_text(
                f"services: {{openai: {{origin: '{origin.url}'}}}}\n{KEYS}"
                f"server: {{log_level: warning}}\n{settings}"
            )
            pair = write_pair(data) if secured else None
            words = ["--workers", str(workers)]
            words += (
                [] if pair is None else ["--tls-cert", str(pair.chain), "--tls-key", str(pair.key)]
            )
            async with served(data, *words, KEY=KEY) as up:
                tokens = await _issued(data, "default"), await _issued(data, "kind")
                here = Ground(up, *tokens, data, trusting(pair) if pair else None)
                await _fill(here)
                yield here


async def _fill(here: Ground) -> None:
    for token, target in ((here.token, SMALL), (here.token, LARGE), (here.kind, SMALL)):
        for _ in range(2):
            field = ("X-Relay-Token", token)
            kept = await call(here.up.url, "GET", target, field, tls=here.tls)
            assert kept.status == 200, kept.body


async def _issued(data: Path, tenant: str) -> str:
    words = ("token", "issue", "one", "--tenant", tenant, "--role", "admin")
    return (await keyrelay(data, *words, KEY=KEY)).out.strip()


async def be_kind(here: Ground, until: asyncio.Event, memory: list[float]) -> list[float]:
    """Call after call on one connection; milliseconds of each, and memory on the way."""

    def look() -> None:
        memory.append(here.resident())

    return await kind.be_kind(here.up.url, here.kind, until, look, here.tls)


async def attack(
    here: Ground, found: Figures, alone: float = ALONE_SECONDS, settled: float = SETTLED_SECONDS
) -> Figures:
    """From the first connection of a crowd until none is left."""
    done = asyncio.Event()
    calls = asyncio.create_task(be_kind(here, done, []))
    for _ in range(int(alone / LOOK_SECONDS)):
        await here.connections()
        await asyncio.sleep(LOOK_SECONDS)
    done.set()
    found.alone = p99(await calls)
    done = asyncio.Event()
    found.memory.append(here.resident())
    calls = asyncio.create_task(be_kind(here, done, found.memory))
    crowd = ("+".join(found.manners), here.up.url, here.token, str(found.callers))
    words = ("-m", "tests.attack.swarm", *crowd)
    swarm = await asyncio.create_subprocess_exec(
        sys.executable, *words, env=environment(), preexec_fn=lambda: os.nice(NICE)
    )
    try:
        found.seconds = await until_closed(here, swarm, found.callers / 2, found.goes)
    finally:
        if swarm.returncode is None:
            swarm.kill()
        await swarm.wait()
        done.set()
        took = await calls
    found.beside, found.calls = p99(took), len(took)
    await asyncio.sleep(settled)
    found.memory.append(here.resident())
    return found


async def until_closed(
    here: Ground, swarm: asyncio.subprocess.Process, crowd: float, goes: bool
) -> float:
    """Seconds from the first connection until the kind caller's is the only one, if ever."""
    began, came = perf_counter(), False
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                there = await here.connections()
                came = came or there > crowd or swarm.returncode is not None
                if came and there <= 1 and (not goes or swarm.returncode is not None):
                    return perf_counter() - began
                await asyncio.sleep(LOOK_SECONDS)
    return math.inf


async def outcomes(callers: int = CALLERS) -> AsyncIterator[Outcome]:
    """Every manner in turn."""
    async with ground() as here:
        first = Figures("call all at once", callers)  # what a first crowd leaves is left once
        await attack(here, first)
        for name in MANNERS:
            yield (await attack(here, Figures(name, callers))).outcome
