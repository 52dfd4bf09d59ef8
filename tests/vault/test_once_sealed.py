"""A vault that once was sealed never passes for one of a release that did not seal."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import update

from tests.support.clock import FakeClock
from tests.vault.words import FIRST, hasher_of, master_of, named, new_key, rows, unmark
from vault import NewToken, RolledBack, Secret, Unopenable, Vault, open_vault
from vault.chain import Head, seal_of
from vault.datakeys import FINGERPRINTS, SEALED
from vault.tables import DATA_KEYS

UNSEAL = "UPDATE vault_state SET seal = NULL, audit_rows = NULL, audit_link = NULL, register = NULL"
ACCEPT = "go on with: keyrelay serve --accept-rollback"
OWN = "SELECT id, wrapped FROM data_keys WHERE purpose = 'fingerprints'"


def mark_in(data: Path) -> bytes:
    ((key_id, wrapped),) = rows(data, OWN)
    return master_of(data).unwrap(bytes.fromhex(key_id), FINGERPRINTS, wrapped, (b"", SEALED)).mark


def age(data: Path) -> None:
    """The whole vault as a release left it that neither sealed nor registered."""
    unmark(data)
    rows(data, UNSEAL)
    rows(data, "DELETE FROM register")
    (data / "vault.anchor").unlink()


async def token_of(data: Path, **options: bool) -> tuple[Vault, str]:
    vault = await open_vault(data, {}, FakeClock(), **options)
    _, text = await vault.issue_token(NewToken("default", f"t{vault.generation}"))
    return vault, text


@pytest.mark.parametrize("outside", [False, True])
async def test_a_sealed_vault_without_seal_and_anchor_does_not_open(
    data: Path, tmp_path: Path, outside: bool
) -> None:
    """Or a row that somebody puts there meanwhile, an admin's token, would count as ours."""
    environ = {"KEYRELAY_ANCHOR_FILE": str(tmp_path / "anchor")} if outside else {}
    vault, text = await token_of(data)
    await vault.close()
    rows(data, UNSEAL)
    rows(data, "DELETE FROM register")
    rows(data, "UPDATE tokens SET role = 'admin'")
    (data / "vault.anchor").unlink()
    with pytest.raises(RolledBack, match=f"row vault_state .*{ACCEPT}"):
        await open_vault(data, environ, FakeClock())
    assert rows(data, "SELECT seal FROM vault_state") == [(None,)]
    vault = await open_vault(data, environ, FakeClock(), accept_rollback=True)
    assert await vault.verify_token(text.encode()) is not None
    await vault.close()


@pytest.mark.parametrize("chained", [False, True])
async def test_a_seal_of_a_release_without_a_register_is_no_way_in_either(
    vault: Vault, data: Path, chained: bool
) -> None:
    """One that somebody has kept from then, put back beside a key that says more."""
    await vault.put_key(new_key())
    query = "SELECT generation, audit_rows, audit_link FROM vault_state"
    ((generation, number, link),) = rows(data, query)
    head = Head(number, link) if chained else None
    rows(data, UNSEAL)
    rows(data, "UPDATE vault_state SET seal = ?", seal_of(hasher_of(data), generation, head))
    if chained:
        rows(data, "UPDATE vault_state SET audit_rows = ?, audit_link = ?", number, link)
    (data / "vault.anchor").unlink()
    with pytest.raises(RolledBack, match=f"row vault_state .*{ACCEPT}"):
        await open_vault(data, {}, FakeClock())


async def test_a_new_vault_is_marked_with_its_first_seal(data: Path) -> None:
    """In one transaction: there is no moment between the two."""
    assert mark_in(data) == SEALED


async def test_a_vault_of_an_older_release_is_taken_in_once(vault: Vault, data: Path) -> None:
    """As it stands; from then on its key says that it is sealed, and all rows are known."""
    await vault.put_key(new_key())
    age(data)
    again = await open_vault(data, {}, FakeClock())
    assert mark_in(data) == SEALED
    assert await again.open_key(named()) == {"key": Secret(FIRST)}
    assert await again.examine() == []
    await again.close()
    rows(data, UNSEAL)
    (data / "vault.anchor").unlink()
    with pytest.raises(RolledBack, match="row vault_state"):
        await open_vault(data, {}, FakeClock())


async def test_the_mark_is_not_to_be_taken_off_behind_the_register(
    vault: Vault, data: Path
) -> None:
    """An older wrapping that somebody has kept is a row that was put back."""
    await vault.put_key(new_key())
    unmark(data)
    for accept in (False, True):
        with pytest.raises(Unopenable, match="data key"):
            await open_vault(data, {}, FakeClock(), accept_rollback=accept)


async def test_marking_registers_the_new_wrapping(vault: Vault, data: Path) -> None:
    """The vault of a release that sealed and registered, and had no mark."""
    await vault.put_key(new_key())
    ((_, sealed),) = rows(data, OWN)
    unmark(data)
    ((key_id, wrapped),) = rows(data, OWN)
    rows(data, "UPDATE data_keys SET wrapped = ? WHERE id = ?", sealed, key_id)
    async with vault._core.changing() as change:
        mine = update(DATA_KEYS).where(DATA_KEYS.c.id == key_id)
        await change.book.write(mine.values(wrapped=wrapped))
    before = (data / "vault.db").read_bytes()
    again = await open_vault(data, {}, FakeClock())
    assert mark_in(data) == SEALED
    assert await again.examine() == []
    assert [entry.action for entry in await again.audit(1)] == ["key add"]
    await again.close()
    (data / "vault.db").write_bytes(before)
    with pytest.raises(RolledBack, match="is an older one"):
        await open_vault(data, {}, FakeClock())


async def test_the_mark_outlives_a_rotation(vault: Vault, data: Path) -> None:
    """By whatever process, and however long ago that has read the key."""
    for reseal in (False, True):
        await vault.rotate_master(reseal=reseal)
        assert mark_in(data) == SEALED
    again = await open_vault(data, {}, FakeClock())
    assert await again.examine() == []
    await again.close()


async def test_who_comes_second_finds_it_marked(vault: Vault, data: Path) -> None:
    """Two processes take in an older vault; what the second finds must be sealed by then."""
    core = vault._core
    hasher = await core.generation_hasher()
    before = rows(data, "SELECT * FROM vault_state")
    assert (await core.begin(hasher)).seal == before[0][3]
    assert rows(data, "SELECT * FROM vault_state") == before
    rows(data, UNSEAL)
    with pytest.raises(RolledBack, match="row vault_state"):
        await core.begin(hasher)


@pytest.mark.parametrize("act", ["DELETE FROM data_keys", "DELETE FROM data_keys WHERE number > 0"])
async def test_a_vault_that_holds_anything_gets_no_new_key_for_its_seal(
    data: Path, act: str
) -> None:
    """Without its own it would seal what somebody has left there."""
    vault, _ = await token_of(data)
    await vault.close()
    rows(data, act)
    rows(data, UNSEAL)
    (data / "vault.anchor").unlink()
    for accept in (False, True):
        with pytest.raises(Unopenable, match=r"data key .*fingerprints.* is gone.*from a backup"):
            await open_vault(data, {}, FakeClock(), accept_rollback=accept)
