"""Rotating the master key and re-sealing; killed anywhere, it goes on."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import NoReturn

import pytest

from tests.vault.conftest import Opener
from tests.vault.killing import Killed
from tests.vault.words import FIRST, SECOND, named, new_key, open_vault, rows
from vault import (
    Changes,
    MasterKeyMissing,
    Rotation,
    Secret,
    StoreUnavailable,
    Unopenable,
    Vault,
    keyrows,
)
from vault import rotation as rotation_room
from vault.keyring import MasterKey, MasterKeys, words_of_file
from vault.mastersource import MasterKeySource


def masters(data: Path) -> list[str]:
    keys = MasterKeys.parse(words_of_file((data / "master.key").read_text()), "here")
    return [key.id for key in (keys.current, *keys.retired)]


def wrapped_by(data: Path) -> set[str]:
    found = rows(data, "SELECT master_id FROM data_keys UNION SELECT master_id FROM vault_state")
    return {master for (master,) in found}


def data_keys(data: Path, purpose: str = "keys") -> set[str]:
    return {key for (key,) in rows(data, "SELECT id FROM data_keys WHERE purpose = ?", purpose)}


async def test_a_new_master_wraps_the_same_data_keys(
    vault: Vault, data: Path, opener: Opener
) -> None:
    """Keys, tokens and what the cache sealed survive; the old master opens nothing any more."""
    await vault.put_key(new_key())
    sealed = (await vault.sealer("cache-bodies")).seal(b"body", b"row")
    before, kept = masters(data), data_keys(data)
    old_file = (data / "master.key").read_bytes()
    done = await vault.rotate_master()
    assert done == Rotation(str(data / "master.key"), rewrapped=3)
    assert len(masters(data)) == 1
    assert masters(data) != before
    assert wrapped_by(data) == set(masters(data))
    assert data_keys(data) == kept
    again = await opener()
    assert await again.open_key(named()) == {"key": Secret(FIRST)}
    assert (await again.sealer("cache-bodies")).open(sealed, b"row") == b"body"
    (data / "master.key").write_bytes(old_file)
    with pytest.raises(MasterKeyMissing, match="does not fit"):
        await opener()


async def test_reseal_renews_every_row(vault: Vault, data: Path, opener: Opener) -> None:
    """Under a fresh data key; the one before is dropped."""
    await vault.apply(Changes(tuple(new_key(alias=f"a{n}") for n in range(5))))
    await vault.rotate_key("default", "openai", "a0", {"key": Secret(SECOND)})
    old, sealed = data_keys(data), rows(data, "SELECT sealed FROM key_versions")
    done = await vault.rotate_master(reseal=True)
    assert (done.rewrapped, done.resealed) == (2, 5)
    assert len(data_keys(data)) == 1
    assert not data_keys(data) & old
    fresh = rows(data, "SELECT sealed FROM key_versions WHERE sealed IS NOT NULL")
    assert not set(fresh) & set(sealed)
    for one in (vault, await opener()):
        assert await one.open_key(named("a0")) == {"key": Secret(SECOND)}
        assert await one.open_key(named("a4")) == {"key": Secret(FIRST)}
        assert len(await one.recognise(FIRST)) == 5


async def test_a_running_server_goes_on(vault: Vault, data: Path, opener: Opener) -> None:
    """It meets the new data key with the new master, and makes keys of its own under it."""
    ref = (await vault.put_key(new_key())).ref
    server = await opener()
    await server.open_key(ref)
    await vault.rotate_master(reseal=True)
    assert await server.refresh()
    assert await server.open_key(ref) == {"key": Secret(FIRST)}
    await server.put_key(new_key(SECOND, alias="b"))
    await server.hasher("cache-keys")
    assert wrapped_by(data) == set(masters(data))
    again = await opener()
    assert await again.open_key(named("b")) == {"key": Secret(SECOND)}


async def test_a_server_that_read_the_old_file_wraps_with_the_new_key(
    vault: Vault, data: Path, opener: Opener
) -> None:
    """The database says which master key wraps, not the memory of a process."""
    server = await opener()
    await vault.rotate_master()
    sealed = (await server.sealer("cache-bodies")).seal(b"body", b"row")
    again = await opener()
    assert (await again.sealer("cache-bodies")).open(sealed, b"row") == b"body"


@pytest.mark.parametrize("writes", [1, 2])
async def test_killed_between_file_and_database_it_resumes(
    vault: Vault, data: Path, opener: Opener, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """After the file has both keys, or after the database is re-wrapped: both open, both go on."""
    await vault.put_key(new_key())
    real, count = MasterKeySource.write, []

    def write(self: MasterKeySource, keys: MasterKeys) -> None:
        count.append(keys)
        if writes == 2 and len(count) == 2:
            raise Killed
        real(self, keys)
        if writes == 1:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(MasterKeySource, "write", write)
        with pytest.raises(Killed):
            await vault.rotate_master()
    assert len(masters(data)) == 2
    assert await (await opener()).open_key(named()) == {"key": Secret(FIRST)}
    await (await opener()).hasher("cache-keys")
    fresh = masters(data)[0]
    done = await (await opener()).rotate_master()
    assert (done.resumed, done.rewrapped) == (True, 3 if writes == 1 else 0)
    assert (masters(data), wrapped_by(data)) == ([fresh], {fresh})
    assert await (await opener()).open_key(named()) == {"key": Secret(FIRST)}


@pytest.mark.parametrize("step", range(4))
async def test_killed_while_resealing_it_resumes(
    vault: Vault, data: Path, opener: Opener, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Before, between and after batches: every row opens, and the next run finishes."""
    await vault.apply(Changes(tuple(new_key(alias=f"a{n}") for n in range(3))))
    monkeypatch.setattr(rotation_room, "_BATCH", 1)
    real, count = keyrows.sealed_otherwise, []

    async def batch(*args):
        count.append(args)
        if len(count) == step + 1:
            raise Killed
        return await real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(keyrows, "sealed_otherwise", batch)
        with pytest.raises(Killed):
            await vault.rotate_master(reseal=True)
    assert len(data_keys(data)) == 2
    middle = await opener()
    for number in range(3):
        assert await middle.open_key(named(f"a{number}")) == {"key": Secret(FIRST)}
    await middle.put_key(new_key(SECOND, alias="late"))
    master = masters(data)
    done = await (await opener()).rotate_master()
    assert (done.resumed, done.rewrapped, done.resealed) == (True, 0, 3 - step)
    assert (masters(data), len(data_keys(data))) == (master, 1)
    last = await opener()
    assert [len(await last.open_key(key.ref)) for key in await last.list_keys()] == [1] * 4


