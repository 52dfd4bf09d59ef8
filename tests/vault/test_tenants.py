"""Tenants as a whole, purges, and the audit log."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, NoReturn

import pytest

from tests.support.clock import FakeClock
from tests.vault.conftest import Opener
from tests.vault.words import FIRST, SECOND, backend, new_key
from vault import (
    AuditEntry,
    Changes,
    Invalid,
    NewToken,
    NotThere,
    Purge,
    Secret,
    StoreUnavailable,
    Vault,
)
from vault import held as module


async def test_a_tenant_exists_by_having_something(vault: Vault) -> None:
    """A key, a token or a backend."""
    assert await vault.list_tenants() == []
    await vault.put_key(new_key(tenant="c"))
    await vault.issue_token(NewToken("b", "ada"))
    await vault.add_backend(backend(tenant="a"))
    assert await vault.list_tenants() == ["a", "b", "c"]


async def test_removing_a_tenant_ends_all_that_it_has(vault: Vault, clock: FakeClock) -> None:
    """Keys, tokens, backends, and its stored answers; nobody else's."""
    _, text = await vault.issue_token(NewToken("gone", "ada"))
    for tenant in ("gone", "stays"):
        await vault.put_key(new_key(tenant=tenant))
        await vault.add_backend(backend(tenant=tenant))
    await vault.remove_tenant("gone")
    assert await vault.list_tenants() == ["stays"]
    assert await vault.verify_token(text.encode()) is None
    assert [one.ref.tenant for one in await vault.recognise(FIRST)] == ["stays"]
    assert (await vault.holdings("gone")).keys == {}
    assert await vault.purges() == (Purge(clock.now(), "gone"),)
    with pytest.raises(NotThere, match="there is no tenant 'gone'"):
        await vault.remove_tenant("gone")


async def test_many_keys_are_looked_up_once_for_all_who_ask(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a change, off the event loop; one who goes meanwhile ends it for nobody."""
    monkeypatch.setattr(module, "_FEW", 2)
    await vault.apply(Changes(tuple(new_key(alias=f"a{n}") for n in range(4))))
    await vault.remove_key("default", "openai", "a2")
    real, judged = module._ranked, []

    def ranked(*given: Any) -> Any:
        judged.append(threading.current_thread())
        return real(*given)

    monkeypatch.setattr(module, "_ranked", ranked)
    asking = [asyncio.create_task(vault.holdings("default")) for _ in range(5)]
    await asyncio.sleep(0)
    asking[0].cancel()
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert {id(one) for one in found[1:]} == {id(await vault.holdings("default"))}
    assert [key.alias for key in found[1].keys["openai"]] == ["a0", "a1", "a3"]
    assert [one is threading.main_thread() for one in judged] == [False]


async def test_one_failure_is_that_of_all_who_asked(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None waits for its own; the next one who asks tries again. One that was cancelled too."""
    await vault.put_key(new_key())
    with monkeypatch.context() as broken:
        broken.setattr(vault._core, "reading", unavailable)
        asked = [vault.holdings("default") for _ in range(3)]
        found = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(one) for one in found] == [StoreUnavailable] * 3
    assert found[0] is found[2]
    asking = asyncio.create_task(vault.holdings("default"))
    await asyncio.sleep(0)
    [looking] = vault._core.seen.looking.values()
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert list((await vault.holdings("default")).keys) == ["openai"]


def unavailable() -> NoReturn:
    raise StoreUnavailable("gone")


async def test_the_default_tenant_can_be_emptied_too(vault: Vault) -> None:
    """It is like any other."""
    await vault.put_key(new_key())
    await vault.remove_tenant("default")
    assert await vault.list_keys() == []


async def test_the_newest_purge_counts(vault: Vault, opener: Opener) -> None:
    """One for each tenant and service; durable, and seen by others."""
    other = await opener()
    assert await other.purges() == ()
    for purge in (
        Purge(20.0, "t", "openai"),
        Purge(10.0, "t", "openai"),
        Purge(5.0),
        Purge(7.0, None, "a"),
    ):
        await vault.purge(purge)
    assert await other.refresh()
    assert await other.purges() == (Purge(5.0), Purge(7.0, None, "a"), Purge(20.0, "t", "openai"))
    assert await other.purges() is await other.purges()


