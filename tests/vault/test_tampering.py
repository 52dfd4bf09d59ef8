"""A sealed value that was changed, moved or replayed does not open, and its row is named."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
from sqlalchemy import select, update

from tests.vault.words import FIRST, SECOND, named, new_key, rows, touch_generation
from vault import KeyRef, NewKey, NewToken, NotThere, Secret, Unopenable, Vault, keyrows
from vault.tables import KEY_VERSIONS, TOKENS

BOUND = ("sealed", "recognised_by", "masked", "hosts", "fingerprint")
KEYS = (
    new_key(b"sk-one-0123456789abcdef", "default"),
    new_key(b"sk-two-0123456789abcdeg", "b"),
    new_key(b"sk-thr-0123456789abcdeh", "default", "cohere"),
    NewKey(
        "other", "openai", "default", {"token": Secret(b"sk-fou-0123456789abcdei")}, "token", ("h",)
    ),
)


async def changed(vault: Vault, data: Path) -> None:
    touch_generation(data)
    await vault.refresh()


def name_of(ref: KeyRef) -> str:
    name = f"key {ref.service}/{ref.alias} of tenant {ref.tenant}, version {ref.version}"
    return f"{name}, does not open"


async def test_swapped_values_do_not_open(vault: Vault, data: Path) -> None:
    """All pairs of rows, each bound column by itself and all of them together."""
    refs = [(await vault.put_key(new)).ref for new in KEYS]
    where = "tenant = ? AND service = ? AND alias = ?"
    for one, other in permutations(refs, 2):
        for columns in (*((column,) for column in BOUND), BOUND):
            names = ", ".join(columns)
            mine, theirs = ((ref.tenant, ref.service, ref.alias) for ref in (one, other))
            (before,) = rows(data, f"SELECT {names} FROM key_versions WHERE {where}", *mine)
            (foreign,) = rows(data, f"SELECT {names} FROM key_versions WHERE {where}", *theirs)
            if before == foreign:
                continue
            put = f"UPDATE key_versions SET {', '.join(f'{c} = ?' for c in columns)} WHERE {where}"
            rows(data, put, *foreign, *mine)
            await changed(vault, data)
            with pytest.raises(Unopenable, match=name_of(one)):
                await vault.open_key(one)
            rows(data, put, *before, *mine)
    await changed(vault, data)
    assert [await vault.open_key(ref) for ref in refs] == [new.credential for new in KEYS]


@pytest.mark.parametrize("readded", [False, True])
async def test_an_older_version_under_the_same_name_does_not_open(
    vault: Vault, data: Path, readded: bool
) -> None:
    """Its octets in the place of the newer ones; after a rotation, and after remove and add."""
    await vault.put_key(new_key())
    columns = ("sealed", "data_key", "recognised_by", "masked", "hosts", "fingerprint")
    (old,) = rows(data, f"SELECT {', '.join(columns)} FROM key_versions")
    if readded:
        await vault.remove_key("default", "openai", "default")
        ref = (await vault.put_key(new_key(SECOND))).ref
    else:
        ref = (await vault.rotate_key("default", "openai", "default", {"key": Secret(SECOND)})).ref
    put = ", ".join(f"{column} = ?" for column in columns)
    rows(data, f"UPDATE key_versions SET {put} WHERE version = 2", *old)
    await changed(vault, data)
    with pytest.raises(Unopenable, match=name_of(ref)):
        await vault.open_key(ref)


async def test_an_older_row_as_a_whole_does_not_open(vault: Vault, data: Path) -> None:
    """Put back with its own version in the place of the newer one."""
    await vault.put_key(new_key())
    (old,) = rows(data, "SELECT * FROM key_versions")
    ref = (await vault.rotate_key("default", "openai", "default", {"key": Secret(SECOND)})).ref
    rows(data, "DELETE FROM key_versions")
    rows(data, f"INSERT INTO key_versions VALUES ({', '.join('?' * len(old))})", *old)
    await changed(vault, data)
    with pytest.raises(Unopenable, match=name_of(ref)):
        await vault.open_key(ref)
    assert [key.masked for key in await vault.list_keys()] == ["…"]


async def test_every_octet_of_a_sealed_value_counts(vault: Vault, data: Path) -> None:
    """One flipped bit anywhere, the named data key included."""
    ref = (await vault.put_key(new_key())).ref
    ((sealed,),) = rows(data, "SELECT sealed FROM key_versions")
    (row,) = [row async for row in _stored(vault)]
    for place in range(len(sealed)):
        flipped = sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]
        rows(data, "UPDATE key_versions SET sealed = ?", flipped)
        await changed(vault, data)
        with pytest.raises(Unopenable, match=name_of(ref)):
            await vault.open_key(ref)
    assert "sealed" not in repr(row)


async def _stored(vault: Vault):
    async with vault._core.reading() as connection:
        for row in await connection.execute(keyrows.in_order(None)):
            yield keyrows.stored(row)


async def test_a_value_under_a_data_key_of_another_purpose_does_not_open(
    vault: Vault, data: Path
) -> None:
    """Even one that the vault itself has sealed."""
    ref = (await vault.put_key(new_key())).ref
    sealed = (await vault.sealer("cache-bodies")).seal(b"{}", b"")
    rows(data, "UPDATE key_versions SET sealed = ?", sealed)
    await changed(vault, data)
    with pytest.raises(Unopenable, match=name_of(ref)):
        await vault.open_key(ref)


@pytest.mark.parametrize("hosts", ['["evil.example"]', "5", "[", "[]x"])
async def test_a_rotation_does_not_inherit_changed_hosts(
    vault: Vault, data: Path, hosts: str
) -> None:
    """Or the next value would go where the changed row says; the remedy is to add it anew."""
    ref = (await vault.put_key(new_key())).ref
    rows(data, "UPDATE key_versions SET hosts = ?", hosts)
    await changed(vault, data)
    assert len(await vault.list_keys()) == 1
    with pytest.raises(Unopenable, match=name_of(ref)):
        await vault.rotate_key("default", "openai", "default", {"key": Secret(SECOND)})
    await vault.remove_key("default", "openai", "default")
    ref = (await vault.put_key(new_key())).ref
    assert await vault.open_key(ref) == {"key": Secret(FIRST)}


async def test_one_broken_row_does_not_break_another(vault: Vault, data: Path) -> None:
    """Everything else goes on."""
    await vault.put_key(new_key())
    await vault.put_key(new_key(alias="b"))
    rows(data, "UPDATE key_versions SET sealed = NULL WHERE alias = 'b'")
    await changed(vault, data)
    assert await vault.open_key(named()) == {"key": Secret(FIRST)}
    with pytest.raises(Unopenable):
        await vault.open_key(named("b"))
    with pytest.raises(NotThere):
        await vault.open_key(named("c"))


async def test_exchanged_data_keys_are_refused(vault: Vault, data: Path, opener) -> None:
    """A wrapped data key is bound to its purpose and its id."""
    rows(
        data,
        "UPDATE data_keys SET wrapped ="
        " (SELECT d.wrapped FROM data_keys d WHERE d.purpose <> data_keys.purpose)",
    )
    with pytest.raises(Unopenable, match=r"data key .* does not open"):
        await opener()


@pytest.mark.parametrize("where", ["the end", "the name of its data key"])
async def test_what_was_written_as_registered_and_does_not_open_is_named(
    vault: Vault, where: str
) -> None:
    """The second line, behind the register: the seal of each value."""
    ref = (await vault.put_key(new_key())).ref
    async with vault._core.changing() as change:
        found = await change.connection.execute(select(KEY_VERSIONS.c.sealed))
        sealed = bytearray(found.scalar_one())
        sealed[-1 if where == "the end" else 4] ^= 1
        await change.book.write(update(KEY_VERSIONS).values(sealed=bytes(sealed)))
    with pytest.raises(Unopenable, match=name_of(ref)):
        await vault.open_key(ref)


async def test_a_token_that_was_written_as_registered_and_can_t_be_read_is_named(
    vault: Vault,
) -> None:
    """By its id and tenant; nothing of it is guessed."""
    token, text = await vault.issue_token(NewToken("default", "ada"))
    async with vault._core.changing() as change:
        await change.book.write(update(TOKENS).values(services="{"))
    with pytest.raises(Unopenable, match=f"token {token.id} of tenant default is damaged"):
        await vault.verify_token(text.encode())
