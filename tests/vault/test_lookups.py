"""What is held in memory: bounded, dropped at a change, never stale for longer than a refresh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.vault.conftest import Opener
from tests.vault.words import FIRST, SECOND, backend, named, new_key
from vault import NewToken, NotThere, Purge, Secret, Vault
from vault.lookups import Bounded


def test_the_oldest_is_forgotten_first() -> None:
    """What was asked for lately stays."""
    bounded: Bounded[str, int] = Bounded(2)
    bounded.put("a", 1)
    bounded.put("b", 2)
    assert bounded.get("a") == 1
    bounded.put("c", 3)
    assert [bounded.get(key) for key in "abc"] == [1, None, 3]
    assert len(bounded) == 2


async def test_a_look_up_asks_the_database_once(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until something changes."""
    _, text = await vault.issue_token(NewToken("default", "ada"))
    ref = (await vault.put_key(new_key())).ref
    acts: list[Callable[[], Awaitable[Any]]] = [
        lambda: vault.verify_token(text.encode()),
        lambda: vault.open_key(ref),
        lambda: vault.holdings("default"),
        lambda: vault.recognise(FIRST),
        lambda: vault.recognise(b"unknown"),
        vault.purges,
    ]
    first = [await act() for act in acts]

    def no_reading() -> None:
        raise AssertionError("the database was asked again")

    with monkeypatch.context() as patch:
        patch.setattr(vault._core.store, "reading", no_reading)
        assert [await act() for act in acts] == first
    await vault.purge(Purge(1.0))
    assert await vault.purges() == (Purge(1.0),)


async def test_every_change_of_another_process_is_seen_after_a_refresh(
    vault: Vault, opener: Opener
) -> None:
    """Keys, backends, tenants; and without a change nothing is dropped."""
    server = await opener()
    assert (await server.holdings("default")).keys == {}
    ref = (await vault.put_key(new_key())).ref
    assert (await server.holdings("default")).keys == {}
    assert await server.refresh()
    assert not await server.refresh()
    assert (await server.holdings("default")).keys == {"openai": (ref,)}
    assert await server.open_key(ref) == {"key": Secret(FIRST)}
    held = await server.holdings("default")
    assert await server.holdings("default") is held
    await vault.add_backend(backend())
    await vault.remove_key("default", "openai", "default")
    assert await server.refresh()
    assert (await server.holdings("default")).backends == (backend(),)
    with pytest.raises(NotThere):
        await server.open_key(ref)
    assert server.generation == vault.generation


class Gate:
    """Holds the first read of a vault after its rows were read and before they are used."""

    def __init__(self, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()
        self._real = vault._core.store.reading
        monkeypatch.setattr(vault._core.store, "reading", self.reading)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Any]:
        first = not self.reached.is_set()
        async with self._real() as connection:
            yield connection
        if first:
            self.reached.set()
            await self.opened.wait()


LOOKUPS: list[Callable[[Vault, str], Awaitable[Any]]] = [
    lambda vault, text: vault.verify_token(text.encode()),
    lambda vault, text: vault.holdings("default"),
    lambda vault, text: vault.recognise(FIRST),
    lambda vault, text: vault.open_key(named()),
    lambda vault, text: vault.purges(),
]


@pytest.mark.parametrize("look_up", LOOKUPS)
async def test_a_look_up_that_a_change_overtook_is_not_remembered(
    vault: Vault, opener: Opener, monkeypatch: pytest.MonkeyPatch, look_up
) -> None:
    """It began before the refresh and ended after it: its rows must not pass for fresh ones."""
    _, text = await vault.issue_token(NewToken("default", "ada"))
    await vault.put_key(new_key())
    server = await opener()
    gate = Gate(server, monkeypatch)
    stale = asyncio.create_task(look_up(server, text))
    await gate.reached.wait()
    await vault.rotate_key("default", "openai", "default", {"key": Secret(SECOND)})
    await vault.revoke_token("default", "ada")
    await vault.purge(Purge(1.0))
    assert await server.refresh()
    gate.opened.set()
    overtaken = await stale
    fresh = await look_up(server, text)
    assert fresh == await look_up(await opener(), text)
    assert fresh != overtaken


async def test_two_changes_at_once_leave_the_later_count(vault: Vault) -> None:
    """Whichever returns last."""
    await asyncio.gather(*(vault.put_key(new_key(alias=f"a{n}")) for n in range(8)))
    assert not await vault.refresh()
    assert len(await vault.list_keys()) == 8
