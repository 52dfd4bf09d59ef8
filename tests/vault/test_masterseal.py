"""A master key that a passphrase guards: made, opened, rotated, backed up, restored."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest
from cryptography.exceptions import UnsupportedAlgorithm

from tests.support.clock import FakeClock
from tests.vault.killing import Killed, restore_killed
from tests.vault.words import FIRST, SECOND, named, new_key, rows
from vault import (
    AlreadyExists,
    Invalid,
    MasterKeyMissing,
    Secret,
    StoreUnavailable,
    Vault,
    masterseal,
    open_vault,
    passphrase,
    restore_vault,
)
from vault.keyring import MasterKey, MasterKeys
from vault.masterseal import Cost, MasterSeal
from vault.mastersource import MasterKeySource

WORDS = Secret(b"correct horse battery")
OTHER = Secret(b"another good passphrase")
THIRD = Secret(b"a third good passphrase")
COST = masterseal._COST


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masterseal, "_COST", Cost(1024, 1, 1))
    monkeypatch.setattr(passphrase, "_COST", 10)


@pytest.fixture
def keys_made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Each run of the KDF."""
    real, made = masterseal.Argon2id, []

    def derive(**wanted: Any) -> Any:
        made.append(wanted)
        return real(**wanted)

    monkeypatch.setattr(masterseal, "Argon2id", derive)
    return made


class Person:
    """Types a passphrase whenever asked."""

    def __init__(self, words: Secret) -> None:
        self.words = words
        self.asked = 0

    def __call__(self) -> Secret:
        self.asked += 1
        return self.words


async def opened(
    data: Path, words: Secret | None = WORDS, environ: dict[str, str] | None = None
) -> Vault:
    ask = None if words is None else Person(words)
    return await open_vault(data, environ or {}, FakeClock(), ask=ask, accept_rollback=True)


async def made(data: Path, value: bytes = FIRST, words: Secret = WORDS) -> Path:
    """A vault with a passphrase and one key."""
    vault = await open_vault(data, {}, FakeClock(), create=True, new_passphrase=words)
    await vault.put_key(new_key(value))
    await vault.close()
    return data


async def value(
    data: Path, words: Secret | None = WORDS, environ: dict[str, str] | None = None
) -> bytes:
    vault = await opened(data, words, environ)
    try:
        return (await vault.open_key(named()))["key"].reveal()
    finally:
        await vault.close()


def passphrase_in(path: Path, text: str) -> dict[str, str]:
    path.write_text(text)
    path.chmod(0o600)
    return {"KEYRELAY_MASTER_PASSPHRASE_FILE": str(path)}


async def test_a_passphrase_opens_what_it_made(tmp_path: Path, keys_made: list[Any]) -> None:
    """One file, private, with neither key nor passphrase in it; one run of the KDF a process."""
    data = await made(tmp_path / "data")
    assert len(keys_made) == 1
    assert {path.name for path in data.iterdir()} == {"master.sealed", "vault.db", "vault.anchor"}
    sealed = (data / "master.sealed").read_bytes()
    assert (data / "master.sealed").stat().st_mode & 0o777 == 0o600
    assert b"correct" not in sealed
    vault = await opened(data)
    assert await vault.open_key(named()) == {"key": Secret(FIRST)}
    await vault.rotate_master(reseal=True)
    await vault.hasher("cache-keys")
    assert len(keys_made) == 2
    await vault.close()
    again = await open_vault(data, {}, FakeClock(), create=True, ask=Person(WORDS))
    await again.close()


