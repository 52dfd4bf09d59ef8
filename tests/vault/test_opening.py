"""Making a vault, and opening one."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.support.clock import FakeClock
from tests.vault.conftest import Opener
from tests.vault.words import named, new_key, rows
from tests.vault.words import open_vault as opened
from vault import (
    Invalid,
    MasterKeyMissing,
    NotThere,
    StoreUnavailable,
    Unopenable,
    Vault,
    open_vault,
)
from vault.keyring import MasterKey


async def make(data: Path, environ: dict[str, str] | None = None) -> None:
    vault = await open_vault(data, environ or {}, FakeClock(), create=True)
    await vault.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_init_makes_private_files(tmp_path: Path) -> None:
    """The directory 0700, key and database 0600."""
    data = tmp_path / "deep" / "data"
    await make(data)
    assert mode(data) == 0o700
    assert {path.name: mode(path) for path in data.iterdir()} == {
        "master.key": 0o600,
        "vault.anchor": 0o600,
        "vault.db": 0o600,
    }


async def test_init_again_changes_nothing(data: Path) -> None:
    """It is idempotent when both are there."""
    before = [(path.name, path.read_bytes()) for path in sorted(data.iterdir())]
    await make(data)
    assert [(path.name, path.read_bytes()) for path in sorted(data.iterdir())] == before


async def test_where_nothing_is_the_remedy_is_init(tmp_path: Path, clock: FakeClock) -> None:
    """Only init, serve and import make a data directory."""
    key = {"KEYRELAY_MASTER_KEY": MasterKey.random().text()}
    for environ in ({}, key):
        with pytest.raises(NotThere, match="make one with: keyrelay init"):
            await open_vault(tmp_path / "data", environ, clock)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("lost", ["master.key", "vault.db"])
async def test_one_without_the_other_stops(
    data: Path, clock: FakeClock, lost: str, create: bool
) -> None:
    """Naming both paths; nothing is made in the place of what is missing."""
    (data / lost).unlink()
    with pytest.raises(MasterKeyMissing, match="is missing") as error:
        await open_vault(data, {}, clock, create=create)
    assert str(data / "master.key") in str(error.value)
    assert str(data / "vault.db") in str(error.value)
    assert not (data / lost).exists()


@pytest.mark.parametrize("create", [True, False])
async def test_an_emptied_database_is_a_lost_one(
    data: Path, clock: FakeClock, create: bool
) -> None:
    """Not a vault without keys: it would look as if nothing were wrong."""
    (data / "vault.db").write_bytes(b"")
    with pytest.raises(MasterKeyMissing, match="the database is missing; restore it"):
        await open_vault(data, {}, clock, create=create)
    assert (data / "vault.db").read_bytes() == b""


async def test_before_an_init_has_ended_the_remedy_is_init(data: Path, clock: FakeClock) -> None:
    """Wherever it was killed: there is no backup of what never was."""
    (data / "master.key").unlink()
    with pytest.raises(MasterKeyMissing, match="or run keyrelay init again"):
        await open_vault(data, {}, clock)
    (data / "vault.db").write_bytes(b"")
    with pytest.raises(NotThere, match="make one with: keyrelay init"):
        await open_vault(data, {}, clock)


async def test_an_init_that_was_killed_is_finished(data: Path, opener: Opener) -> None:
    """A database without data keys needs no particular master key."""
    for table in ("data_keys", "audit", "register"):
        rows(data, f"DELETE FROM {table}")
    gone = ("master_id", "seal", "audit_rows", "audit_link", "register")
    rows(data, f"UPDATE vault_state SET {', '.join(f'{column} = NULL' for column in gone)}")
    (data / "vault.anchor").unlink()
    (data / "master.key").unlink()
    await make(data)
    vault = await opener()
    await vault.put_key(new_key())
    assert await vault.open_key(named()) == new_key().credential


async def test_another_master_key_does_not_fit(data: Path, clock: FakeClock) -> None:
    """Wherever it comes from; the message names the id of the one that is needed."""
    (needed,) = rows(data, "SELECT master_id FROM vault_state")[0]
    environ = {"KEYRELAY_MASTER_KEY": MasterKey.random().text()}
    with pytest.raises(MasterKeyMissing, match=f"does not fit this database.* id {needed}"):
        await open_vault(data, environ, clock)


async def test_a_changed_data_key_is_named(data: Path, clock: FakeClock) -> None:
    """It can't be opened, and nothing that it sealed."""
    rows(data, "UPDATE data_keys SET wrapped = zeroblob(60) WHERE purpose = 'keys'")
    with pytest.raises(Unopenable, match=r"data key [0-9a-f]{16} \(keys\) does not open"):
        await open_vault(data, {}, clock)


async def test_an_outside_key_makes_a_database_without_a_key_file(
    tmp_path: Path, clock: FakeClock
) -> None:
    """The master key stays outside."""
    data = tmp_path / "data"
    environ = {"KEYRELAY_MASTER_KEY": MasterKey.random().text()}
    await make(data, environ)
    await make(data, environ)
    assert {path.name for path in data.iterdir()} == {"vault.anchor", "vault.db"}
    vault = await open_vault(data, environ, clock)
    await vault.put_key(new_key())
    await vault.close()
    with pytest.raises(MasterKeyMissing, match=r"master\.key.*vault\.db.*the key is missing"):
        await open_vault(data, {}, clock, create=True)


async def test_a_url_puts_the_database_elsewhere(tmp_path: Path, clock: FakeClock) -> None:
    """The URL decides; the key stays in the data directory."""
    url = f"sqlite+aiosqlite:///{tmp_path}/other.db"
    vault = await open_vault(tmp_path / "data", {}, clock, url=url, create=True)
    await vault.close()
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"master.key", "vault.anchor"}
    assert mode(tmp_path / "other.db") == 0o600


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "sqlite:///plain.db",
        "what+ever://x",
        "sqlite+aiosqlite://",
        "mysql+aiomysql://h/x",
    ],
)
async def test_a_url_that_cannot_be_used_is_refused(
    tmp_path: Path, clock: FakeClock, url: str
) -> None:
    """Unknown, synchronous, not installed, or only in memory."""
    with pytest.raises(Invalid, match="try postgresql"):
        await open_vault(tmp_path / "data", {}, clock, url=url, create=True)


async def test_a_directory_that_cannot_be_made_is_unavailable(
    tmp_path: Path, clock: FakeClock
) -> None:
    """The reason is the system's."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="not a directory"):
        await open_vault(tmp_path / "file" / "data", {}, clock, create=True)


async def test_a_file_that_is_no_database_is_unavailable(data: Path, clock: FakeClock) -> None:
    """Rather than overwritten."""
    (data / "vault.db").write_bytes(b"something else" * 1000)
    with pytest.raises(StoreUnavailable, match=r"file is not a database.*; restore it"):
        await open_vault(data, {}, clock)


async def test_the_master_key_is_never_in_the_database(data: Path, vault: Vault) -> None:
    """Nor is any data key or value as plain octets."""
    await vault.put_key(new_key())
    octets = (data / "vault.db").read_bytes()
    secrets = [(data / "master.key").read_text().split()[-1].encode(), b"sk-first"]
    assert not [secret for secret in secrets if secret in octets]


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_a_directory_that_takes_no_key_is_no_fault_of_the_server(
    engine: str, nothing_yet: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk here is not to be looked for there."""

    def refuse(_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("vault.mastersource.MasterKeySource.create", refuse)
    with pytest.raises(StoreUnavailable, match=r"the data directory .* \(no space left on device"):
        await opened(nothing_yet, {}, clock, create=True)
