"""`serve --workers N` as a test meets it: a connection to each worker, and its processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from proxy.clock import SystemClock
from tests.support.caller import Answered, Caller
from tests.support.origin import Origin
from tests.support.process import Served, served
from tests.support.vaults import begin
from vault import NewKey, NewToken, Secret, Vault, open_vault

KEY = "sk-canary-0123456789abcdefghij"
PATIENCE = 20.0


@dataclass
class Team:
    """A running server of several processes, the provider's double, and a token."""

    up: Served
    data: Path
    vault: Vault
    origin: Origin
    token: str
    callers: dict[str, Caller] = field(default_factory=dict)

    def target(self, path: str = "/v1/x", options: str = "") -> str:
        return f"/proxy?server={self.origin.url}{path}&service=openai{options}"

    async def ask(self, caller: Caller, target: str, **more: str) -> Answered:
        """A call over a connection that stays."""
        fields = {"Authorization": f"Bearer {self.token}", **more}
        await caller.request("GET", target, *fields.items())
        return await caller.answer()

    async def meet(self, count: int) -> list[Caller]:
        """A connection to each of so many workers, in no order."""
        async with asyncio.timeout(PATIENCE):
            while len(self.callers) < count:
                await asyncio.gather(*(self._meet_one() for _ in range(8)))
        return list(self.callers.values())

    async def _meet_one(self) -> None:
        caller = await Caller.connect(self.up.url)
        name = worker_of(await self.ask(caller, "/proxy"))
        if name in self.callers:
            await caller.close()
        else:
            self.callers[name] = caller

    def children(self) -> list[tuple[int, int, int]]:
        """The processes below the supervisor, oldest first: the coordinator, then workers."""
        return children(self.up.process.pid)

    def pids(self) -> list[int]:
        """The same, by number alone."""
        return [pid for _parent, _began, pid in self.children()]

    async def until(self, found: Callable[[], bool]) -> None:
        """Waits for something that is bound to come."""
        async with asyncio.timeout(PATIENCE):
            while not found():
                await asyncio.sleep(0.02)

    def told(self, words: str) -> int:
        """How many lines of the log have them."""
        return sum(words in line for line in self.up.said)

    def kill(self, pid: int) -> None:
        """As the kernel does when memory runs out."""
        os.kill(pid, signal.SIGKILL)


def worker_of(answer: Answered) -> str:
    """Which process answered."""
    return (answer.header("x-relay-request-id") or answer.header("x-request-id") or "")[:20]


def children(parent: int) -> list[tuple[int, int, int]]:
    """Parent, start and number of the processes below it, oldest first."""
    return sorted(one for one in map(_child, _processes()) if one[0] == parent)


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _child(pid: int) -> tuple[int, int, int]:
    """The parent, the start and the number of a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0, 0, pid
    return (int(fields[1]), int(fields[19]), pid) if fields[0] != "Z" else (0, 0, pid)


@asynccontextmanager
async def team(
    data: Path, origin: Origin, settings: str = "", workers: int = 2
) -> AsyncIterator[Team]:
    """A server with the origin in OpenAI's place; `settings`: more of keys.yaml."""
    begin(data)
    vault = await open_vault(data, {}, SystemClock(), actor="test")
    try:
        await vault.put_key(NewKey("default", "openai", "default", {"key": Secret(KEY.encode())}))
        _, token = await vault.issue_token(NewToken("default", "caller"))
        (data / "keys.yaml").write_text(
            f"services: {{openai: {{origin: '{origin.url}'}}}}\n{settings}"
        )
        async with served(data, "--workers", str(workers)) as up:
            running = Team(up, data, vault, origin, token)
            try:
                yield running
            finally:
                for caller in running.callers.values():
                    await caller.close()
    finally:
        await vault.close()
