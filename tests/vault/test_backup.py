"""A backup is what is needed to use the vault, sealed to a passphrase; a restore gives nothing up
that it was not told to."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import stat
from pathlib import Path

import pytest

from tests.support.clock import FakeClock
from tests.vault.conftest import Opener
from tests.vault.killing import restore_killed
from tests.vault.words import FIRST, SECOND, new_key, rows
from vault import (
    AlreadyExists,
    BackupMade,
    Changes,
    Invalid,
    MasterKeyMissing,
    Restored,
    SchemaTooNew,
    Secret,
    StoreUnavailable,
    Unopenable,
    Vault,
    open_vault,
    passphrase,
    restore_vault,
)
from vault.archive import Archive

WORDS = Secret(b"correct horse battery")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passphrase, "_COST", 10)


async def opened_at(data: Path, environ: dict[str, str] | None = None) -> list[bytes]:
    """The keys of a vault; an older one, or another than the anchor knows, is accepted."""
    vault = await open_vault(data, environ or {}, FakeClock(), accept_rollback=True)
    try:
        found = [await vault.open_key(key.ref) for key in await vault.list_keys()]
        return [parts["key"].reveal() for parts in found]
    finally:
        await vault.close()


async def test_a_backup_is_restored_elsewhere(vault: Vault, data: Path, tmp_path: Path) -> None:
    """With its master key, and private."""
    await vault.put_key(new_key())
    file = tmp_path / "backup"
    made = await vault.backup(file, WORDS, ["keys.yaml", "services.yaml"])
    assert made == BackupMade(("vault.db", "master.key"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    there = tmp_path / "elsewhere"
    done = await restore_vault(there, file.read_bytes(), WORDS)
    assert done == Restored(FakeClock().now(), made.files)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in there.iterdir()} == {
        "vault.db": 0o600,
        "master.key": 0o600,
    }
    assert await opened_at(there) == [FIRST]
    assert [entry.action for entry in await vault.audit(1)] == ["vault backup"]


async def test_nothing_in_it_can_be_read(vault: Vault, data: Path, tmp_path: Path) -> None:
    """Neither names nor keys nor the master key."""
    await vault.put_key(new_key(service="cohere"))
    await vault.backup(tmp_path / "backup", WORDS, [])
    octets = (tmp_path / "backup").read_bytes()
    key = (data / "master.key").read_text().split()[-1].encode()
    assert not [word for word in (b"cohere", b"SQLite", FIRST, key) if word in octets]


async def test_any_change_and_another_passphrase_are_refused(vault: Vault, tmp_path: Path) -> None:
    """And then nothing is written."""
    await vault.backup(tmp_path / "backup", WORDS, [])
    octets = (tmp_path / "backup").read_bytes()
    there = tmp_path / "elsewhere"
    for place in {*range(60), *range(60, len(octets), 997), len(octets) - 1}:
        changed = octets[:place] + bytes([octets[place] ^ 1]) + octets[place + 1 :]
        with pytest.raises(Unopenable):
            await restore_vault(there, changed, WORDS)
    for wrong, words in ((octets[:-1], WORDS), (octets[:20], WORDS), (octets, Secret(b"other"))):
        with pytest.raises(Unopenable, match="the backup does not open"):
            await restore_vault(there, wrong, words)
    assert not there.exists()


async def test_files_beside_the_vault_go_along(vault: Vault, data: Path, tmp_path: Path) -> None:
    """Those that are there."""
    (data / "keys.yaml").write_text("services: {}\n")
    made = await vault.backup(tmp_path / "backup", WORDS, ["keys.yaml", "services.yaml"])
    assert made.files == ("vault.db", "master.key", "keys.yaml")
    await restore_vault(tmp_path / "there", (tmp_path / "backup").read_bytes(), WORDS)
    assert (tmp_path / "there" / "keys.yaml").read_text() == "services: {}\n"


async def test_an_outside_master_key_stays_outside(data: Path, opener: Opener, tmp_path: Path):
    """It is said to be missing, and needed after the restore."""
    environ = {"KEYRELAY_MASTER_KEY": (data / "master.key").read_text().split()[-1]}
    (data / "master.key").unlink()
    vault = await opener(environ)
    await vault.put_key(new_key())
    made = await vault.backup(tmp_path / "backup", WORDS, [])
    assert made == BackupMade(("vault.db",), "KEYRELAY_MASTER_KEY")
    await restore_vault(tmp_path / "there", (tmp_path / "backup").read_bytes(), WORDS)
    assert await opened_at(tmp_path / "there", environ) == [FIRST]
    with pytest.raises(MasterKeyMissing):
        await opened_at(tmp_path / "there")


async def test_a_vault_is_given_up_only_when_told(vault: Vault, data: Path, tmp_path: Path) -> None:
    """Else nothing is written; then the file's is there, whole."""
    await vault.put_key(new_key())
    await vault.backup(tmp_path / "backup", WORDS, [])
    octets = (tmp_path / "backup").read_bytes()
    other = tmp_path / "other"
    mine = await open_vault(other, {}, FakeClock(), create=True)
    await mine.put_key(new_key(SECOND))
    await mine.close()
    with pytest.raises(AlreadyExists, match=r"vault\.db.*master\.key.*nothing was written.*--repl"):
        await restore_vault(other, octets, WORDS)
    assert await opened_at(other) == [SECOND]
    await restore_vault(other, octets, WORDS, replace=True)
    assert await opened_at(other) == [FIRST]
    assert (other / "master.key").read_bytes() == (data / "master.key").read_bytes()


