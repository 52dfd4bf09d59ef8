"""Of many keys only those that have changed are read and judged again, and nobody gains by it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vault.conftest import Opener
from tests.vault.test_register import changed
from tests.vault.words import SECOND, new_key, rows
from vault import Changes, KeyRef, NewToken, Secret, Unopenable, Vault, VaultError, held, keyrows
from vault.register import name_of, page_of

ALIASES = ("a", "b", "c", "d")
Act = Callable[[Vault], Awaitable[object]]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The aliases of the keys that were read, with four of them being many."""
    monkeypatch.setattr(held, "_FEW", 3)
    real, read = keyrows._stored, list[str]()

    def stored(*given: Any, **how: Any) -> Any:
        row = real(*given, **how)
        read.append(row.ref.alias)
        return row

    monkeypatch.setattr(keyrows, "_stored", stored)
    yield read


async def fill(vault: Vault) -> None:
    """A tenant with four keys and one that was removed."""
    await vault.apply(Changes(tuple(new_key(alias=alias) for alias in (*ALIASES, "gone"))))
    await vault.remove_key("default", "openai", "gone")
    assert [ref.alias for ref in await refs(vault)] == list(ALIASES)


async def refs(vault: Vault) -> tuple[KeyRef, ...]:
    return (await vault.holdings("default")).keys.get("openai", ())


ACTS: tuple[tuple[Act, int], ...] = (
    (lambda vault: vault.issue_token(NewToken("default", "ada")), 0),
    (lambda vault: vault.put_key(new_key(tenant="other")), 0),
    (lambda vault: vault.rotate_key("default", "openai", "c", {"key": Secret(SECOND)}), 1),
    (lambda vault: vault.put_key(new_key(alias="e")), 1),
    (lambda vault: vault.put_key(new_key(alias="gone")), 1),
    (lambda vault: vault.remove_key("default", "openai", "b"), 0),
    (lambda vault: vault.make_default("default", "openai", "d"), 2),
    (lambda vault: vault.remove_key("default", "openai", "d"), 1),
    (lambda vault: vault.rotate_master(reseal=True), 4),
)
"""What changes something, and how many keys are to be read then."""


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_look_up_reads_what_has_changed_and_no_more(
    vault: Vault, opener: Opener, read: list[str], elsewhere: bool
) -> None:
    """Whoever changed it; and it finds what a vault finds that has just been opened."""
    await fill(vault)
    other = await opener() if elsewhere else vault
    for act, many in ACTS:
        await act(other)
        await vault.refresh()
        read.clear()
        found = await vault.holdings("default")
        assert len(read) == many
        assert found == await (await opener()).holdings("default")


async def test_nothing_is_read_after_many_changes_of_others(vault: Vault, read: list[str]) -> None:
    """However often, and whether anybody asked meanwhile."""
    await fill(vault)
    read.clear()
    for number in range(6):
        await vault.issue_token(NewToken("default", f"n{number}"))
        if number % 2:
            await refs(vault)
    assert read == []


async def test_too_many_changes_are_read_as_a_whole(
    vault: Vault, opener: Opener, read: list[str]
) -> None:
    """As at the first time."""
    await fill(vault)
    for alias in ALIASES:
        await vault.rotate_key("default", "openai", alias, {"key": Secret(SECOND)})
    read.clear()
    assert await refs(vault) == await refs(await opener())
    assert read == [*ALIASES, *ALIASES]


HIDDEN = (
    "DELETE FROM keys WHERE alias = 'a'",
    "DELETE FROM key_versions WHERE alias = 'a'",
    "UPDATE keys SET live = false WHERE alias = 'a'",
    "UPDATE keys SET is_default = NOT is_default",
    "UPDATE key_versions SET hosts = '[\"evil.example\"]' WHERE alias = 'a'",
)


@pytest.mark.parametrize("engine", ["sqlite"])
@pytest.mark.parametrize("hide", HIDDEN)
async def test_whoever_hides_a_key_from_a_running_vault_has_it_refused(
    vault: Vault, data: Path, read: list[str], hide: str
) -> None:
    """It stands where it stood, and does not open; no other key takes its place."""
    await fill(vault)
    before = await refs(vault)
    rows(data, hide)
    await changed(vault, data)
    assert await refs(vault) == before
    with pytest.raises(VaultError, match="key openai/a"):
        await vault.open_key(before[0])


@pytest.mark.parametrize("engine", ["sqlite"])
@pytest.mark.parametrize("hide", HIDDEN)
async def test_a_key_that_is_changed_and_hidden_does_not_open(
    vault: Vault, opener: Opener, data: Path, read: list[str], hide: str
) -> None:
    """By whom the change is told, the row is judged: all are then."""
    await fill(vault)
    await (await opener()).rotate_key("default", "openai", "a", {"key": Secret(SECOND)})
    rows(data, hide)
    await vault.refresh()
    first = (await refs(vault))[0]
    with pytest.raises(VaultError, match=r"key openai/[ab]"):
        await vault.open_key(first)
    assert set(ALIASES) <= set(read)


async def test_a_removed_key_that_is_put_back_is_none(
    vault: Vault, opener: Opener, data: Path, read: list[str]
) -> None:
    """Nor one whose removal somebody takes back while it is told."""
    await fill(vault)
    await (await opener()).remove_key("default", "openai", "b")
    rows(data, "UPDATE keys SET live = true WHERE alias = 'b'")
    await vault.refresh()
    [odd] = [ref for ref in await refs(vault) if ref.alias == "b"]
    with pytest.raises(Unopenable, match="key openai/b"):
        await vault.open_key(odd)


async def test_a_page_that_cant_be_read_vouches_for_nothing(
    vault: Vault, opener: Opener, data: Path, read: list[str]
) -> None:
    """All keys are judged with every look-up until it can."""
    await fill(vault)
    own = [name_of("keys", "default", "openai", alias) for alias in (*ALIASES, "gone")]
    own += [name_of("key_versions", "default", "openai", alias, 1) for alias in ALIASES]
    other, page = await opener(), page_of(own[0])
    while page in set(map(page_of, own)):
        token, _ = await other.issue_token(NewToken("default", f"n{other.generation}"))
        page = page_of(name_of("tokens", "default", token.id))
    rows(data, "UPDATE register SET entries = 'x' WHERE page = ?", page)
    for _ in range(2):
        read.clear()
        await changed(vault, data)
        assert [ref.alias for ref in await refs(vault)] == list(ALIASES)
        assert sorted(read) == list(ALIASES)
