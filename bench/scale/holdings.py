"""How a vault fares with what it holds: looking up, changing, starting, memory."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.peers.keyrelay import COMMAND, Settings, settings_of
from bench.processes import resident
from bench.room import ROOT, Room, free_port
from bench.running import Program, running
from proxy.clock import SystemClock
from vault import Changes, KeyRef, NewKey, NewToken, Secret, Vault, open_vault, tokens
from vault.tables import TOKENS

LOOKED_UP: Final = 200
CHANGED: Final = 5
AT_ONCE: Final = 100_000
"""Rows of one transaction: each writes the whole register anew."""

TENANTS: Final = 100
"""That the keys are spread over; the tokens are all one tenant's."""

IDLE_SECONDS: Final = 2.0
SERVICE: Final = "plain"

Lookups = list[Callable[[], Awaitable[object]]]


@dataclass(frozen=True, slots=True)
class Held:
    """So many of a kind, in `files` or in `postgresql`. `look_up`: microseconds of one that was not
    seen before; `change`: seconds to issue one token more; `start`: seconds from the command to the
    first answer; `resident`: octets in memory two seconds later."""

    kind: str
    where: str
    count: int
    look_up: float
    change: float
    start: float
    resident: int


def measure(room: Room, kind: str, count: int, url: str | None) -> Held:
    """Fills a vault of its own, and starts a server on it."""
    where = "files" if url is None else "postgresql"
    folder = room.folder(f"{kind}-{where}-{count}")
    data = folder / "data"
    data.mkdir(mode=0o700)
    settings: dict[str, Settings] = {} if url is None else {"vault": {"url": url}}
    (data / "keys.yaml").write_text(json.dumps(settings_of(room, settings)))
    look_up, change = asyncio.run(_filled(data, kind, count, url))
    start, octets = started(folder)
    return Held(kind, where, count, look_up, change, start, octets)


async def _filled(data: Path, kind: str, count: int, url: str | None) -> tuple[float, float]:
    vault = await open_vault(data, {}, SystemClock(), create=True, actor="bench", url=url)
    try:
        lookups = await _FILL[kind](vault, count)
        times = [await _timed(one) for one in lookups]
        changes = [await _timed(_issuing(vault, number)) for number in range(CHANGED)]
        return statistics.median(times) * 1e6, statistics.median(changes)
    finally:
        await vault.close()


def _issuing(vault: Vault, number: int) -> Callable[[], Awaitable[object]]:
    return lambda: vault.issue_token(NewToken("default", f"one-more-{number}"))


async def _timed(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    assert await work() is not None
    return time.perf_counter() - began


async def _tokens(vault: Vault, count: int) -> Lookups:
    """Past the command: one transaction for many, which no command makes."""
    some: list[bytes] = []
    for start in range(0, count, AT_ONCE):
        minted = [tokens.mint() for _ in range(min(AT_ONCE, count - start))]
        async with vault._core.changing() as change:
            rows = [_row(one, start + place, change.at) for place, one in enumerate(minted)]
            await change.book.insert(TOKENS, rows)
        some += [one.text.encode() for one in minted[:: max(1, count // LOOKED_UP)]]
    return [lambda text=text: vault.verify_token(text) for text in some[:LOOKED_UP]]  # type: ignore[misc]


def _row(minted: tokens.MintedToken, number: int, at: float) -> dict[str, object]:
    return {
        "id": minted.id,
        "tenant": "default",
        "name": f"token-{number}",
        "role": "call",
        "key_aliases": "{}",
        "digest": minted.digest,
        "created_at": at,
    }


async def _keys(vault: Vault, count: int) -> Lookups:
    for start in range(0, count, AT_ONCE):
        numbers = range(start, min(start + AT_ONCE, count))
        await vault.apply(Changes(tuple(_key(number) for number in numbers)))
    refs = [
        KeyRef(f"tenant-{number % TENANTS}", SERVICE, f"key-{number}", 1)
        for number in _spread(count)
    ]
    return [lambda ref=ref: vault.open_key(ref) for ref in refs]  # type: ignore[misc]


def _key(number: int) -> NewKey:
    secret = Secret(f"sk-{number}-0123456789abcdef".encode())
    return NewKey(f"tenant-{number % TENANTS}", SERVICE, f"key-{number}", {"key": secret})


def _spread(count: int) -> Iterable[int]:
    return range(0, count, max(1, count // LOOKED_UP))


_FILL: Final = {"tokens": _tokens, "keys": _keys}


def started(folder: Path) -> tuple[float, int]:
    """Seconds from the command to the first answer, and octets in memory two seconds later."""
    port = free_port()
    command = [*COMMAND, "--data", f"{folder}/data", "serve", "--port", str(port)]
    program = Program("keyrelay", command, folder, port, {"PYTHONPATH": str(ROOT)}, "/health/ready")
    began = time.perf_counter()
    with running(program) as server:
        took = time.perf_counter() - began
        time.sleep(IDLE_SECONDS)
        return took, resident(server.pid)
