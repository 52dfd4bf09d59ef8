"""How a cache fares with what it holds: looking up, room, starting, purging."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import statistics
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from bench.room import Room
from bench.scale.engines import Engine as Server
from bench.scale.engines import say_redis
from bench.scale.holdings import started
from proxy.cache.entry import Entry, Found, Store
from proxy.cache.policy import CacheSettings
from proxy.cache.redis import RedisStore
from proxy.cache.sqlite import SqliteStore
from proxy.clock import SystemClock
from proxy.engine import Engine, Place
from vault import Purge, open_vault

LOOKED_UP: Final = 300
AT_ONCE: Final = 500
PATIENCE_SECONDS: Final = 60.0
"""Of a question to Redis: a busy machine is no lost engine."""

LEFT: Final = 300
BODY: Final = secrets.token_bytes(512)
"""Of each answer: small, so that a million have room."""

SETTINGS: Final = CacheSettings(disk_bytes=1 << 40)


@dataclass(frozen=True, slots=True)
class Kept:
    """So many answers of 512 octets, in `files` or in `redis`. `look_up` and `put`: microseconds of
    one; `octets`: of each, on disk or in Redis's memory; `purge`: seconds until all are gone;
    `start`: seconds until a server on it answers; `resident`: octets that it takes then."""

    where: str
    count: int
    put: float
    look_up: float
    octets: float
    purge: float
    start: float | None = None
    resident: int | None = None


class _Body:
    """As a spool of an answer would have it."""

    async def blocks(self, size: int) -> AsyncGenerator[bytes, None]:
        """All at once."""
        assert size >= len(BODY)
        yield BODY


def in_files(room: Room, count: int) -> Kept:
    """A cache.db of its own, and a server on it."""
    folder = room.folder(f"entries-files-{count}")
    data = folder / "data"
    data.mkdir(mode=0o700)
    filled = asyncio.run(_in_files(data, count))
    start, octets = started(folder)
    return replace(filled, start=start, resident=octets, purge=asyncio.run(_purged(data)))


async def _in_files(data: Path, count: int) -> Kept:
    async with _sqlite(data) as store:
        put = await _filled(store, count)
        look_up = await _looked_up(store, count)
    size = _on_disk(data)
    return Kept("files", count, put, look_up, size / count, 0.0)


def _on_disk(data: Path) -> int:
    return sum(path.stat().st_size for path in data.glob("cache.db*"))


async def _purged(data: Path) -> float:
    async with _sqlite(data) as store:
        return await _purge(store)


def in_redis(room: Room, server: Server, count: int) -> Kept:
    """A Redis that is emptied before."""
    data = room.folder(f"entries-redis-{count}") / "data"
    data.mkdir(mode=0o700)
    say_redis(server, "flushall")
    return asyncio.run(_in_redis(data, server, count))


async def _in_redis(data: Path, server: Server, count: int) -> Kept:
    engine = _patient(Engine(Place.of(f"redis://127.0.0.1:{server.port}"), "bench", SystemClock()))
    vault = await open_vault(data, {}, SystemClock(), create=True, actor="bench")
    store = RedisStore(engine, await vault.sealer("cache-bodies"), SystemClock(), SETTINGS)
    await store.start()
    before = _used(server)
    put = await _filled(store, count)
    grown = _used(server) - before
    look_up = await _looked_up(store, count)
    began = time.perf_counter()
    await _purge(store)
    while _many(server):  # noqa: ASYNC110 - Redis tells nobody
        await asyncio.sleep(0.05)
    took = time.perf_counter() - began
    await store.close()
    await engine.aclose()
    await vault.close()
    return Kept("redis", count, put, look_up, grown / count, took)


def _patient(engine: Engine) -> Engine:
    engine.run = partial(engine.run, seconds=PATIENCE_SECONDS)  # type: ignore[method-assign]
    engine.ask = partial(engine.ask, seconds=PATIENCE_SECONDS)  # type: ignore[method-assign]
    engine.script = partial(engine.script, seconds=PATIENCE_SECONDS)  # type: ignore[method-assign]
    return engine


def _many(server: Server) -> bool:
    """Of what is there when nothing is kept: registers, and who writes."""
    return int(say_redis(server, "dbsize")) > LEFT


def _used(server: Server) -> int:
    lines = say_redis(server, "info", "memory").splitlines()
    return next(int(line.partition(":")[2]) for line in lines if line.startswith("used_memory:"))


@asynccontextmanager
async def _sqlite(data: Path) -> AsyncIterator[Store]:
    vault = await open_vault(data, {}, SystemClock(), create=True, actor="bench")
    sealer = await vault.sealer("cache-bodies")
    store = SqliteStore(data / "cache.db", sealer, SystemClock(), SETTINGS)
    await store.start()
    try:
        yield store
    finally:
        await store.close()
        await vault.close()


async def _filled(store: Store, count: int) -> float:
    """Microseconds an answer, many at once as a server writes them."""
    began = time.perf_counter()
    for start in range(0, count, AT_ONCE):
        some = range(start, min(start + AT_ONCE, count))
        await asyncio.gather(*(store.put(_entry(one), _all_alike, _Body()) for one in some))
    return (time.perf_counter() - began) / count * 1e6


async def _looked_up(store: Store, count: int) -> float:
    times = []
    for number in range(0, count, max(1, count // LOOKED_UP)):
        began = time.perf_counter()
        found = await store.get(_key(number), _all_alike, time.time())
        times.append(time.perf_counter() - began)
        assert isinstance(found, Found)
        found.close()
    return statistics.median(times) * 1e6


async def _purge(store: Store) -> float:
    began = time.perf_counter()
    await store.purge(Purge(time.time()))
    return time.perf_counter() - began


def _all_alike(_vary: bytes) -> bytes:
    return b""


def _key(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def _entry(number: int) -> Entry:
    now = time.time()
    fields = ((b"content-type", b"application/json"),)
    whose = ("default", "plain", now - 1, now, now + 86_400)
    return Entry(_key(number), b"", b"", *whose, 200, fields, len(BODY))
