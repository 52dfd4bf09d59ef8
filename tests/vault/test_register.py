"""The register: a row that was changed, put back or taken out is named, and never served."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select

from tests.support.clock import FakeClock
from tests.vault.words import (
    FIRST,
    SECOND,
    backend,
    hasher_of,
    named,
    new_key,
    open_vault,
    rows,
    touch_generation,
    unmark,
    url_of,
)
from vault import NewToken, Purge, RolledBack, Secret, Unopenable, Vault, VaultError
from vault.chain import Head, seal_of
from vault.register import entry_of, name_of, page_of
from vault.tables import TOKENS

NAME = "openai/default of tenant default"


async def changed(vault: Vault, data: Path) -> None:
    touch_generation(data)
    await vault.refresh()


def copy(data: Path, *tables: str) -> dict[str, list[tuple]]:
    return {table: rows(data, f"SELECT * FROM {table}") for table in tables}


def put_back(data: Path, old: dict[str, list[tuple]]) -> None:
    for table, found in old.items():
        rows(data, f"DELETE FROM {table}")
        for row in found:
            rows(data, f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", *row)


@pytest.mark.parametrize("engine", ["sqlite"])  # the other one takes nothing else
@pytest.mark.parametrize("column", ["live", "is_default"])
@pytest.mark.parametrize("value", [3, "q", b"\x01", 1.5])
async def test_what_is_neither_true_nor_false_is_named(
    vault: Vault, data: Path, column: str, value: object
) -> None:
    """SQLite takes it for false, where Python takes it for true: a key would be gone unseen."""
    await vault.put_key(new_key())
    rows(data, f"UPDATE keys SET {column} = ?", value)
    await changed(vault, data)
    assert f"key {NAME} is not as it was written last" in await vault.examine()
    with pytest.raises(VaultError, match="openai"):
        await vault.open_key(named())


async def test_an_older_key_with_its_own_name_is_not_served(vault: Vault, data: Path) -> None:
    """Both of its rows, as they fitted each other. It is mended by making it anew."""
    ref = (await vault.put_key(new_key())).ref
    old = copy(data, "keys", "key_versions")
    await vault.rotate_key("default", "openai", "default", {"key": Secret(SECOND)})
    assert await vault.examine() == []
    put_back(data, old)
    await changed(vault, data)
    with pytest.raises(Unopenable, match=f"key {NAME}"):
        await vault.open_key(ref)
    with pytest.raises(Unopenable, match=f"key {NAME}"):
        await vault.recognise(FIRST)
    assert await vault.examine() == [
        f"key {NAME}, version 1 is not as it was written last",
        f"key {NAME} is not as it was written last",
        f"key {NAME}, version 2 is missing",
    ]
    await vault.remove_key("default", "openai", "default")
    ref = (await vault.put_key(new_key())).ref
    assert await vault.open_key(ref) == {"key": Secret(FIRST)}


async def test_a_revoked_token_stays_revoked(vault: Vault, data: Path) -> None:
    """Its older row is refused by its name, until it is revoked anew."""
    token, text = await vault.issue_token(NewToken("default", "ada"))
    old = copy(data, "tokens")
    await vault.revoke_token("default", "ada")
    put_back(data, old)
    await changed(vault, data)
    for ask in (vault.verify_token(text.encode()), vault.good_token(token.id)):
        with pytest.raises(Unopenable, match=f"token {token.id} of tenant default"):
            await ask
    with pytest.raises(Unopenable, match=f"token {token.id} of tenant default"):
        await vault.change_token("default", "ada", {"budget": 5})
    await vault.revoke_token("default", "ada")
    assert await vault.verify_token(text.encode()) is None
    assert await vault.examine() == []


async def test_an_older_release_widens_no_token_that_says_more(vault: Vault) -> None:
    """It reads the columns that it knows: the row is not as it was written, and refused. One that
    says nothing there is good."""
    await vault.issue_token(NewToken("default", "ada", calls=5))
    await vault.issue_token(NewToken("default", "bob"))
    older = [column for column in TOKENS.c if column.name != "calls"]
    async with vault._core.reading() as connection:
        register = await vault._core.register(connection)
        found = list(await connection.execute(select(*older)))
    known = {row.name: register.knows(entry_of("tokens", dict(row._mapping))) for row in found}
    assert known == {"ada": False, "bob": True}


@pytest.mark.parametrize("value", [None, 6, 5.5, "five", b"5"])
async def test_a_changed_number_of_calls_is_noticed(
    vault: Vault, data: Path, value: object
) -> None:
    """More of them, or any number."""
    if not isinstance(value, int | None) and url_of(data):
        pytest.skip("the database itself refuses it")
    token, text = await vault.issue_token(NewToken("default", "ada", calls=5))
    rows(data, "UPDATE tokens SET calls = ?", value)
    await changed(vault, data)
    assert await vault.examine() == [
        f"token {token.id} of tenant default is not as it was written last"
    ]
    with pytest.raises(Unopenable, match=f"token {token.id} of tenant default"):
        await vault.verify_token(text.encode())


async def test_rows_that_somebody_adds_are_not_served(vault: Vault, data: Path) -> None:
    """A token and a backend need no sealed value; the register doesn't know them."""
    token, text = await vault.issue_token(NewToken("default", "ada"))
    await vault.add_backend(backend())
    rows(data, "UPDATE tokens SET role = 'admin'")
    rows(data, "INSERT INTO backends VALUES (7, 'default', 'openai', 'http', 'evil.test', 80, '/')")
    await changed(vault, data)
    with pytest.raises(Unopenable, match=token.id):
        await vault.verify_token(text.encode())
    assert (await vault.holdings("default")).backends == (backend(),)
    assert "backend number 7 of tenant default is not as it was written last" in (
        await vault.examine()
    )