async def test_a_purge_is_for_names(vault: Vault) -> None:
    """Checked like any other."""
    with pytest.raises(Invalid):
        await vault.purge(Purge(1.0, "T"))


async def test_every_change_is_in_the_audit_log(opener: Opener, clock: FakeClock) -> None:
    """Who, when, what; newest first; in order; never a value."""
    vault = await opener(actor="ada")
    await vault.put_key(new_key())
    await vault.put_key(new_key(alias="b"))
    await vault.rotate_key("default", "openai", "default", {"key": Secret(SECOND)})
    await vault.make_default("default", "openai", "b")
    await vault.remove_key("default", "openai", "b")
    token, text = await vault.issue_token(NewToken("default", "lovelace"))
    await vault.revoke_token("default", token.id)
    await vault.add_backend(backend())
    await vault.remove_backend(backend())
    await vault.purge(Purge(1.0))
    await vault.purge(Purge(1.0, "default", "openai"))
    await vault.remove_tenant("default")
    await vault.hasher("cache-keys")
    entries = [one for one in await vault.audit() if one.actor == "ada"]
    assert [(one.action, one.tenant, one.subject) for one in reversed(entries)] == [
        ("key add", "default", "openai/default"),
        ("key add", "default", "openai/b"),
        ("key rotate", "default", "openai/default"),
        ("key default", "default", "openai/b"),
        ("key remove", "default", "openai/b"),
        ("key default", "default", "openai/default"),
        ("token issue", "default", f"lovelace ({token.id})"),
        ("token revoke", "default", f"lovelace ({token.id})"),
        ("backend add", "default", "openai http://127.0.0.1:9000/"),
        ("backend remove", "default", "openai http://127.0.0.1:9000/"),
        ("cache purge", "", "every service"),
        ("cache purge", "default", "openai"),
        ("tenant remove", "default", "default"),
        ("data-key make", "", "cache-keys"),
    ]
    assert await vault.audit(1) == [
        AuditEntry(clock.now(), "ada", "data-key make", "", "cache-keys")
    ]
    assert not [secret for secret in (FIRST.decode(), text[16:48]) if secret in repr(entries)]


async def test_another_actor_changes_the_same_vault(vault: Vault) -> None:
    """Each sees at once what the other did; the log tells them apart."""
    ada = vault.acting_as("token ada")
    before = vault.generation
    await ada.put_key(new_key())
    assert (vault.generation, ada.generation) == (before + 1, before + 1)
    assert list((await vault.holdings("default")).keys) == ["openai"]
    await vault.remove_key("default", "openai", "default")
    assert (await ada.holdings("default")).keys == {}
    actors = [one.actor for one in await vault.audit() if one.action.startswith("key ")]
    assert actors == ["cli", "token ada"]


async def test_the_log_is_read_by_tenant_and_in_parts(vault: Vault) -> None:
    """The newest first, numbered, each once."""
    for name in ("a", "b", "c"):
        await vault.issue_token(NewToken("one", name))
        await vault.issue_token(NewToken("two", name))
    first = await vault.audit(2, tenant="one")
    rest = await vault.audit(2, tenant="one", before=first[-1].number)
    subjects = [entry.subject[0] for entry in (*first, *rest)]
    assert subjects == ["c", "b", "a"]
    assert {entry.tenant for entry in (*first, *rest)} == {"one"}
    assert await vault.audit(2, tenant="none") == []


async def test_a_refused_change_leaves_no_trace(vault: Vault) -> None:
    """Neither in the log nor in the count of changes."""
    before = (vault.generation, await vault.audit())
    with pytest.raises(NotThere):
        await vault.remove_tenant("nobody")
    assert (vault.generation, await vault.audit()) == before
    assert not await vault.refresh()