async def test_a_damaged_row_stops_resealing_by_name(vault: Vault, data: Path) -> None:
    """Nothing is lost; once it is removed, the rest goes on."""
    for alias in ("a", "b"):
        await vault.put_key(new_key(alias=alias))
    rows(data, "UPDATE key_versions SET sealed = substr(sealed, 1, 50) WHERE alias = 'a'")
    with pytest.raises(Unopenable, match="key openai/a of tenant default, version 1, does not"):
        await vault.rotate_master(reseal=True)
    assert await vault.open_key(named("b")) == {"key": Secret(FIRST)}
    await vault.remove_key("default", "openai", "a")
    assert (await vault.rotate_master()).resealed == 1


async def test_an_outside_source_is_rotated_by_its_owner(data: Path, opener: Opener) -> None:
    """Add the new key first, `master rotate`, remove the old one; nothing to do is said as zero."""
    old, new = (data / "master.key").read_text().split()[-1], MasterKey.random().text()
    (data / "master.key").unlink()
    before = await opener({"KEYRELAY_MASTER_KEY": old})
    await before.put_key(new_key())
    assert await before.rotate_master() == Rotation("KEYRELAY_MASTER_KEY")
    both = await opener({"KEYRELAY_MASTER_KEY": f"{new},{old}"})
    await both.hasher("cache-keys")
    assert wrapped_by(data) == {MasterKey.parse(old).id}
    assert await both.rotate_master() == Rotation("KEYRELAY_MASTER_KEY", rewrapped=3)
    assert await both.rotate_master() == Rotation("KEYRELAY_MASTER_KEY")
    after = await opener({"KEYRELAY_MASTER_KEY": new})
    assert await after.open_key(named()) == {"key": Secret(FIRST)}
    assert not (data / "master.key").exists()
    done = await after.rotate_master(reseal=True)
    assert (done.resumed, done.rewrapped, done.resealed) == (False, 0, 1)


async def test_a_process_without_the_new_key_says_which_one_it_needs(
    data: Path, opener: Opener
) -> None:
    """Where the outside source of a running process does not have it yet."""
    old, new = (data / "master.key").read_text().split()[-1], MasterKey.random().text()
    before = await opener({"KEYRELAY_MASTER_KEY": old})
    await (await opener({"KEYRELAY_MASTER_KEY": f"{new},{old}"})).rotate_master()
    with pytest.raises(MasterKeyMissing, match=f"with id {MasterKey.parse(new).id}"):
        await before.sealer("cache-bodies")


async def test_a_master_key_file_that_vanished_stops_the_rotation(vault: Vault, data: Path) -> None:
    """Before anything was changed."""
    before = wrapped_by(data)
    (data / "master.key").unlink()
    with pytest.raises(MasterKeyMissing):
        await vault.rotate_master()
    assert wrapped_by(data) == before


@pytest.mark.parametrize("step", ["locked", "write"])
async def test_a_disk_that_refuses_the_master_key_is_one_sentence(
    vault: Vault, opener: Opener, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Full or read-only: nothing is lost, and once it is well the rotation goes on."""
    await vault.put_key(new_key())

    def refuse(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(MasterKeySource, step, refuse)
        with pytest.raises(StoreUnavailable, match=r"no space left on device.*master rotate again"):
            await vault.rotate_master()
    assert await vault.open_key(named()) == {"key": Secret(FIRST)}
    await vault.rotate_master()
    assert await (await opener()).open_key(named()) == {"key": Secret(FIRST)}


async def test_rotations_wait_for_one_another(vault: Vault, opener: Opener, data: Path) -> None:
    """Two at once are two after another."""
    other = await opener()
    await asyncio.gather(vault.rotate_master(), other.rotate_master(reseal=True))
    assert wrapped_by(data) == set(masters(data))
    assert len(masters(data)) == 1


async def test_the_outside_file_is_never_rewritten(data: Path, tmp_path: Path, clock) -> None:
    """It belongs to whoever named it."""
    outside = tmp_path / "outside"
    (data / "master.key").rename(outside)
    text = outside.read_bytes()
    vault = await open_vault(data, {"KEYRELAY_MASTER_KEY_FILE": str(outside)}, clock)
    assert (await vault.rotate_master()).rewrapped == 0
    await vault.close()
    assert outside.read_bytes() == text
