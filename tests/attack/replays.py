"""Somebody puts old rows of the vault's database back, alone and together, or takes rows out.

A vault lives through changes, and after each all its tables are copied. Then each row that was once
another is put back: alone, with all of its key, and with the page of the register that fitted it. A
running vault and one that is opened afterwards must name what is wrong, and serve nothing of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.attack.rows import Intruder, Verdict
from tests.support.clock import FakeClock
from vault import (
    Backend,
    Binding,
    Credential,
    KeyRef,
    NewKey,
    NewToken,
    Purge,
    Secret,
    Token,
    TokenChange,
    Vault,
    VaultError,
    open_vault,
)

TABLES = ("keys", "key_versions", "tokens", "backends", "purges", "data_keys")
ALL = (*TABLES, "register")
NAMED = ("data key", "master key", "the anchor")  # by which a start is refused: all hangs on these
Row = tuple[Any, ...]
Picture = dict[str, list[Row]]
Put = list[tuple[str, Row]]


class Truth(NamedTuple):
    """What may be served at the end, and nothing else."""

    keys: dict[str, Credential]
    tokens: dict[str, Token | None]
    backends: frozenset[Backend]
    purges: tuple[Purge, ...]


def key(alias: str, value: str) -> NewKey:
    return NewKey("default", "openai", alias, {"key": Secret(f"sk-{value}-0123456789".encode())})


def backend(port: int) -> Backend:
    return Backend("default", "openai", Binding("http", "127.0.0.1", port, "/"))


class Life:
    """A vault with a past. `past`: what each table held after each change."""

    def __init__(self, vault: Vault, clock: FakeClock, intruder: Intruder) -> None:
        self.vault = vault
        self.clock = clock
        self.intruder = intruder
        self.past: list[Picture] = []
        self.texts: list[str] = []

    async def live(self) -> Truth:
        """The changes, one after the other."""
        async for _ in self._changes():
            self.past.append(self.intruder.picture(*ALL))
            self.clock.advance(10)
        tokens = {text: await self.vault.verify_token(text.encode()) for text in self.texts}
        keys = {alias: key(alias, value).credential for alias, value in (("a", "a3"), ("c", "c1"))}
        held = await self.vault.holdings("default")
        assert [ref.alias for ref in held.keys["openai"]] == ["c", "a"]
        assert list(tokens.values()).count(None) == 1
        return Truth(keys, tokens, frozenset(held.backends), await self.vault.purges())

    async def _changes(self) -> AsyncIterator[object]:
        vault = self.vault
        for alias in "abc":
            yield await vault.put_key(key(alias, f"{alias}1"))
        yield await vault.rotate_master(reseal=True)
        for value in ("a2", "a3"):
            yield await vault.rotate_key("default", "openai", "a", key("a", value).credential)
        yield await vault.make_default("default", "openai", "c")
        yield await vault.remove_key("default", "openai", "b")
        for name in ("ada", "eve"):
            _, text = await vault.issue_token(NewToken("default", name))
            self.texts.append(text)
            yield text
        yield await vault.revoke_token("default", "ada")
        bounds = TokenChange(hosts=("api.openai.com",), calls=500)
        yield await vault.change_token("default", "eve", bounds)
        for port in (9001, 9002):
            yield await vault.add_backend(backend(port))
        yield await vault.remove_backend(backend(9001))
        for _ in range(2):
            yield await vault.purge(Purge(self.clock.now(), "default"))


def puts(past: list[Picture]) -> Iterator[tuple[str, Put]]:
    """What was once another: each row alone, then with the rest of its picture's table."""
    now = past[-1]
    done = set[tuple[str, Row]]()
    for number, picture in enumerate(past[:-1]):
        for table in TABLES:
            old = [row for row in picture[table] if row not in now[table]]
            for row in old:
                if (table, row) not in done:
                    done.add((table, row))
                    yield f"{table} row {row[0]} of change {number}", [(table, row)]
    for number, picture in enumerate(past[:-1]):
        other = {t: [(t, row) for row in picture[t] if row not in now[t]] for t in ALL}
        both, pages = other["keys"] + other["key_versions"], other["register"]
        together = {
            "all key rows": both,
            "all key rows and the register": both + pages,
            "all rows and the register": [one for rows in other.values() for one in rows],
        }
        for name, rows in together.items():
            if rows:
                yield f"{name} of change {number}", rows