@pytest.mark.parametrize("writes", [1, 2])
async def test_a_restore_that_was_killed_leaves_one_of_the_two(
    vault: Vault, tmp_path: Path, writes: int
) -> None:
    """The key file fits whichever database is there; again, it ends."""
    await vault.put_key(new_key())
    await vault.backup(tmp_path / "backup", WORDS, [])
    octets = (tmp_path / "backup").read_bytes()
    other = tmp_path / "other"
    mine = await open_vault(other, {}, FakeClock(), create=True)
    await mine.put_key(new_key(SECOND))
    await mine.close()
    written = await restore_killed(other, octets, WORDS, writes)
    assert written == ["master.key", "vault.db"][:writes]
    assert await opened_at(other) == [SECOND if writes == 1 else FIRST]
    await restore_vault(other, octets, WORDS, replace=True)
    assert await opened_at(other) == [FIRST]
    assert (other / "master.key").read_text().count("\n") == 2


async def test_a_journal_of_the_old_database_is_not_played_into_the_new(
    vault: Vault, data: Path, tmp_path: Path
) -> None:
    """Whatever a killed writer has left behind."""
    await vault.put_key(new_key())
    await vault.backup(tmp_path / "backup", WORDS, [])
    (data / "vault.db").write_bytes(b"no database" * 999)
    (data / "vault.db-journal").write_bytes(b"left behind" * 999)
    octets = (tmp_path / "backup").read_bytes()
    await restore_vault(data, octets, WORDS, replace=True)
    assert not (data / "vault.db-journal").exists()
    assert await opened_at(data) == [FIRST]


async def test_a_backup_beside_writers_is_one_moment(
    vault: Vault, opener: Opener, tmp_path: Path
) -> None:
    """Keys that are put in pairs in one transaction are both there, or neither."""
    writer = await opener()

    async def write() -> None:
        for number in range(12):
            pair = (new_key(alias=f"a{number}"), new_key(alias=f"b{number}"))
            await writer.apply(Changes(pair))

    async def back_up() -> None:
        for number in range(3):
            await vault.backup(tmp_path / f"backup{number}", WORDS, [])

    await asyncio.gather(write(), back_up())
    for number in range(3):
        there = tmp_path / f"there{number}"
        await restore_vault(there, (tmp_path / f"backup{number}").read_bytes(), WORDS)
        assert len(await opened_at(there)) % 2 == 0


async def test_a_file_that_is_there_stays(vault: Vault, tmp_path: Path) -> None:
    """An older backup is not overwritten."""
    (tmp_path / "backup").write_text("mine")
    with pytest.raises(Invalid, match="is there already; name another file"):
        await vault.backup(tmp_path / "backup", WORDS, [])
    assert (tmp_path / "backup").read_text() == "mine"


async def test_a_place_that_cannot_be_written_is_named(vault: Vault, tmp_path: Path) -> None:
    """The reason is the system's."""
    with pytest.raises(StoreUnavailable, match=r"can't be written.*no such file"):
        await vault.backup(tmp_path / "nowhere" / "backup", WORDS, [])
    (tmp_path / "file").write_text("")
    await vault.backup(tmp_path / "backup", WORDS, [])
    with pytest.raises(StoreUnavailable, match="can't be used"):
        octets = (tmp_path / "backup").read_bytes()
        await restore_vault(tmp_path / "file" / "data", octets, WORDS)