def test_guesses_are_dear() -> None:
    """What is written outside of tests: RFC 9106's choice for little memory."""
    seal = MasterSeal(Person(WORDS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masterseal, "_COST", COST)
        facts = json.loads(seal.seal("x"))
    made_with = [facts[name] for name in ("kdf", "memory_kib", "passes", "lanes")]
    assert made_with == ["argon2id", 65536, 3, 4]
    assert seal.opened(json.dumps(facts), "here") == "x"


async def test_another_passphrase_is_one_sentence(tmp_path: Path) -> None:
    """And nothing of what was typed is in it."""
    data = await made(tmp_path / "data")
    with pytest.raises(MasterKeyMissing, match=r"does not open the master key .*sealed: it is ano"):
        await opened(data, OTHER)
    assert await value(data) == FIRST


async def test_nobody_to_ask_is_told_the_remedy(tmp_path: Path) -> None:
    """A command in a script, a server of systemd."""
    data = await made(tmp_path / "data")
    with pytest.raises(MasterKeyMissing, match="by KEYRELAY_MASTER_PASSPHRASE_FILE, or run this"):
        await opened(data, None)


async def test_a_file_may_hold_the_passphrase(tmp_path: Path) -> None:
    """By its variable or as systemd's credential; the first start makes the vault with it."""
    environ = passphrase_in(tmp_path / "words", "correct horse battery\n")
    data = tmp_path / "data"
    vault = await open_vault(data, environ, FakeClock(), create=True)
    await vault.put_key(new_key())
    await vault.close()
    assert not (data / "master.key").exists()
    assert [await value(data, None, environ), await value(data)] == [FIRST, FIRST]
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "keyrelay-passphrase").write_text("correct horse battery")
    (folder / "keyrelay-passphrase").chmod(0o440)
    assert await value(data, None, {"CREDENTIALS_DIRECTORY": str(folder)}) == FIRST


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must hold the passphrase, as one line"),
        ("\n", "must hold the passphrase, as one line"),
        ("correct\nhorse battery", "must hold the passphrase, as one line"),
        ("correct horse batterie", "does not open the master key"),
        (None, r"can't be read \(no such file"),
    ],
)
async def test_a_file_without_the_passphrase_is_named(
    tmp_path: Path, text: str | None, words: str
) -> None:
    """Never with what is in it."""
    data = await made(tmp_path / "data")
    environ = passphrase_in(tmp_path / "words", text or "")
    if text is None:
        (tmp_path / "words").unlink()
    with pytest.raises(MasterKeyMissing, match=words) as error:
        await opened(data, None, environ)
    assert "correct" not in str(error.value)


async def test_a_passphrase_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """As a master key would be; its group may."""
    data = await made(tmp_path / "data")
    environ = passphrase_in(tmp_path / "words", "correct horse battery")
    (tmp_path / "words").chmod(0o644)
    with pytest.raises(MasterKeyMissing, match="open to others; run: chmod 640"):
        await opened(data, None, environ)
    (tmp_path / "words").chmod(0o640)
    assert await value(data, None, environ) == FIRST


async def test_a_short_passphrase_is_refused(tmp_path: Path) -> None:
    """However it comes; and nothing is left that would stop the next try."""
    short = "too short: use 12 characters"
    with pytest.raises(Invalid, match=short):
        await made(tmp_path / "data", words=Secret(b"tooshort123"))
    environ = passphrase_in(tmp_path / "words", "tooshort123")
    with pytest.raises(Invalid, match=short):
        await open_vault(tmp_path / "data", environ, FakeClock(), create=True)
    assert await value(await made(tmp_path / "data")) == FIRST


async def test_a_vault_that_has_a_key_gets_no_passphrase_by_init(data: Path) -> None:
    """The remedy is a rotation; a variable alone changes nothing either."""
    with pytest.raises(AlreadyExists, match=r"master\.key; .*master rotate --passphrase"):
        await made(data)
    environ = {"KEYRELAY_MASTER_PASSPHRASE_FILE": "/nonexistent"}
    vault = await open_vault(data, environ, FakeClock(), create=True)
    await vault.close()
    assert not (data / "master.sealed").exists()


async def test_an_outside_key_has_no_passphrase(data: Path, tmp_path: Path) -> None:
    """Neither at the beginning nor by a rotation, in either direction."""
    environ = {"KEYRELAY_MASTER_KEY": (data / "master.key").read_text().split()[-1]}
    (data / "master.key").unlink()
    with pytest.raises(Invalid, match="comes from KEYRELAY_MASTER_KEY, and a passphrase has no"):
        await open_vault(tmp_path / "new", environ, FakeClock(), create=True, new_passphrase=WORDS)
    vault = await open_vault(data, environ, FakeClock())
    for guard in (WORDS, "none"):
        with pytest.raises(Invalid, match="a passphrase has no say there"):
            await vault.rotate_master(guard=guard)
    await vault.close()
    assert {path.name for path in data.iterdir()} == {"vault.db", "vault.anchor"}


