"""A vault whose master key has a passphrase, from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proxy.cli.conftest import CANARY, Terminal
from tests.proxy.cli.test_key import at_terminal
from tests.support.canaries import files, holds
from tests.support.command import command
from tests.support.process import served
from vault import masterseal, passphrase
from vault.masterseal import Cost

WORDS = "correct horse battery canary"
OTHER = "another good passphrase canary"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masterseal, "_COST", Cost(1024, 1, 1))
    monkeypatch.setattr(passphrase, "_COST", 10)


@pytest.fixture
def sealed(shell: Terminal) -> Terminal:
    """After `init --passphrase`, with a file that holds it."""
    shell.run("init", "--passphrase", stdin=WORDS + "\n")
    keep(shell, WORDS)
    return shell


def keep(shell: Terminal, words: str) -> None:
    path = shell.write("words", words + "\n")
    path.chmod(0o600)
    shell.environ["KEYRELAY_MASTER_PASSPHRASE_FILE"] = str(path)


def test_every_command_takes_the_passphrase_from_its_file(sealed: Terminal) -> None:
    """And its own input, such as a key, from standard input as ever."""
    assert not (sealed.data / "master.key").exists()
    sealed.run("key", "add", "openai", stdin=CANARY)
    assert sealed.run("key", "list").rows[0]["key"] == "…cdef"
    said = sealed.run("init").out
    assert WORDS not in said
    assert "is ready" in said
    for path, octets in files(sealed.data):
        assert (path.name, holds(octets, WORDS, CANARY)) == (path.name, [])


def test_without_a_terminal_the_remedy_is_the_file(sealed: Terminal) -> None:
    """One sentence; another passphrase is one too, and neither shows it."""
    del sealed.environ["KEYRELAY_MASTER_PASSPHRASE_FILE"]
    said = sealed.run("key", "add", "openai", stdin=CANARY, code=1)
    assert said.err == (
        f"keyrelay: the master key {sealed.data}/master.sealed needs its passphrase: name a file "
        "that holds it by KEYRELAY_MASTER_PASSPHRASE_FILE, or run this on a terminal\n"
    )
    keep(sealed, OTHER)
    said = sealed.run("serve", "--port", "0", code=1)
    assert "the passphrase does not open the master key" in said.err
    assert said.err.count("\n") == 1
    assert OTHER not in said.out + said.err


def test_init_says_what_to_keep(shell: Terminal) -> None:
    """A vault that has a master key keeps it."""
    said = shell.run("init", "--passphrase", stdin=WORDS)
    assert "keep a copy of its passphrase, and of master.sealed, elsewhere" in said.out
    said = shell.run("init", "--passphrase", stdin=OTHER, code=1)
    assert "there is a master key already" in said.err
    assert "master rotate --passphrase" in said.err
    assert "too many arguments" in shell.run("init", "--passphrase", WORDS, code=2).err


def test_a_rotation_changes_the_passphrase_and_ends_it(sealed: Terminal) -> None:
    """The new one by standard input, the old one from its file."""
    sealed.run("key", "add", "openai", stdin=CANARY)
    said = sealed.run("master", "rotate", "--passphrase", stdin=OTHER)
    assert OTHER not in said.out
    assert "the passphrase does not open" in sealed.run("key", "list", code=1).err
    keep(sealed, OTHER)
    assert sealed.run("key", "list").rows[0]["key"] == "…cdef"
    sealed.run("master", "rotate", "--no-passphrase")
    assert not (sealed.data / "master.sealed").exists()
    del sealed.environ["KEYRELAY_MASTER_PASSPHRASE_FILE"]
    assert sealed.run("key", "list").rows[0]["key"] == "…cdef"
    assert "as one line" in sealed.run("master", "rotate", "--passphrase", code=1).err


def test_an_outside_key_gets_no_passphrase(relay: Terminal) -> None:
    """The sentence names where it comes from."""
    outside = (relay.data / "master.key").rename(relay.home / "outside.key")
    relay.environ["KEYRELAY_MASTER_KEY_FILE"] = str(outside)
    said = relay.run("master", "rotate", "--passphrase", stdin=WORDS, code=1)
    assert f"the master key comes from {outside}" in said.err


def test_a_terminal_asks_without_echo(shell: Terminal) -> None:
    """For a new passphrase twice, then once by every command."""
    words = WORDS.encode()
    answers = [(b"Passphrase: ", words), (b"for confirmation: ", words)]
    shown = at_terminal(shell, ["init", "--passphrase"], answers)
    shown += at_terminal(shell, ["token", "list"], [(b"Passphrase of the master key: ", words)])
    assert words not in shown


def test_several_workers_ask_once(sealed: Terminal) -> None:
    """What was typed is for all of them; Ctrl-C, which every process hears, ends them well."""
    answers = [(b"Passphrase of the master key: ", WORDS.encode()), (b"2 workers", b"\x03")]
    words = ["serve", "--port", "0", "--workers", "2"]
    shown = at_terminal(sealed, words, answers)
    assert shown.count(b"Passphrase") == 1
    assert b"keyrelay has stopped" in shown
    assert WORDS.encode() not in shown


def test_a_backup_says_that_the_passphrase_is_not_in_it(sealed: Terminal) -> None:
    """The vault that comes out of it has the same."""
    sealed.run("key", "add", "openai", stdin=CANARY)
    said = sealed.run("backup", "one.backup", stdin=OTHER)
    assert said.out == (
        "one.backup holds vault.db, master.sealed; "
        "it does not hold cache.db, usage.db, the passphrase of master.sealed\n"
    )
    sealed.run("--data", "there", "restore", "one.backup", stdin=OTHER)
    [key] = sealed.run("--data", "there", "key", "list", "--json").json
    assert key["service"] == "openai"
    del sealed.environ["KEYRELAY_MASTER_PASSPHRASE_FILE"]
    sealed.run("--data", "elsewhere", "restore", "one.backup", stdin=OTHER)


async def test_a_server_starts_with_it_and_shows_it_nowhere(tmp_path: Path) -> None:
    """Neither in its arguments and environment nor in what it says and writes."""
    data, words = tmp_path / "data", tmp_path / "words"
    words.write_text(WORDS)
    words.chmod(0o600)
    environ = {"KEYRELAY_MASTER_PASSPHRASE_FILE": str(words)}
    assert (await command(data, "init", **environ)).code == 0
    async with served(data, **environ) as server:
        of = Path(f"/proc/{server.process.pid}")
        for name in ("cmdline", "environ"):
            assert holds((of / name).read_bytes(), WORDS) == []
        assert (await command(data, "token", "issue", "ada", **environ)).code == 0
    for path, octets in files(data):
        assert (path.name, holds(octets, WORDS)) == (path.name, [])
