"""A backup from the command line, and the vault that comes out of it again."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from tests.proxy.cli.conftest import CANARY, Terminal
from tests.support.command import command
from tests.support.process import served
from vault import passphrase

WORDS = "correct horse battery"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passphrase, "_COST", 10)


def test_a_backup_says_what_it_holds_and_what_not(relay: Terminal, tmp_path: Path) -> None:
    """And opens elsewhere with the passphrase."""
    relay.run("key", "add", "openai", stdin=CANARY)
    said = relay.run("backup", "one.backup", stdin=WORDS)
    assert said.out == (
        "one.backup holds vault.db, master.key; it does not hold cache.db, usage.db\n"
    )
    assert WORDS not in said.out + said.err
    said = relay.run("--data", "there", "restore", "one.backup", stdin=WORDS + "\n")
    assert "there is as it was at 20" in said.out
    assert "tokens revoked and keys rotated since then are back" in said.out
    [key] = relay.run("--data", "there", "key", "list", "--json").json
    assert key["service"] == "openai"
    assert (tmp_path / "there/master.key").read_bytes() == (relay.data / "master.key").read_bytes()


def test_what_lies_elsewhere_is_named_as_missing(relay: Terminal) -> None:
    """A configuration and a master key outside the data directory."""
    key = (relay.data / "master.key").rename(relay.home / "outside.key")
    relay.environ["KEYRELAY_MASTER_KEY_FILE"] = str(key)
    relay.environ["KEYRELAY_CONFIG"] = str(relay.write("relay.yaml", "{}"))
    said = relay.run("backup", "one.backup", "--json", stdin=WORDS).json
    assert said["holds"] == ["vault.db"]
    assert said["does_not_hold"] == [
        "cache.db",
        "usage.db",
        f"the master key of {key} (KEYRELAY_MASTER_KEY_FILE)",
        str(relay.home / "relay.yaml"),
    ]


def test_a_vault_that_is_there_stays(relay: Terminal) -> None:
    """Unless it is said that it may go."""
    relay.run("backup", "one.backup", stdin=WORDS)
    relay.run("key", "add", "openai", stdin=CANARY)
    said = relay.run("restore", "one.backup", stdin=WORDS, code=1)
    assert "there is a vault already" in said.err
    assert len(relay.run("key", "list").rows) == 1


def test_nothing_is_replaced_under_a_running_server(relay: Terminal) -> None:
    """It would go on with the files that are gone."""
    relay.run("backup", "one.backup", stdin=WORDS)
    with (relay.data / "cache.db.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = relay.run("restore", "one.backup", "--replace", stdin=WORDS, code=1)
    assert said.err == f"keyrelay: a server runs on {relay.data}: stop it first\n"
    relay.run("restore", "one.backup", "--replace", stdin="another passphrase", code=1)


@pytest.mark.parametrize("typed", ["", "\n", "two\nlines"])
def test_a_passphrase_is_one_line(relay: Terminal, typed: str) -> None:
    """Not an empty one by mistake."""
    said = relay.run("backup", "one.backup", stdin=typed, code=1)
    assert "expected the passphrase as one line" in said.err


def test_a_passphrase_is_never_an_argument(relay: Terminal) -> None:
    """It would stand in the process list."""
    assert "too many arguments" in relay.run("backup", "one", WORDS, code=2).err


def test_an_older_vault_does_not_open_until_that_is_accepted(relay: Terminal) -> None:
    """Neither for a command nor for a server; by the restore itself, or by the server."""
    relay.run("backup", "one.backup", stdin=WORDS)
    relay.run("key", "add", "openai", stdin=CANARY)
    relay.run("restore", "one.backup", "--replace", stdin=WORDS)
    for words in (["key", "list"], ["serve", "--port", "0"]):
        said = relay.run(*words, code=1)
        assert "the vault's database is an older one" in said.err
        assert "keyrelay serve --accept-rollback" in said.err
    relay.run("restore", "one.backup", "--replace", "--accept-rollback", stdin=WORDS)
    assert relay.run("key", "list").rows == []
    relay.run("key", "add", "openai", stdin=CANARY)


async def test_a_server_accepts_an_older_vault_when_told(tmp_path: Path) -> None:
    """Once; from then on it is the newest one."""
    data = tmp_path / "data"
    assert (await command(data, "init")).code == 0
    old = (data / "vault.db").read_bytes()
    assert (await command(data, "token", "issue", "ada")).code == 0
    (data / "vault.db").write_bytes(old)
    assert (await command(data, "token", "list")).code == 1
    async with served(data, "--accept-rollback"):
        assert (await command(data, "token", "issue", "bob")).code == 0
    async with served(data):
        assert (await command(data, "token", "list")).code == 0


def test_a_backup_may_be_sealed_to_a_key(relay: Terminal) -> None:
    """Made with the first one, used by the next: nobody is there to type."""
    relay.run("key", "add", "openai", stdin=CANARY)
    said = relay.run("backup", "one.backup", "--new-key", "backup.key")
    key = (relay.home / "backup.key").read_text().split()[-1]
    said_again = relay.run("backup", "two.backup", "--to-key", "backup.key")
    assert key not in said.out + said_again.out
    for name in ("one", "two"):
        relay.run("--data", name, "restore", f"{name}.backup", "--key", "backup.key")
        [found] = relay.run("--data", name, "key", "list", "--json").json
        assert found["service"] == "openai"
    said = relay.run("restore", "one.backup", "--replace", stdin=WORDS, code=1)
    assert "it is sealed to a key; name the file of that with --key" in said.err
    both = ("--to-key", "backup.key", "--new-key", "backup.key")
    assert "exclude one another" in relay.run("backup", "three.backup", *both, code=2).err
