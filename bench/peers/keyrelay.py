"""keyrelay as an admin sets it up: its own data directory, made and filled by its command."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from bench import matter, upstreams
from bench.case import Bodies, Case, Expected, Site, at_once, post
from bench.load import Load
from bench.room import ROOT, Room, environment, free_port
from bench.running import Program

COMMAND = (sys.executable, "-m", "proxy.cli")
DAY = 86400
SERVICES = ("plain", "tls", "origin")
HIT = Expected("Cache-Status", "keyrelay; hit")
STORED = Expected("Cache-Status", "stored")
STREAM = Expected(body=b"[DONE]")


@dataclass(frozen=True, slots=True)
class Install:
    """A data directory that is ready to be served, and a token for it."""

    program: Program
    token: str
    room: Room

    def path(self, service: str, path: str, until: int | None = None) -> str:
        """The request that reaches this path of a service, kept until then."""
        base = _origins(self.room)[service]
        cache = f"&cache={until}" if until else ""
        return f"/proxy?server={quote(base + path, safe='')}&service={service}{cache}"

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.program.folder / "data"

    @property
    def token_field(self) -> tuple[str, str]:
        return ("Authorization", f"Bearer {self.token}")


Settings = dict[str, object]

QUIET: dict[str, Settings] = {
    "usage": {"enabled": False},
    "server": {"log_level": "error"},
    "limits": {"concurrency": {"total": None}},
}
"""Nothing is counted, written down or limited."""

LIMITED: dict[str, Settings] = {
    "limits": {
        "quotas": [
            {
                "token": "*",
                "calls": ["9000000/minute", "900000000/day"],
                "upstream_calls": "9000000/minute",
                "budget": 900000000,
            }
        ],
        "concurrency": {"total": 1000, "per_tenant": 1000, "per_service": 1000},
    },
}
"""Beside the log line, usage and metrics, which are on anyway: limits that nobody reaches."""


def install(room: Room, name: str, settings: dict[str, Settings] | None = None) -> Install:
    """`init`, a configuration, a key for every service, a token; `settings`: what differs."""
    folder = room.folder(name)
    data = folder / "data"
    command(data, "init")
    (data / "keys.yaml").write_text(json.dumps(settings_of(room, settings or {})))  # JSON is YAML
    for service in SERVICES:
        command(data, "key", "add", service, stdin=f"sk-{service}-0123456789abcdef\n")
    token = json.loads(command(data, "token", "issue", "bench", "--json"))["token"]
    port = free_port()
    serve = [*COMMAND, "--data", str(data), "serve", "--port", str(port)]
    program = Program(name, serve, folder, port, {"PYTHONPATH": str(ROOT)})
    return Install(program, token, room)


def issue(ready: Install, tenant: str) -> str:
    """A token of another tenant, which has a key for every service too."""
    for service in SERVICES:
        add = ("key", "add", service, "--tenant", tenant)
        command(ready.data, *add, stdin=f"sk-{tenant}-{service}-0123456789abcdef\n")
    said = command(ready.data, "token", "issue", "bench", "--tenant", tenant, "--json")
    return str(json.loads(said)["token"])


def answers_kept(ready: Install) -> int:
    """How many answers the cache has on the disk."""
    stats = json.loads(command(ready.data, "cache", "stats", "--json"))
    return int(stats["answers"])


def _origins(room: Room) -> dict[str, str]:
    return {
        "plain": f"http://127.0.0.1:{room.plain}",
        "tls": f"https://localhost:{room.tls}",
        "origin": f"http://127.0.0.1:{room.origin}",
    }


def settings_of(room: Room, more: dict[str, Settings]) -> dict[str, object]:
    """A configuration, with the services that the bench calls."""
    services = {name: {"in": "header", "origin": url} for name, url in _origins(room).items()}
    authority = upstreams.authority(room)
    server = {"upstream_ca": str(authority)} if authority else {}
    return {**more, "services": services, "server": {**server, **more.get("server", {})}}


def command(data: Path, *arguments: str, stdin: str = "") -> str:
    """What keyrelay's command says."""
    done = subprocess.run(
        [*COMMAND, "--data", str(data), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=True,
        env=environment(PYTHONPATH=str(ROOT)),
    )
    return done.stdout


def site(room: Room, bodies: Bodies) -> Site:
    """Everything but hits from the disk; many connections last, since they stay open a while."""
    ready = install(room, "keyrelay")
    hit, forward = _hit(ready, bodies), _forward(ready, bodies)
    cases = [hit, miss(ready, bodies), forward, *_tls(ready, bodies)]
    cases += [*_streams(ready, bodies), *_sizes(ready, bodies)]
    cases += [at_once(case, number) for number in (1, 256) for case in (hit, forward)]
    return Site("keyrelay", ready.program, tuple(cases))


def disk_site(room: Room, bodies: Bodies) -> Site:
    """A memory of one octet, so that every hit is read from the disk's database."""
    ready = install(room, "keyrelay-disk", {"cache": {"memory_bytes": 1}})
    case = _hit(ready, bodies)
    return Site("keyrelay-disk", ready.program, (Case("hit-disk", case.load, case.expected),))


def quiet_site(room: Room, bodies: Bodies) -> Site:
    """What the relaying alone costs: no log line, no usage, no limits."""
    return _bare(install(room, "keyrelay-quiet", QUIET), bodies)


def limited_site(room: Room, bodies: Bodies) -> Site:
    """Everything that watches and limits, at once."""
    return _bare(install(room, "keyrelay-limited", LIMITED), bodies)


def _bare(ready: Install, bodies: Bodies) -> Site:
    return Site(ready.program.name, ready.program, (_hit(ready, bodies), _forward(ready, bodies)))


def _hit(ready: Install, bodies: Bodies) -> Case:
    path = ready.path("plain", matter.COMPLETIONS, int(time.time()) + DAY)
    return Case("hit", post(path, bodies["question"], ready.token_field), HIT)


def miss(ready: Install, bodies: Bodies) -> Case:
    """Every request is another one, and asks to be kept for a day."""
    path = ready.path("plain", matter.COMPLETIONS, int(time.time()) + DAY)
    fields = (("Content-Type", "application/json"), ready.token_field)
    return Case("miss", Load(path, "POST", fields, bodies["question"], unique=True), STORED)


def _forward(ready: Install, bodies: Bodies, service: str = "plain") -> Case:
    path = ready.path(service, matter.COMPLETIONS)
    load = post(path, bodies["question"], ready.token_field)
    return Case("forward", load, Expected(body=matter.ANSWER))


def _tls(ready: Install, bodies: Bodies) -> list[Case]:
    if upstreams.authority(ready.room) is None:
        return []
    plain = _forward(ready, bodies, "tls")
    return [Case("forward-tls", plain.load, plain.expected)]


def _streams(ready: Install, bodies: Bodies) -> list[Case]:
    return [
        Case(
            name,
            post(ready.path("origin", path), bodies["stream"], ready.token_field),
            STREAM,
            True,
        )
        for name, path in (("sse", matter.COMPLETIONS), ("sse-burst", "/burst"))
    ]


def _sizes(ready: Install, bodies: Bodies) -> list[Case]:
    token = ready.token_field
    down = [
        Case(f"down-{name}", Load(ready.path("plain", f"/{name}"), fields=(token,)))
        for name in matter.SIZES
    ]
    up = [
        Case(
            f"up-{name}",
            post(ready.path("origin", "/sink"), bodies[name], token),
            Expected(body=b"%d" % size),
        )
        for name, size in matter.SIZES.items()
    ]
    return down + up
