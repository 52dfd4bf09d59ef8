"""Makes workers that change a vault or a cache until they are killed.

`python -m tests.attack.nursery` forks one for each line `ACT DATA SEED`, so that none costs the
start of a Python. A worker says what it is about to do and, the moment that this is acknowledged,
that it is done.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from proxy.cache.policy import CacheSettings
from proxy.cache.row import CHUNK
from proxy.cache.sqlite import SqliteStore
from tests.proxy.cache.conftest import NOW
from tests.proxy.cache.stores import Octets, an_entry, sending
from tests.support.clock import FakeClock
from vault import Changes, NewKey, NewToken, Purge, Secret, Vault, open_vault
from vault.sealing import DataKey, KeyedSealer

ALIASES: Final = 12
ANSWERS: Final = 60
YEAR: Final = 400 * 86_400.0

Becomes = Mapping[str, str | None]
"""What things are worth once an act is done; None: they are gone."""


def say(**words: Any) -> None:
    """One line, in one piece."""
    os.write(1, json.dumps(words).encode() + b"\n")


async def acknowledged(number: int, becomes: Becomes, act: Awaitable[object]) -> None:
    """Announces an act, does it, and says so at once."""
    say(do=number, becomes=becomes)
    await act
    say(did=number, becomes=becomes)


class Keys:
    """Adds, replaces, rotates and removes keys, issues and revokes tokens, rotates the master."""

    def __init__(self, vault: Vault, seed: int, held: set[str]) -> None:
        self._vault = vault
        self._chance = random.Random(seed)
        self._seed = seed
        self._held = held
        self._issued: dict[str, str] = {}

    async def step(self, number: int) -> None:
        """Something that is possible now."""
        alias = f"a{self._chance.randrange(ALIASES)}"
        kind = self._chance.choices(("key", "issue", "revoke", "master"), (60, 20, 15, 5))[0]
        if kind == "issue" or (kind == "revoke" and not self._issued):
            await self._issue(number)
        elif kind == "revoke":
            name = self._chance.choice(sorted(self._issued))
            becomes = {f"token {self._issued.pop(name)}": None}
            await acknowledged(number, becomes, self._vault.revoke_token("default", name))
        elif kind == "master":
            reseal = self._chance.random() < 0.3
            await acknowledged(number, {}, self._vault.rotate_master(reseal=reseal))
        elif alias in self._held:
            await self._change(number, alias)
        else:
            self._held.add(alias)
            value = f"sk-{alias}-{self._seed}-{number}"
            put = self._vault.put_key(key(alias, value))
            await acknowledged(number, {f"key {alias}": value}, put)

    async def _issue(self, number: int) -> None:
        name = f"t{self._seed}-{number}"
        _, text = await self._vault.issue_token(NewToken("default", name))
        say(did=number, becomes={f"token {text}": "good"})
        self._issued[name] = text

    async def _change(self, number: int, alias: str) -> None:
        value = f"sk-{alias}-{self._seed}-{number}"
        kind = self._chance.choice(("remove", "rotate", "replace"))
        if kind == "remove":
            self._held.discard(alias)
            gone = self._vault.remove_key("default", "openai", alias)
            await acknowledged(number, {f"key {alias}": None}, gone)
            return
        if kind == "rotate":
            act: Awaitable[object] = self._vault.rotate_key(
                "default", "openai", alias, {"key": Secret(value.encode())}
            )
        else:
            act = self._vault.apply(Changes((key(alias, value),)), replace=True)
        await acknowledged(number, {f"key {alias}": value}, act)


def key(alias: str, value: str) -> NewKey:
    """A key whose value tells which one it is."""
    return NewKey("default", "openai", alias, {"key": Secret(value.encode())})


async def change_vault(data: Path, seed: int) -> None:
    """Without end."""
    began = perf_counter()
    vault = await open_vault(data, {}, FakeClock(), actor="attack")
    held = {record.ref.alias for record in await vault.list_keys()}
    say(ready=perf_counter() - began)
    keys = Keys(vault, seed, held)
    for number in count():
        await keys.step(number)


def the_store(data: Path, clock: FakeClock) -> SqliteStore:
    """The cache of a data directory, always under one data key."""
    sealer = KeyedSealer(DataKey(b"12345678", "cache", b"k" * 32), {})
    return SqliteStore(data / "cache.db", sealer, clock, CacheSettings())


def body_of(value: str) -> bytes:
    """The octets of one answer: its words over and over, as many as they say."""
    size = int(value.rsplit(" ", 1)[1])
    return (value.encode() * (size // len(value) + 1))[:size]


def service_of(name: str) -> str:
    """Half of the answers are of either."""
    return f"s{int(name.split()[1]) % 2}"


class Answers:
    """Stores answers, many together or large ones, and purges those of a service."""

    def __init__(self, store: SqliteStore, seed: int, clock: FakeClock) -> None:
        self._store = store
        self._chance = random.Random(seed)
        self._seed = seed
        self._clock = clock

    async def step(self, number: int) -> None:
        """One purge, or some answers."""
        self._clock.advance(1)
        if self._chance.random() < 0.1:
            await self._purge(number)
            return
        many = self._chance.choice((1, 4, 20))
        names = self._chance.sample(range(ANSWERS), many)
        numbers = (number * 100 + place for place in range(many))
        await asyncio.gather(*map(self._put, numbers, names))

    async def _put(self, number: int, answer: int) -> None:
        name = f"answer {answer}"
        size = 2 * CHUNK + 7 if self._chance.random() < 0.03 else self._chance.randrange(3000)
        value = f"{answer} {self._seed}-{number} {size}"
        now = self._clock.now()
        times = {"requested_at": now, "made_at": now, "expires_at": now + YEAR}
        entry = an_entry(name.encode(), size=size, service=service_of(name), **times)
        put = self._store.put(entry, sending(), Octets(body_of(value)))
        await acknowledged(number, {name: value}, put)

    async def _purge(self, number: int) -> None:
        service = self._chance.choice(("s0", "s1"))
        names = (f"answer {answer}" for answer in range(ANSWERS))
        gone = {name: None for name in names if service_of(name) == service}
        purge = self._store.purge(Purge(self._clock.now(), "t", service))
        await acknowledged(number, gone, purge)


async def fill_cache(data: Path, seed: int) -> None:
    """Without end. The time goes on from life to life."""
    began = perf_counter()
    clock = FakeClock(NOW + seed * 1000.0)
    store = the_store(data, clock)
    await store.start()
    say(ready=perf_counter() - began)
    answers = Answers(store, seed, clock)
    for number in count():
        await answers.step(number)


ACTS: Final[Mapping[str, Callable[[Path, int], Awaitable[None]]]] = {
    "vault": change_vault,
    "cache": fill_cache,
}


async def live(act: str, data: Path, seed: int) -> None:
    """One worker's life."""
    await ACTS[act](data, seed)


def main() -> None:
    """One worker after the other; says when one has died."""
    for line in sys.stdin:
        act, data, seed = line.split()
        worker = os.fork()
        if not worker:
            try:
                asyncio.run(live(act, Path(data), int(seed)))
            except BaseException as error:
                say(failed=repr(error))
            finally:
                os._exit(1)
        say(worker=worker)
        os.waitpid(worker, 0)
        say(over=worker)


if __name__ == "__main__":
    main()