@pytest.mark.parametrize(
    "act",
    [
        "DELETE FROM keys WHERE is_default",
        "UPDATE keys SET live = false WHERE is_default",
        pytest.param("UPDATE keys SET live = 'x' WHERE is_default", marks=pytest.mark.on_file),
        "UPDATE keys SET is_default = NOT is_default",
    ],
)
async def test_no_other_key_takes_the_place_of_a_hidden_default(
    vault: Vault, data: Path, act: str
) -> None:
    """The first key of a service is the sound default, or one that does not open."""
    await vault.put_key(new_key())
    await vault.put_key(new_key(SECOND, alias="b"))
    await vault.put_key(new_key(alias="removed"))
    await vault.remove_key("default", "openai", "removed")
    rows(data, act)
    await changed(vault, data)
    first = (await vault.holdings("default")).keys["openai"][0]
    assert first.alias != "removed"
    with pytest.raises(VaultError, match=r"key openai/(default|b)"):
        await vault.open_key(first)


async def test_a_name_without_its_row_can_be_added_again(vault: Vault, data: Path) -> None:
    """Its versions that somebody has left go with it."""
    await vault.put_key(new_key())
    rows(data, "DELETE FROM keys")
    await changed(vault, data)
    ref = (await vault.put_key(new_key(SECOND))).ref
    assert await vault.open_key(ref) == {"key": Secret(SECOND)}
    assert await vault.examine() == []


async def test_a_purge_that_was_changed_counts_as_of_now(
    vault: Vault, data: Path, clock: FakeClock
) -> None:
    """Nobody knows until when: what is kept must go. One that is missing too."""
    await vault.purge(Purge(clock.now(), "default"))
    await vault.purge(Purge(clock.now(), None, "openai"))
    rows(data, "UPDATE purges SET at = 5 WHERE tenant = 'default'")
    rows(data, "DELETE FROM purges WHERE service = 'openai'")
    clock.advance(50)
    await changed(vault, data)
    now = clock.now()
    assert set(await vault.purges()) == {Purge(now, "default"), Purge(now, None, "openai")}


