"""keyrelay set up in several ways: on files or on engines, in workers or in instances."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from bench import matter
from bench.case import Bodies, Case, post
from bench.load import Load
from bench.peers.keyrelay import (
    COMMAND,
    DAY,
    HIT,
    LIMITED,
    SERVICES,
    STORED,
    STREAM,
    Install,
    Settings,
    command,
    settings_of,
)
from bench.room import ROOT, Room, free_port
from bench.running import Program, Running, running

NO_MEMORY: Mapping[str, Settings] = {"cache": {"memory_bytes": 1}}
"""Every hit is read from the store."""


Named = Callable[[str], str]
"""Makes a database of this name, and gives its URL."""


@dataclass(frozen=True, slots=True)
class Engines:
    """The URL of the one, and how to get one of the other."""

    redis: str
    database: Named


@dataclass(frozen=True, slots=True)
class Setup:
    """`name` says which; `cases` what is asked of it."""

    name: str
    cases: tuple[str, ...]
    instances: int = 1
    workers: int = 1
    engines: bool = False
    settings: Mapping[str, Settings] = field(default_factory=dict)


SETUPS = (
    Setup("files-1", ("hit", "forward", "sse", "miss")),
    Setup("files-2-workers", ("hit", "forward", "sse"), workers=2),
    Setup("engines-1", ("hit", "forward", "sse", "miss"), engines=True),
    Setup("engines-2", ("hit", "forward", "sse"), 2, engines=True),
    Setup("engines-3", ("hit", "forward", "sse"), 3, engines=True),
    Setup("files-1-no-memory", ("hit",), settings=NO_MEMORY),
    Setup("engines-1-no-memory", ("hit",), engines=True, settings=NO_MEMORY),
    Setup("files-1-limited", ("hit", "forward"), settings=LIMITED),
    Setup("engines-1-limited", ("hit", "forward"), engines=True, settings=LIMITED),
)


@dataclass(frozen=True, slots=True)
class Ready:
    """An install that can be started, and is asked by its first instance's paths."""

    setup: Setup
    installs: tuple[Install, ...]

    @contextlib.contextmanager
    def running(self) -> Iterator[list[Running]]:
        """All instances, from the first answer of the last one on."""
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(running(one.program)) for one in self.installs]

    def cases(self, bodies: Bodies) -> list[Case]:
        """What is asked of it."""
        return [_CASES[name](self.installs[0], bodies) for name in self.setup.cases]


def install(room: Room, setup: Setup, engines: Engines) -> Ready:
    """The first instance is set up by its command; the others are given its files."""
    settings: dict[str, Settings] = {name: dict(one) for name, one in setup.settings.items()}
    if setup.engines:
        settings["vault"] = {"url": engines.database(database_of(setup))}
        settings["cache"] = {**settings.get("cache", {}), "url": engines.redis}
    first = _first(room, setup, settings)
    others = [_other(first, number, setup) for number in range(1, setup.instances)]
    return Ready(setup, (first, *others))


def database_of(setup: Setup) -> str:
    """The name of its database."""
    return "scale_" + setup.name.replace("-", "_")


def _first(room: Room, setup: Setup, settings: dict[str, Settings]) -> Install:
    folder = room.folder(setup.name)
    data = folder / "data"
    data.mkdir(mode=0o700)
    (data / "keys.yaml").write_text(json.dumps(settings_of(room, settings)))  # JSON is YAML
    command(data, "init")
    for service in SERVICES:
        command(data, "key", "add", service, stdin=f"sk-{service}-0123456789abcdef\n")
    token = json.loads(command(data, "token", "issue", "bench", "--json"))["token"]
    return Install(_program(folder, setup), token, room)


def _other(first: Install, number: int, setup: Setup) -> Install:
    folder = first.room.folder(f"{setup.name}-{number}")
    (folder / "data").mkdir(mode=0o700)
    for name in ("keys.yaml", "master.key"):
        shutil.copy(first.data / name, folder / "data" / name)
    return replace(first, program=_program(folder, setup))


def _program(folder: object, setup: Setup) -> Program:
    port = free_port()
    serve = [*COMMAND, "--data", f"{folder}/data", "serve", "--port", str(port)]
    if setup.workers > 1:
        serve += ["--workers", str(setup.workers)]
    return Program(setup.name, serve, folder, port, {"PYTHONPATH": str(ROOT)})


def _hit(ready: Install, bodies: Bodies) -> Case:
    path = ready.path("plain", matter.COMPLETIONS, int(time.time()) + DAY)
    return Case("hit", post(path, bodies["question"], ready.token_field), HIT)


def _miss(ready: Install, bodies: Bodies) -> Case:
    path = ready.path("plain", matter.COMPLETIONS, int(time.time()) + DAY)
    fields = (("Content-Type", "application/json"), ready.token_field)
    return Case("miss", Load(path, "POST", fields, bodies["question"], unique=True), STORED)


def _forward(ready: Install, bodies: Bodies) -> Case:
    path = ready.path("plain", matter.COMPLETIONS)
    return Case("forward", post(path, bodies["question"], ready.token_field))


def _sse(ready: Install, bodies: Bodies) -> Case:
    load = post(ready.path("origin", matter.COMPLETIONS), bodies["stream"], ready.token_field)
    return Case("sse", load, STREAM, chunks=True)


_CASES: Mapping[str, Callable[[Install, Bodies], Case]] = {
    "hit": _hit,
    "miss": _miss,
    "forward": _forward,
    "sse": _sse,
}