async def test_a_short_passphrase_is_refused(vault: Vault, tmp_path: Path) -> None:
    """Whoever has the file can guess as often as they like."""
    with pytest.raises(Invalid, match="too short: use 12 characters or more"):
        await vault.backup(tmp_path / "backup", Secret(b"tooshort123"), [])


async def test_a_database_that_does_not_open_is_no_backup(
    vault: Vault, data: Path, tmp_path: Path
) -> None:
    """Better to know it today."""
    rows(data, "UPDATE data_keys SET wrapped = 'x'")
    with pytest.raises(Unopenable, match="data key"):
        await vault.backup(tmp_path / "backup", WORDS, [])
    assert not (tmp_path / "backup").exists()


async def test_a_database_on_a_server_has_backups_there(vault: Vault, tmp_path: Path) -> None:
    """Only a file is copied."""
    vault._core.store.engine.path = None
    with pytest.raises(Invalid, match="make its backup there"):
        await vault.backup(tmp_path / "backup", WORDS, [])


async def test_a_locked_database_is_unavailable(
    vault: Vault, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for every other reader."""

    def fail(*args: object, **kwargs: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr("vault.sqlite._copy", fail)
        with pytest.raises(StoreUnavailable, match="disk I/O error"):
            await vault.backup(tmp_path / "backup", WORDS, [])


def changed_database(statement: str) -> bytes:
    with sqlite3.connect(":memory:") as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('0001')")
        connection.execute(statement)
        connection.commit()
        octets = connection.serialize()
    connection.close()
    return octets


@pytest.mark.parametrize(
    ("files", "error", "words"),
    [
        ({}, Unopenable, "holds no vault"),
        ({"vault.db": b"no database"}, Unopenable, "damaged"),
        ({"vault.db": b""}, Unopenable, "holds no vault"),
        (
            {"vault.db": changed_database("UPDATE alembic_version SET version_num = '9999'")},
            SchemaTooNew,
            "revision 9999",
        ),
        ({"../x": b""}, Unopenable, "of another directory"),
    ],
)
async def test_what_is_no_vault_of_ours_is_not_restored(tmp_path: Path, files, error, words):
    """Even where the passphrase fits."""
    octets = Archive(0.0, files).sealed(WORDS)
    with pytest.raises(error, match=words):
        await restore_vault(tmp_path / "there", octets, WORDS)
    assert not (tmp_path / "there").exists()


async def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    """A file of something else; one of a newer release; one that wants all memory."""
    whole = Archive(0.0, {}).sealed(WORDS)
    magic = whole[: whole.index(b"\n") + 1]
    inner = magic + passphrase.seal(WORDS, b"no zlib", "keyrelay backup 1")
    for octets in (b"", b"something", magic, magic + b"\x01\x1f" + bytes(99), inner):
        with pytest.raises(Unopenable):
            await restore_vault(tmp_path / "there", octets, WORDS)


async def test_the_largest_backup_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """AES-GCM seals no more at once."""
    monkeypatch.setattr("vault.archive._LARGEST", 10)
    with pytest.raises(Invalid, match="too large"):
        Archive(0.0, {"vault.db": b"x"}).sealed(WORDS)


async def test_a_damaged_database_is_not_restored(vault: Vault, data: Path, tmp_path: Path) -> None:
    """SQLite's own check looks at it first."""
    octets = bytearray((data / "vault.db").read_bytes())
    octets[2 * 4096 : 3 * 4096] = b"\xff" * 4096
    sealed = Archive(0.0, {"vault.db": bytes(octets)}).sealed(WORDS)
    with pytest.raises(Unopenable, match="damaged; take another"):
        await restore_vault(tmp_path / "there", sealed, WORDS)


async def test_a_database_that_contradicts_itself_is_not_restored(
    vault: Vault, data: Path, tmp_path: Path
) -> None:
    """It can be read, but SQLite's check names what is wrong."""
    for statement in (
        "CREATE TABLE strange (a)",
        "INSERT INTO strange VALUES (NULL)",
        "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = "
        "'CREATE TABLE strange (a NOT NULL)' WHERE name = 'strange'",
    ):
        with contextlib.closing(sqlite3.connect(data / "vault.db")) as connection:
            connection.executescript(statement)
    sealed = Archive(0.0, {"vault.db": (data / "vault.db").read_bytes()}).sealed(WORDS)
    with pytest.raises(Unopenable, match="damaged; take another"):
        await restore_vault(tmp_path / "there", sealed, WORDS)
