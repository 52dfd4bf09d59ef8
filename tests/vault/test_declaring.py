"""What the configuration file declares."""

from __future__ import annotations

import pytest

from tests.support.clock import FakeClock
from tests.vault.conftest import Opener
from tests.vault.words import FIRST, SECOND, backend, named, new_key
from vault import (
    Backend,
    Changes,
    Declared,
    Invalid,
    KeyRecord,
    KeyRef,
    NewToken,
    NotThere,
    Secret,
    Vault,
)


async def test_a_declared_key_works_like_a_stored_one(vault: Vault, clock: FakeClock) -> None:
    """Held, listed as the file's, opened and recognised; nothing of it is written."""
    before = vault.generation
    await vault.declare([new_key()], [backend()])
    ref = KeyRef("default", "openai", "default", 0, default=True, declared=True)
    held = await vault.holdings("default")
    assert held.keys == {"openai": (ref,)}
    assert held.backends == (Backend("default", "openai", backend().binding, declared=True),)
    assert await vault.list_keys() == [KeyRecord(ref, "…cdef", clock.now())]
    assert await vault.list_backends("default") == list(held.backends)
    assert await vault.open_key(ref) == {"key": Secret(FIRST)}
    assert [one.ref for one in await vault.recognise(FIRST)] == [ref]
    assert await vault.list_tenants() == ["default"]
    assert vault.generation == before


async def test_what_is_gone_from_the_file_is_gone(vault: Vault) -> None:
    """Each declaration replaces the one before, and what was looked up under it."""
    await vault.declare([new_key()], [backend()])
    (ref,) = (await vault.holdings("default")).keys["openai"]
    assert await vault.recognise(FIRST) != ()
    await vault.declare([], [])
    assert (await vault.holdings("default")).keys == {}
    assert await vault.recognise(FIRST) == ()
    with pytest.raises(NotThere, match="declares no key openai/default any more"):
        await vault.open_key(ref)


async def test_the_first_declared_key_is_the_default(vault: Vault) -> None:
    """Before any that is stored; the others follow."""
    await vault.put_key(new_key(alias="stored"))
    await vault.put_key(new_key(alias="stored", service="cohere"))
    await vault.declare([new_key(alias="b"), new_key(alias="a"), new_key(tenant="other")], [])
    keys = (await vault.holdings("default")).keys
    assert [(ref.alias, ref.default) for ref in keys["openai"]] == [
        ("b", True),
        ("a", False),
        ("stored", False),
    ]
    assert [(ref.alias, ref.default) for ref in keys["cohere"]] == [("stored", True)]
    assert [key.ref.default for key in await vault.list_keys("default")] == [
        True,
        False,
        True,
        False,
    ]
    with pytest.raises(Declared, match="the default key of openai"):
        await vault.make_default("default", "openai", "stored")


async def test_the_same_name_in_vault_and_file_is_refused(vault: Vault) -> None:
    """Keys and backends; and what was declared before stays."""
    await vault.declare([new_key(alias="fine")], [])
    await vault.put_key(new_key())
    await vault.add_backend(backend())
    with pytest.raises(Declared, match="key openai/default of tenant default is in the config"):
        await vault.declare([new_key(SECOND)], [])
    with pytest.raises(
        Declared, match=r"backend http://.* is in the configuration file and in the"
    ):
        await vault.declare([], [backend()])
    assert [key.ref.alias for key in await vault.list_keys()] == ["fine", "default"]


async def test_the_same_name_twice_in_the_file_is_refused(vault: Vault) -> None:
    """And what is no key or place."""
    with pytest.raises(Declared):
        await vault.declare([new_key(), new_key(SECOND)], [])
    with pytest.raises(Declared):
        await vault.declare([], [backend(), backend()])
    with pytest.raises(Invalid):
        await vault.declare([new_key(b"")], [])
    with pytest.raises(Invalid):
        await vault.declare([], [backend(service="A")])


async def test_declared_things_are_not_changed_here(vault: Vault) -> None:
    """Every verb that would is refused, an import too."""
    await vault.declare([new_key()], [backend()])
    acts = [
        vault.put_key(new_key(SECOND)),
        vault.rotate_key("default", "openai", "default", {"key": Secret(SECOND)}),
        vault.remove_key("default", "openai", "default"),
        vault.make_default("default", "openai", "default"),
        vault.add_backend(backend()),
        vault.remove_backend(backend()),
        vault.remove_tenant("default"),
        vault.apply(Changes((new_key(SECOND),))),
        vault.apply(Changes((), (backend(),)), replace=True),
    ]
    for act in acts:
        with pytest.raises(Declared, match="declare"):
            await act
    await vault.issue_token(NewToken("default", "ada"))


async def test_a_name_that_another_process_adds_shows_once(vault: Vault, opener: Opener) -> None:
    """The file's key goes on to be used until the next start refuses."""
    await vault.declare([new_key()], [])
    other = await opener()
    await other.put_key(new_key(SECOND))
    assert await vault.refresh()
    (ref,) = (await vault.holdings("default")).keys["openai"]
    assert await vault.open_key(ref) == {"key": Secret(FIRST)}
    assert [key.ref for key in await vault.list_keys()] == [ref]
    assert await other.open_key(named()) == {"key": Secret(SECOND)}