class Replay:
    """Puts rows back and asks for everything."""

    def __init__(self, data: Path, life: Life, truth: Truth) -> None:
        self.data = data
        self.life = life
        self.truth = truth
        self.verdict = Verdict()

    async def put(self, act: str, rows: Put) -> None:
        """Old rows, in the place of what has their number now."""
        for table, row in rows:
            self.life.intruder.run(f"DELETE FROM {table} WHERE rowid = ?", row[0])
        for table, row in rows:
            names = ", ".join(("rowid", *self.life.intruder.columns(table)))
            marks = ", ".join("?" * len(row))
            put = f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({marks})"
            self.life.intruder.run(put, *row)
        await self.judge(act)

    async def take_out(self, table: str, number: int) -> None:
        """A row that is there."""
        self.life.intruder.run(f"DELETE FROM {table} WHERE rowid = ?", number)
        await self.judge(f"row {number} of {table} taken out")

    async def judge(self, act: str) -> None:
        """Asks the running vault and a new one; then all is as it was."""
        self.life.vault._core.forget()
        faults = await self._faults(self.life.vault)
        try:
            vault = await open_vault(self.data, {}, FakeClock(self.life.clock.now()))
        except VaultError as error:
            faults += [] if any(word in str(error) for word in NAMED) else [f"unnamed: {error}"]
        else:
            faults += await self._faults(vault)
            await vault.close()
        self.verdict.faults += [f"{act}: {fault}" for fault in faults[:1]]
        self.verdict.refused += not faults
        self.life.intruder.restore(self.life.past[-1])

    async def _faults(self, vault: Vault) -> list[str]:
        asked = [self._keys(vault), self._tokens(vault), self._rest(vault)]
        faults = [fault for one in asked async for fault in one]
        return faults if await vault.examine() else [*faults, "nobody noticed"]

    async def _keys(self, vault: Vault) -> AsyncIterator[str]:
        for alias in "abc":
            try:
                found = await vault.open_key(KeyRef("default", "openai", alias, 1))
            except VaultError as error:
                if f"key openai/{alias}" not in str(error):
                    yield f"unnamed: {error}"
            else:
                if found != self.truth.keys.get(alias):
                    yield f"WRONG KEY SERVED of {alias}"
        refs = (await vault.holdings("default")).keys.get("openai", ())
        try:
            found = await vault.open_key(refs[0]) if refs else None
        except VaultError:
            return
        if found is not None and found != self.truth.keys["c"]:
            yield "ANOTHER DEFAULT SERVED"

    async def _tokens(self, vault: Vault) -> AsyncIterator[str]:
        for text, token in self.truth.tokens.items():
            try:
                found = await vault.verify_token(text.encode())
            except VaultError as error:
                if text[3:15] not in str(error):
                    yield f"unnamed: {error}"
            else:
                if found not in (None, token):
                    yield "ANOTHER TOKEN SERVED"

    async def _rest(self, vault: Vault) -> AsyncIterator[str]:
        if not set((await vault.holdings("default")).backends) <= self.truth.backends:
            yield "ANOTHER BACKEND SERVED"
        ends = {(purge.tenant, purge.service): purge.at for purge in await vault.purges()}
        for purge in self.truth.purges:
            if ends.get((purge.tenant, purge.service), 0) < purge.at:
                yield "PURGED ANSWERS SERVED"


async def replay(data: Path, every: int = 1) -> Verdict:
    """All of it, or one act in so many, on a data directory with a new vault."""
    clock = FakeClock()
    vault = await open_vault(data, {}, clock)
    life = Life(vault, clock, Intruder(data))
    siege = Replay(data, life, await life.live())
    try:
        for act, rows in list(puts(life.past))[::every]:
            await siege.put(act, rows)
        there = [(table, row[0]) for table in TABLES for row in life.past[-1][table]]
        for table, number in there[::every]:
            await siege.take_out(table, number)
    finally:
        life.intruder.close()
        await vault.close()
    return siege.verdict
