"""A backup that is sealed to a key instead of a passphrase."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.clock import FakeClock
from tests.vault.words import FIRST, named, new_key
from vault import (
    BackupKey,
    Invalid,
    Secret,
    StoreUnavailable,
    Unopenable,
    Vault,
    open_vault,
    passphrase,
    restore_vault,
)

WORDS = Secret(b"correct horse battery")


async def test_a_key_opens_what_it_sealed(vault: Vault, tmp_path: Path) -> None:
    """Read from its file, which is private; neither key nor vault can be read in the backup."""
    await vault.put_key(new_key())
    key = tmp_path / "backup.key"
    await vault.backup(tmp_path / "backup", BackupKey.make(key), [])
    assert key.stat().st_mode & 0o777 == 0o600
    octets = (tmp_path / "backup").read_bytes()
    text = key.read_text().split()[-1].encode()
    assert not [word for word in (b"openai", b"SQLite", FIRST, text[7:]) if word in octets]
    await restore_vault(tmp_path / "there", octets, BackupKey.read(key))
    again = await open_vault(tmp_path / "there", {}, FakeClock())
    assert await again.open_key(named()) == {"key": Secret(FIRST)}
    await again.close()


async def test_any_change_and_another_key_are_refused(vault: Vault, tmp_path: Path) -> None:
    """And then nothing is written."""
    key = BackupKey.make(tmp_path / "one")
    await vault.backup(tmp_path / "backup", key, [])
    octets = (tmp_path / "backup").read_bytes()
    for place in {*range(60), *range(60, len(octets), 997), len(octets) - 1}:
        changed = octets[:place] + bytes([octets[place] ^ 1]) + octets[place + 1 :]
        with pytest.raises(Unopenable):
            await restore_vault(tmp_path / "there", changed, key)
    for wrong in (octets[:-1], octets[:30]):
        with pytest.raises(Unopenable, match="the key is another one, or the octets were changed"):
            await restore_vault(tmp_path / "there", wrong, key)
    with pytest.raises(Unopenable, match="the key is another one"):
        await restore_vault(tmp_path / "there", octets, BackupKey.make(tmp_path / "two"))
    assert not (tmp_path / "there").exists()


async def test_each_is_told_from_the_other(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A passphrase where a key is needed, and a key where a passphrase is."""
    monkeypatch.setattr(passphrase, "_COST", 10)
    key = BackupKey.make(tmp_path / "one")
    await vault.backup(tmp_path / "keyed", key, [])
    await vault.backup(tmp_path / "worded", WORDS, [])
    with pytest.raises(Unopenable, match="sealed to a key; name the file of that with --key"):
        await restore_vault(tmp_path / "there", (tmp_path / "keyed").read_bytes(), WORDS)
    with pytest.raises(Unopenable, match="not sealed to a key; leave --key out"):
        await restore_vault(tmp_path / "there", (tmp_path / "worded").read_bytes(), key)


@pytest.mark.parametrize(
    "text", ["", "# only a comment\n", "backup-short\n", f"{'a' * 43}\n", "one\ntwo\n"]
)
def test_a_file_without_a_key_is_named(tmp_path: Path, text: str) -> None:
    """Also a master key, which looks the same but for a word."""
    (tmp_path / "file").write_text(text)
    (tmp_path / "file").chmod(0o600)
    with pytest.raises(Invalid, match=r"file holds no backup key; make one with"):
        BackupKey.read(tmp_path / "file")


def test_a_key_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """One that is gone, no text, or open to others; and one is never written over."""
    path = tmp_path / "file"
    with pytest.raises(Invalid, match=r"can't be read \(no such file"):
        BackupKey.read(path)
    BackupKey.make(path)
    with pytest.raises(Invalid, match="is there already; seal to it with --to-key"):
        BackupKey.make(path)
    path.chmod(0o644)
    with pytest.raises(Invalid, match=r"the backup key .* is open to others; run: chmod 640"):
        BackupKey.read(path)
    path.chmod(0o600)
    path.write_bytes(b"\xff")
    with pytest.raises(Invalid, match="not a text file"):
        BackupKey.read(path)
    with pytest.raises(StoreUnavailable, match=r"can't be written \(no such file"):
        BackupKey.make(tmp_path / "nowhere" / "file")