async def test_a_lost_file_is_not_made_anew(tmp_path: Path) -> None:
    """Though its passphrase is there."""
    data = await made(tmp_path / "data")
    environ = passphrase_in(tmp_path / "words", "correct horse battery")
    (data / "master.sealed").unlink()
    with pytest.raises(MasterKeyMissing, match=r"master\.sealed and the database .* is missing"):
        await open_vault(data, environ, FakeClock(), create=True)
    assert not (data / "master.sealed").exists()


def changed(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    "fields",
    [
        {"kdf": "plain"},
        {"memory_kib": 1 << 30},
        {"memory_kib": 1},
        {"passes": 1 << 30},
        {"passes": 0},
        {"lanes": 17},
        {"lanes": True},
        {"passes": "1"},
        {"salt": "AAAA"},
        {"salt": "?"},
        {"sealed": 5},
    ],
)
async def test_a_file_that_would_cost_hours_is_not_tried(
    tmp_path: Path, keys_made: list[Any], fields: dict[str, object]
) -> None:
    """Nor one of another shape."""
    data = await made(tmp_path / "data")
    changed(data / "master.sealed", **fields)
    with pytest.raises(MasterKeyMissing, match=r"sealed is not in a known format; restore it"):
        await opened(data)
    assert len(keys_made) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "[" * 30000])
async def test_what_is_no_such_file_is_refused(tmp_path: Path, text: str) -> None:
    """Whatever it is."""
    data = await made(tmp_path / "data")
    (data / "master.sealed").write_text(text)
    with pytest.raises(MasterKeyMissing, match="not in a known format"):
        await opened(data)


@pytest.mark.parametrize(
    "fields", [{"passes": 2}, {"salt": "AAAAAAAAAAAAAAAAAAAAAA=="}, {"sealed": "AAAA"}]
)
async def test_any_change_is_seen(tmp_path: Path, fields: dict[str, object]) -> None:
    """What is sealed, and what the key is made with."""
    data = await made(tmp_path / "data")
    changed(data / "master.sealed", **fields)
    with pytest.raises(MasterKeyMissing, match="or the file was changed"):
        await opened(data)


def test_what_was_opened_once_is_still_judged() -> None:
    """The remembered key opens no changed octets."""
    seal = MasterSeal(Person(WORDS))
    facts = json.loads(seal.seal("x"))
    with pytest.raises(MasterKeyMissing, match="or the file was changed"):
        seal.opened(json.dumps({**facts, "sealed": "AAAA"}), "here")


def test_what_did_not_open_costs_nothing_more(keys_made: list[Any]) -> None:
    """A server asks again and again; another file or passphrase is a new try."""
    octets = MasterSeal(Person(WORDS)).seal("x").decode()
    person = Person(OTHER)
    seal = MasterSeal(person)
    for _ in range(3):
        with pytest.raises(MasterKeyMissing):
            seal.opened(octets, "here")
    assert len(keys_made) == 2
    person.words = WORDS
    assert seal.opened(octets, "here") == "x"