async def test_a_page_that_was_put_back_names_itself(vault: Vault, data: Path) -> None:
    """Whoever opens the vault then can't know of its rows, and serves none of them."""
    query = "SELECT purpose, id FROM data_keys"
    without = {page_of(name_of("data_keys", *row)) for row in rows(data, query)}
    alias = next(one for one in "abcdefghi" if not without & pages_of(one))
    await vault.put_key(new_key(alias=alias))
    old = copy(data, "keys", "key_versions", "register")
    await vault.rotate_key("default", "openai", alias, {"key": Secret(SECOND)})
    put_back(data, old)
    anew = await open_vault(data, {}, FakeClock())
    with pytest.raises(Unopenable, match=f"key openai/{alias} of tenant default"):
        await anew.open_key(named(alias))
    assert [one for one in await anew.examine() if one.startswith("page ")]
    with pytest.raises(Unopenable, match=r"page \d+ of the vault's register .*accept-rollback"):
        await anew.remove_key("default", "openai", alias)
    await anew.close()


def pages_of(alias: str) -> set[int]:
    name = ("default", "openai", alias)
    versions = {page_of(name_of("key_versions", *name, version)) for version in (1, 2)}
    return versions | {page_of(name_of("keys", *name))}


@pytest.mark.parametrize("act", ["UPDATE register SET entries = 'x'", "DELETE FROM register"])
async def test_pages_can_be_accepted_as_the_rows_stand(vault: Vault, data: Path, act: str) -> None:
    """By the word that accepts an older database, and nothing else."""
    await vault.put_key(new_key())
    rows(data, act)
    with pytest.raises(Unopenable, match="data key"):
        await open_vault(data, {}, FakeClock())
    anew = await open_vault(data, {}, FakeClock(), accept_rollback=True)
    assert await anew.examine() == []
    assert await anew.open_key(named()) == {"key": Secret(FIRST)}
    await anew.close()


@pytest.mark.parametrize("register", ["NULL", "'x'", "zeroblob(8192)"])
async def test_the_root_is_authentic(vault: Vault, data: Path, register: str) -> None:
    """For one that is running, and for one that opens."""
    await vault.put_key(new_key())
    rows(data, f"UPDATE vault_state SET register = {register}")
    vault._core.forget()
    with pytest.raises(RolledBack, match="row vault_state"):
        await vault.open_key(named())
    with pytest.raises(RolledBack, match="row vault_state"):
        await open_vault(data, {}, FakeClock())


@pytest.mark.on_file
async def test_a_vault_of_a_release_without_a_register_is_taken_over(
    vault: Vault, data: Path
) -> None:
    """As its rows stand; the audit log says so, and its old seal is good for nothing then."""
    await vault.put_key(new_key())
    unmark(data)
    query = "SELECT generation, audit_rows, audit_link FROM vault_state"
    ((generation, number, link),) = rows(data, query)
    seal = seal_of(hasher_of(data), generation, Head(number, link))
    rows(data, "UPDATE vault_state SET register = NULL, seal = ?", seal)
    rows(data, "DELETE FROM register")
    old = (data / "vault.db").read_bytes()
    anew = await open_vault(data, {}, FakeClock())
    assert await anew.open_key(named()) == {"key": Secret(FIRST)}
    assert await anew.examine() == []
    [entry] = await anew.audit(1)
    assert (entry.action, entry.subject) == ("register begin", "2 earlier rows")
    await anew.close()
    (data / "vault.db").write_bytes(old)
    with pytest.raises(RolledBack, match="is an older one"):
        await open_vault(data, {}, FakeClock())


async def test_no_old_data_key_is_sealed_with_again(vault: Vault, data: Path) -> None:
    """One that was left behind by `--reseal`, put back as the newest."""
    await vault.put_key(new_key())
    query = "SELECT * FROM data_keys WHERE purpose = 'keys'"
    await vault.rotate_master()
    ((key_id, purpose, _, *rest),) = rows(data, query)
    await vault.rotate_master(reseal=True)
    rows(data, "INSERT INTO data_keys VALUES (?, ?, 9, ?, ?, ?)", key_id, purpose, *rest)
    with pytest.raises(Unopenable, match=f"data key {key_id}"):
        await vault.put_key(new_key(alias="b"))


async def test_what_a_change_touches_must_be_sound(vault: Vault, data: Path) -> None:
    """Or it would be good from then on, as somebody has left it."""
    await vault.put_key(new_key())
    await vault.put_key(new_key(alias="b"))
    rows(data, "UPDATE keys SET first_version = 7 WHERE alias = 'b'")
    with pytest.raises(Unopenable, match="key openai/b of tenant default"):
        await vault.make_default("default", "openai", "b")
