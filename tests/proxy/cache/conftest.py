"""A cache over a fake upstream, a real store and real keys; and calls to make."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from proxy.cache import batches
from proxy.cache.cache import Cache
from proxy.cache.commons import Commons
from proxy.cache.entry import Store
from proxy.cache.key import Keyer
from proxy.cache.policy import CacheSettings
from proxy.cache.sqlite import SqliteStore
from proxy.call import Call, Directions
from proxy.destinations import Target
from proxy.grant import Grant, Place
from proxy.messages import Fields, Response, value
from proxy.reach import Reach
from proxy.services.model import Service, Slot
from tests.support.clock import FakeClock
from tests.support.upstream import FakeUpstream
from vault import KeyRef
from vault.sealing import DataKey, KeyedHasher, KeyedSealer

NOW = 1_800_000_000
HOUR = NOW + 3600
SERVICE = Service(
    "openai",
    "llm",
    ("api.openai.com",),
    (Slot("header", "Authorization", "Bearer {key}"),),
    (Slot("header", "Authorization", "Bearer {key}"),),
)
TARGET = Target("https", "api.openai.com", 443, "/v1/chat", None)
DATA_KEY = DataKey.random("cache")


class Body:
    """A request body in chunks; `announced` False: chunked coding."""

    def __init__(self, *chunks: bytes, announced: bool = True) -> None:
        self.chunks = chunks
        self.read = 0
        self.length = sum(map(len, chunks)) if announced else None

    def at_hand(self) -> bytes | None:
        return None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            self.read += len(chunk)
            yield chunk


def a_call(
    cache: int | None = HOUR,
    *,
    invalidate: bool = False,
    method: str = "POST",
    fields: Fields = (),
    body: Any = None,
    url: str = TARGET.url,
) -> Call:
    directions = Directions(url, "openai", cache, invalidate)
    return Call(method, directions, fields, body or Body(b"{}"), "id")


def a_grant(tenant: str = "default", **changes: Any) -> Grant:
    key = KeyRef(tenant, "openai", "main", 1)
    grant = Grant(tenant, "token", SERVICE, key, TARGET, Place.PROVIDER, Reach.PUBLIC)
    return replace(grant, **changes)


def a_keyer(**changes: Any) -> Keyer:
    return Keyer(KeyedHasher(DATA_KEY), lambda call, grant: call.fields, **changes)


def a_sealer() -> KeyedSealer:
    return KeyedSealer(DATA_KEY, {})


@dataclass(frozen=True)
class Answer:
    """What a caller got, whole."""

    status: int
    fields: Fields
    body: bytes

    @property
    def verdict(self) -> str:
        return (value(self.fields[::-1], b"cache-status") or b"").decode()

    @property
    def hit(self) -> bool:
        return self.verdict.startswith("keyrelay; hit")


@dataclass
class Bench:
    """A cache and all that it stands on."""

    cache: Cache
    upstream: FakeUpstream
    clock: FakeClock
    store: Store
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    async def get(self, call: Call | None = None, grant: Grant | None = None) -> Answer:
        async with self.cache.fetch(call or a_call(), grant or a_grant()) as response:
            body = b"".join([chunk async for chunk in response.body])
            return Answer(response.status, (*response.fields, *response.own), body)

    def begin(self, call: Call | None = None, grant: Grant | None = None) -> asyncio.Task[Answer]:
        task = asyncio.create_task(self.get(call, grant))
        self.tasks.append(task)
        return task

    async def aboard(self, count: int) -> None:
        """Waits until so many callers sit in flights."""
        await until(lambda: sum(f.aboard for f in self.cache._flights.all()) == count)

    async def landed(self) -> None:
        """Waits until no flight is left: what is to be stored is stored."""
        for flight in self.cache._flights.all():
            await flight.ended()
        await until(lambda: not self.cache._flights.all())


async def until(condition: Callable[[], bool]) -> None:
    """Lets everybody else run until a condition holds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


class Reader:
    """A caller who reads step by step."""

    def __init__(self, bench: Bench, call: Call | None = None, grant: Grant | None = None) -> None:
        self._context = bench.cache.fetch(call or a_call(), grant or a_grant())

    async def __aenter__(self) -> Reader:
        self.response: Response = await self._context.__aenter__()
        self._body = aiter(self.response.body)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._context.__aexit__(*error)

    async def piece(self) -> bytes:
        return await asyncio.wait_for(anext(self._body, b""), 10)

    async def rest(self) -> bytes:
        return b"".join([chunk async for chunk in self._body])

    @property
    def verdict(self) -> str:
        return (value(self.response.own, b"cache-status") or b"").decode()


Opened = Callable[..., Awaitable[Bench]]


@asynccontextmanager
async def open_bench(
    path: Path,
    *replies: Any,
    clock: FakeClock | None = None,
    store: Store | None = None,
    keyer: Keyer | None = None,
    commons: Commons | None = None,
    **settings: Any,
) -> AsyncIterator[Bench]:
    """A started cache on `cache.db` in a directory; `commons`: what it shares with others."""
    clock = clock or FakeClock(NOW)
    chosen = CacheSettings(**settings)
    store = store or SqliteStore(path / "cache.db", a_sealer(), clock, chosen)
    upstream = FakeUpstream(*replies)
    cache = Cache(upstream, keyer or a_keyer(), store, clock, chosen)
    if commons is not None:
        cache.share(commons)
    await cache.start()
    bench = Bench(cache, upstream, clock, store)
    try:
        yield bench
    finally:
        for task in bench.tasks:
            task.cancel()
        await asyncio.gather(*bench.tasks, return_exceptions=True)
        await cache.aclose()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer waits for others to be written with."""
    monkeypatch.setattr(batches, "PACE", 0)


@pytest.fixture
def opened(tmp_path: Path) -> Any:
    """`async with opened(replies..., settings...) as bench`."""

    def opener(*replies: Any, **changes: Any) -> Any:
        return open_bench(tmp_path, *replies, **changes)

    return opener