def test_an_openssl_without_argon2_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install."""

    def refuse(**_: object) -> NoReturn:
        raise UnsupportedAlgorithm("no")

    monkeypatch.setattr(masterseal, "Argon2id", refuse)
    with pytest.raises(MasterKeyMissing, match=r"has no Argon2id.*OpenSSL 3\.2 or newer"):
        MasterSeal(Person(WORDS)).seal("x")


async def test_a_directory_that_cannot_be_looked_into_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than taken for one without a file."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(MasterKeySource, "find", refuse)
    with pytest.raises(StoreUnavailable, match=r"can't be used.*permission denied"):
        await opened(tmp_path / "data")


# rotation --------------------------------------------------------------------------------------


async def test_a_rotation_keeps_the_passphrase(tmp_path: Path) -> None:
    """A server that runs meets the new key without being asked again."""
    data = await made(tmp_path / "data")
    person = Person(WORDS)
    server = await open_vault(data, {}, FakeClock(), ask=person)
    before = (data / "master.sealed").read_bytes()
    vault = await opened(data)
    assert (await vault.rotate_master(reseal=True)).rewrapped == 2
    assert await server.refresh()
    assert await server.open_key(named()) == {"key": Secret(FIRST)}
    assert person.asked == 1
    await server.close()
    await vault.close()
    (data / "master.sealed").write_bytes(before)
    with pytest.raises(MasterKeyMissing, match="does not fit this database"):
        await opened(data)


async def test_a_new_passphrase_takes_the_place_of_the_old(tmp_path: Path) -> None:
    """For a new master key: an old file with its passphrase opens nothing any more."""
    data = await made(tmp_path / "data")
    before = (data / "master.sealed").read_bytes()
    vault = await opened(data)
    done = await vault.rotate_master(guard=OTHER)
    assert (done.source, done.rewrapped) == (str(data / "master.sealed"), 2)
    await vault.rotate_master()
    await vault.close()
    assert await value(data, OTHER) == FIRST
    with pytest.raises(MasterKeyMissing, match="the passphrase does not open"):
        await opened(data, WORDS)
    (data / "master.sealed").write_bytes(before)
    with pytest.raises(MasterKeyMissing, match="does not fit this database"):
        await opened(data, WORDS)


async def test_a_server_with_the_old_passphrase_is_not_asked_again(tmp_path: Path) -> None:
    """It goes on with what it has; where it needs the new master key it is to be restarted."""
    data = await made(tmp_path / "data")
    server = await opened(data)
    vault = await opened(data)
    await vault.rotate_master(guard=OTHER)
    await vault.close()
    await server.refresh()
    assert await server.open_key(named()) == {"key": Secret(FIRST)}
    with pytest.raises(MasterKeyMissing, match="was changed meanwhile; start this process anew"):
        await server.hasher("cache-keys")
    await server.close()


async def test_a_server_reads_the_passphrase_s_file_again(tmp_path: Path) -> None:
    """A new passphrase that was put there is enough."""
    data = await made(tmp_path / "data")
    environ = passphrase_in(tmp_path / "words", "correct horse battery")
    server = await opened(data, None, environ)
    vault = await opened(data, None, environ)
    await vault.rotate_master(guard=OTHER)
    await vault.close()
    passphrase_in(tmp_path / "words", "another good passphrase")
    await server.hasher("cache-keys")
    await server.close()
    assert await value(data, None, environ) == FIRST


async def test_a_key_file_gets_a_passphrase_and_loses_it(data: Path, vault: Vault) -> None:
    """Each time a new master key, and one file."""
    await vault.put_key(new_key())
    old = (data / "master.key").read_bytes()
    assert (await vault.rotate_master(guard=WORDS)).source == str(data / "master.sealed")
    assert {path.name for path in data.glob("master*")} == {"master.sealed"}
    assert await value(data) == FIRST
    assert (await vault.rotate_master(guard="none")).source == str(data / "master.key")
    assert {path.name for path in data.glob("master*")} == {"master.key"}
    assert (data / "master.key").read_bytes() != old
    assert await value(data, None) == FIRST
    await vault.rotate_master()
    assert await value(data, None) == FIRST


@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("way", ["key to words", "words to words", "words to key"])
async def test_a_change_that_was_killed_opens_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, step: int
) -> None:
    """Before and after each write: with one of the two passphrases, and the next run ends it."""
    data, guard = tmp_path / "data", "none" if way == "words to key" else OTHER
    first = None if way == "key to words" else WORDS
    vault = await open_vault(data, {}, FakeClock(), create=True, new_passphrase=first)
    await vault.put_key(new_key())
    real, left = MasterKeySource.write, [step]

    def write(self: MasterKeySource, keys: MasterKeys) -> None:
        for act in (lambda: None, lambda: real(self, keys)):
            act()
            left[0] -= 1
            if left[0] < 0:
                raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(MasterKeySource, "write", write)
        with pytest.raises(Killed):
            await vault.rotate_master(guard=guard)
    await vault.close()
    fitting = []
    for words in (WORDS, OTHER):
        try:
            assert await value(data, words) == FIRST
            fitting.append(words)
        except MasterKeyMissing:
            continue
    again = await opened(data, fitting[-1])
    await again.rotate_master(guard=guard)
    await again.close()
    assert len([*data.glob("master*")]) == 1
    assert await value(data, None if guard == "none" else OTHER) == FIRST


async def test_a_rotation_that_was_killed_ends_by_a_plain_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands beside the sealed file goes."""
    data = tmp_path / "data"
    vault = await open_vault(data, {}, FakeClock(), create=True)
    await vault.put_key(new_key())

    def kill(*_: object) -> NoReturn:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(MasterKeySource, "end_other", kill)
        with pytest.raises(Killed):
            await vault.rotate_master(guard=WORDS)
    await vault.close()
    assert len([*data.glob("master*")]) == 2
    again = await opened(data)
    assert (await again.rotate_master()).resumed
    await again.close()
    assert [path.name for path in data.glob("master*")] == ["master.sealed"]
    assert await value(data) == FIRST


