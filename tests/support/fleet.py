"""Several instances of keyrelay over one PostgreSQL and one Redis, each a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.caller import Answered, call
from tests.support.command import command
from tests.support.engines import RunningPostgres, RunningRedis
from tests.support.origin import Origin
from tests.support.process import Served, served

KEY: Final = "sk-fleet-0123456789abcdefghijkl"
PATIENCE_SECONDS: Final = 60.0


@dataclass
class Instance:
    """One of them, and its own data directory."""

    up: Served
    data: Path
    environ: dict[str, str] = field(repr=False)

    async def ask(self, token: str, target: str = "small", options: str = "") -> Answered:
        """One call for `openai`, on a connection of its own."""
        path = f"/proxy/openai/{options and options + '/-/'}{target}"
        return await call(self.up.url, "GET", path, ("X-Relay-Token", token))

    async def run(self, *words: str) -> str:
        """A command of the admin's beside it; what it printed."""
        ended = await command(self.data, *words, **self.environ)
        assert ended.code == 0, ended.err
        return ended.out.strip()


@dataclass
class Fleet:
    """All of them, of so many workers each. `token`: good at each."""

    instances: list[Instance]
    token: str
    origin: Origin
    workers: int

    def __getitem__(self, number: int) -> Instance:
        return self.instances[number]

    def __len__(self) -> int:
        return len(self.instances)


@asynccontextmanager
async def fleet(
    folder: Path,
    origin: Origin,
    engines: tuple[RunningPostgres, RunningRedis],
    *,
    instances: int = 3,
    workers: int = 2,
    settings: str = "",
) -> AsyncIterator[Fleet]:
    """All started at once, on an empty database."""
    postgres, redis = engines
    secret = await _master_key(folder)
    environ = {"KEY": KEY, "KEYRELAY_MASTER_KEY_FILE": str(secret), "VAULT": postgres.another()}
    environ["CACHE"] = redis.url
    words = ("--workers", str(workers)) if workers > 1 else ()
    async with AsyncExitStack() as stack:

        async def start(number: int) -> Instance:
            data = folder / f"instance{number}"
            data.mkdir(mode=0o700)
            (data / "keys.yaml").write_text(
                f"services: {{openai: {{origin: '{origin.url}'}}}}\n"
                "keys: {openai: '${KEY}'}\nvault: {url: '${VAULT}'}\ncache: {url: '${CACHE}'}\n"
                f"{settings}"
            )
            up = await stack.enter_async_context(served(data, *words, **environ))
            return Instance(up, data, environ)

        started = await asyncio.gather(*map(start, range(instances)))
        token = await started[0].run("token", "issue", "fleet", "--role", "admin")
        made = Fleet(list(started), token, origin, workers)
        await until_all(made, lambda one: good(one, token))
        yield made


async def good(instance: Instance, token: str) -> bool:
    """Whether it knows a token."""
    return (await instance.ask(token)).status == 200


async def until_all(fleet: Fleet, holds: object, seconds: float = PATIENCE_SECONDS) -> float:
    """Seconds until it holds at every instance, several times over: each has workers."""
    clock = asyncio.get_running_loop().time
    began = clock()
    async with asyncio.timeout(seconds):
        for instance in fleet.instances:
            row = 0
            while row < 8:  # connections are spread over workers by chance
                row = row + 1 if await holds(instance) else 0  # type: ignore[operator]
    return clock() - began


async def _master_key(folder: Path) -> Path:
    """One for all: made by `init` in a directory that is not used again."""
    made = await command(folder / "first", "init")
    assert made.code == 0, made.err
    return (folder / "first" / "master.key").replace(folder / "master.key")
