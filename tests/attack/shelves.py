"""Answers in Redis while writers are killed, Redis evicts what it likes, and its master dies.

Each body says what it is: whoever reads one that is not whole has found a fault. A minute or two.

    python -m tests.attack.shelves URL SEED     a writer, until it is killed
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from time import perf_counter
from typing import Final

from proxy.cache.entry import Entry, Found, StoreError
from proxy.cache.policy import CacheSettings
from proxy.cache.redis import RedisStore
from proxy.clock import SystemClock
from proxy.engine import Engine, Gone, Place
from proxy.errors import UpstreamIncomplete
from tests.attack.outcome import Outcome
from tests.support.engines import redis_running
from tests.support.redises import sentinel_running
from vault.sealing import DataKey, KeyedSealer

KEYS: Final = [sha256(b"%d" % number).digest() for number in range(12)]
SIZES: Final = (40, 4_000, 20_000, 300_000, 1_100_000)
PREFIX: Final = "keyrelay-attack"
DATA_KEY: Final = DataKey(b"k" * 8, "cache", b"0" * 32)
HOUR: Final = 3600.0


class Body:
    """Octets after their own digest."""

    def __init__(self, chance: random.Random) -> None:
        octets = chance.randbytes(chance.choice(SIZES) - 32)
        self.octets = sha256(octets).digest() + octets

    async def blocks(self, size: int) -> AsyncGenerator[bytes, None]:
        for start in range(0, len(self.octets), size):
            yield self.octets[start : start + size]


def whole(octets: bytes) -> bool:
    return sha256(octets[32:]).digest() == octets[:32]


def select(_vary: bytes) -> bytes:
    return b""


@asynccontextmanager
async def store_at(url: str) -> AsyncIterator[RedisStore]:
    clock = SystemClock()
    engine = Engine(Place.of(url), PREFIX, clock)
    store = RedisStore(engine, KeyedSealer(DATA_KEY, {}), clock, CacheSettings())
    try:
        yield store
    finally:
        await store.close()
        await engine.stop()


async def write(store: RedisStore, chance: random.Random) -> None:
    """One more answer of some key."""
    now, body = SystemClock().now(), Body(chance)
    times = (now, now, now + HOUR)
    size = len(body.octets)
    entry = Entry(chance.choice(KEYS), b"", b"", "t", "s", *times, 200, (), size)
    await store.put(entry, select, body)


async def write_on(url: str, seed: int) -> None:
    """Without end."""
    chance = random.Random(seed)
    async with store_at(url) as store:
        while True:
            with suppress(StoreError):
                await write(store, chance)


async def read(store: RedisStore, seen: Counter[str]) -> None:
    """Every key once."""
    for key in KEYS:
        try:
            found = await store.get(key, select, SystemClock().now())
            if not isinstance(found, Found):
                seen["misses"] += 1
                continue
            octets = b"".join([piece async for piece in found.octets()])
            seen["hits" if whole(octets) else "broken"] += 1
        except UpstreamIncomplete:
            seen["cut"] += 1
        except StoreError:
            seen["errors"] += 1


async def outcomes(
    kills: int = 200, evictions: int = 400, failovers: int = 5
) -> AsyncIterator[Outcome]:
    """All three."""
    yield await _killed(kills)
    yield await _evicted(evictions)
    yield await _failed_over(failovers)


async def _killed(kills: int) -> Outcome:
    chance, seen, left = random.Random(7), Counter[str](), 0
    with redis_running() as redis:
        async with store_at(redis.url) as store:
            for number in range(kills):
                words = ("-m", "tests.attack.shelves", redis.url, str(number))
                writer = await asyncio.create_subprocess_exec(sys.executable, *words)
                await _until_written(store)
                await asyncio.sleep(chance.random() * 0.3)
                writer.kill()
                await writer.wait()
                await read(store, seen)
                await store._shelves._engine.run(lambda client: client.delete(*_shelves(store)))
            client = store._shelves._engine.client
            async for name in client.scan_iter(f"{PREFIX}:{{cache:*"):
                left += await client.pttl(name) < 0
    return _told("kill -9 of a writer into Redis", kills, "kills", seen, left)


def _shelves(store: RedisStore) -> list[str]:
    return [store._shelves.shelf(key.hex()[:32]) for key in KEYS]


async def _until_written(store: RedisStore) -> None:
    async with asyncio.timeout(60):
        while not await store._shelves.ask("exists", *_shelves(store)):
            await asyncio.sleep(0.01)


async def _evicted(rounds: int) -> Outcome:
    """By a bound that three of the large answers fill, and any of their parts may go."""
    chance, seen = random.Random(8), Counter[str]()
    policy = ("--maxmemory", "8mb", "--maxmemory-policy", "allkeys-random")
    with redis_running(*policy) as redis:
        async with store_at(redis.url) as one, store_at(redis.url) as other:

            async def fill() -> None:
                for _ in range(rounds):
                    with suppress(StoreError):
                        await write(one, chance)

            writing = asyncio.create_task(fill())
            while not writing.done():
                await read(other, seen)
            await writing
            gone = redis.say("info", "stats").partition("evicted_keys:")[2].split()[0]
    return _told(f"Redis evicts ({gone} names)", sum(seen.values()), "look-ups", seen)


async def _failed_over(failovers: int) -> Outcome:
    """The master dies under load: what is read is whole, and writing goes on by itself."""
    chance, seen, slowest = random.Random(9), Counter[str](), 0.0
    for _ in range(failovers):
        with sentinel_running() as watched:
            async with store_at(watched.url) as store:
                for _ in range(20):
                    await write(store, chance)
                dying = asyncio.create_task(asyncio.to_thread(watched.fail_over))
                began = perf_counter()
                while not dying.done() or not await _takes(store, chance):
                    await read(store, seen)
                    await asyncio.sleep(0.02)
                    if perf_counter() - began > 60:
                        seen["broken"] += 1
                        break
                await dying
                slowest = max(slowest, perf_counter() - began)
                await read(store, seen)
    told = _told("the master of sentinels dies", failovers, "failovers", seen)
    return told._replace(told=f"{told.told}; written again after {slowest:.1f} s at most")


async def _takes(store: RedisStore, chance: random.Random) -> bool:
    try:
        await write(store, chance)
    except (StoreError, Gone):
        return False
    return True


def _told(what: str, count: int, acts: str, seen: Counter[str], lasting: int = 0) -> Outcome:
    faults = tuple(
        f"{number} {words}"
        for number, words in ((seen["broken"], "bodies not whole"), (lasting, "without an end"))
        if number
    )
    figures = ", ".join(f"{seen[name]} {name}" for name in ("hits", "misses", "cut", "errors"))
    return Outcome(what, count, acts, seen["broken"] + lasting, figures, faults)


if __name__ == "__main__":
    asyncio.run(write_on(sys.argv[1], int(sys.argv[2])))