# backup ----------------------------------------------------------------------------------------


async def test_a_backup_holds_the_sealed_file(tmp_path: Path) -> None:
    """It opens by both passphrases, the backup's and the master key's."""
    data = await made(tmp_path / "data")
    vault = await opened(data)
    done = await vault.backup(tmp_path / "backup", OTHER, [])
    await vault.close()
    assert done.files == ("vault.db", "master.sealed")
    await restore_vault(tmp_path / "there", (tmp_path / "backup").read_bytes(), OTHER)
    assert await value(tmp_path / "there") == FIRST


@pytest.mark.parametrize("writes", [1, 2, 3])
@pytest.mark.parametrize("sealed", [True, False])
async def test_a_restore_over_the_other_kind_opens_at_any_moment(
    tmp_path: Path, sealed: bool, writes: int
) -> None:
    """Until the database is replaced by the old key, then by the new one; then one file is left."""
    for name, content, words in (("a", FIRST, WORDS), ("b", SECOND, None)):
        vault = await open_vault(
            tmp_path / name, {}, FakeClock(), create=True, new_passphrase=words
        )
        await vault.put_key(new_key(content))
        await vault.backup(tmp_path / f"{name}.backup", THIRD, [])
        await vault.close()
    source, there = ("a", tmp_path / "b") if sealed else ("b", tmp_path / "a")
    octets = (tmp_path / f"{source}.backup").read_bytes()
    assert len(await restore_killed(there, octets, THIRD, writes)) == writes
    before, after = (SECOND, FIRST) if sealed else (FIRST, SECOND)
    assert await value(there) == (before if writes == 1 else after)
    await restore_vault(there, octets, THIRD, replace=True)
    assert len([*there.glob("master*")]) == 1
    assert await value(there, WORDS if sealed else None) == after


async def test_nothing_on_the_disk_holds_passphrase_or_key(tmp_path: Path) -> None:
    """Of all that the vault writes."""
    data = await made(tmp_path / "data")
    vault = await opened(data)
    masters = MasterKeySource.find(data, {}, ask=Person(WORDS)).read()
    await vault.backup(tmp_path / "backup", OTHER, [])
    await vault.rotate_master(guard=THIRD)
    await vault.close()
    secrets = [b"correct horse", b"another good", b"third good", masters.current.text().encode()]
    for path in (*data.iterdir(), tmp_path / "backup"):
        octets = path.read_bytes()
        assert (path.name, [one for one in secrets if one in octets]) == (path.name, [])
    assert "correct" not in repr(rows(data, "SELECT * FROM audit"))
    assert isinstance(masters.current, MasterKey)
