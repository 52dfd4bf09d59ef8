"""The frame of the command line: help, version, exit codes, and failures in one sentence."""

from __future__ import annotations

import os
import pwd
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import click
import pytest

from proxy.cli import COMMANDS, Keyrelay, keyrelay
from proxy.cli.failures import report
from tests.proxy.cli.conftest import CANARY, Terminal


def every_command(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    context = click.Context(group)
    found = [path]
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inner = (*path, name)
        found += every_command(command, inner) if isinstance(command, click.Group) else [inner]
    return found


@pytest.mark.parametrize("path", every_command(keyrelay), ids=" ".join)
def test_help_is_everywhere(shell: Terminal, path: tuple[str, ...]) -> None:
    """`--help` works without a data directory, and says how to use it."""
    said = shell.run(*path, "--help")
    assert said.out.startswith(f"Usage: {' '.join(('keyrelay', *path))}")


def test_help_lists_each_command_with_a_sentence(shell: Terminal) -> None:
    """The table is the list, in its order."""
    out = shell.run("--help").out
    assert [out.index(f"\n  {name} ") for name in COMMANDS] == sorted(
        out.index(f"\n  {name} ") for name in COMMANDS
    )


def test_every_result_can_be_json() -> None:
    """`--json` for scripts, on every command but serve."""
    for path in every_command(keyrelay):
        command: click.Command | None = keyrelay
        for name in path:
            assert isinstance(command, click.Group)
            command = command.get_command(click.Context(command), name)
        if not isinstance(command, click.Group) and path != ("serve",):
            assert command is not None
            assert "as_json" in [param.name for param in command.params], path


def test_version(shell: Terminal) -> None:
    """One line."""
    assert shell.run("--version").out.startswith("keyrelay 0.")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nonsense",), "no such command"),
        (("key", CANARY), "no such command"),
        (("key", "list", "--nonsense"), "no such option"),
        (("key", "list", "--tenat", "x"), "no such option, did you mean --tenant"),
        (("key", "list", f"--token={CANARY}"), "no such option"),
        (("key", "default"), "SERVICE is missing"),
        (("key", "list", CANARY), "too many arguments"),
        (("key", "list", "--tenant"), "option '--tenant' requires an argument"),
        (("key", "list", "--tenant", f"{CANARY}!"), "--tenant: expected up to 64 of a-z"),
        (("token", "issue", "a", "--role", CANARY), "--role: expected one of call, read, admin"),
        (("token", "issue", "a", "--key", CANARY), "--key: expected SERVICE=ALIAS"),
        (("serve", "--port", CANARY), "--port: expected a whole number from 0 to 65535"),
        (("serve", "--workers", CANARY), "--workers: expected a whole number from 1 to 64"),
    ],
)
def test_what_is_not_understood_is_code_2_and_not_repeated(
    shell: Terminal, words: tuple[str, ...], said: str
) -> None:
    """A mistyped line may hold a key, so none of its words comes back."""
    err = shell.run(*words, code=2).err
    assert err.startswith(f"keyrelay: {said}")
    assert err.count("\n") == 1
    assert "--help)" in err


def test_a_group_alone_shows_its_help(shell: Terminal) -> None:
    """With code 2: nothing was done."""
    assert "rotate" in shell.run("key", code=2).err


def test_a_command_without_a_data_directory_names_the_remedy(shell: Terminal) -> None:
    """Only init, serve and import make one."""
    for words in (("key", "list"), ("cache", "stats"), ("tenant", "list")):
        err = shell.run(*words, code=1).err
        assert err.startswith(
            f"keyrelay: there is no data directory {shell.data}: run keyrelay init"
        )
    assert not shell.data.exists()


def test_the_data_directory_is_named_by_option_variable_or_usage(shell: Terminal) -> None:
    """`--data` before or behind the command, else KEYRELAY_DATA, else ./data."""
    one, two = shell.home / "one", shell.home / "two"
    assert shell.run("--data", one, "init", "--json").json == {"data": str(one)}
    assert shell.run("init", "--data", two, "--json").json == {"data": str(two)}
    assert shell.run("key", "list", "--data", two).rows == []
    shell.environ["KEYRELAY_DATA"] = ""
    assert shell.run("init", "--json").json == {"data": "data"}
    assert (shell.home / "data" / "vault.db").exists()


def test_init_makes_everything_for_its_owner_alone(shell: Terminal) -> None:
    """0700 and 0600; a second time changes nothing."""
    shell.run("init")
    modes = {path.name: path.stat().st_mode & 0o777 for path in shell.data.iterdir()}
    assert shell.data.stat().st_mode & 0o777 == 0o700
    assert {modes[name] for name in ("master.key", "vault.db", "cache.db")} == {0o600}
    before = (shell.data / "master.key").read_bytes()
    shell.run("init")
    assert (shell.data / "master.key").read_bytes() == before


@pytest.mark.parametrize("lost", ["master.key", "vault.db"])
def test_a_key_without_its_database_stops(relay: Terminal, lost: str) -> None:
    """And the other way round: both paths are named."""
    (relay.data / lost).unlink()
    for words in (("init",), ("key", "list")):
        err = relay.run(*words, code=1).err
        assert str(relay.data / "master.key") in err
        assert str(relay.data / "vault.db") in err


def test_an_open_data_directory_is_refused(relay: Terminal) -> None:
    """The remedy is a command to paste."""
    relay.data.chmod(0o755)
    assert f"chmod 700 {relay.data}" in relay.run("key", "list", code=1).err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyError(CANARY), "an unexpected KeyError ended the command; its text is not shown"),
        (KeyboardInterrupt(), "stopped before the end"),
        (FileNotFoundError(2, "No such file or directory", "f"), "f: no such file or directory"),
        (OSError(28, "No space left on device"), "no space left on device"),
    ],
)
def test_any_failure_is_one_sentence(
    error: BaseException, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Never a traceback, and never the text of an error that is not ours."""
    assert report(error) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"keyrelay: {line}")
    assert CANARY not in shown


def test_a_closed_pipe_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    """`keyrelay service list | head -1`."""
    assert report(BrokenPipeError()) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_stream_that_is_closed_is_empty(relay: Terminal, closed: str) -> None:
    """A service manager may give none at all."""
    line = f"{shlex.quote(sys.executable)} -m proxy.cli key list {closed}"
    environ = {**os.environ, "KEYRELAY_DATA": str(relay.data)}
    done = subprocess.run(["sh", "-c", line], env=environ, capture_output=True, check=True)
    assert done.stderr == b""
    refused = ["sh", "-c", line.replace("list", "add openai") + " <&-"]
    said = subprocess.run(refused, env=environ, capture_output=True, check=False)
    assert said.returncode == 1
    assert b"nothing came by standard input" in said.stderr or closed == "2>&-"


def test_the_audit_log_says_who_it_was(relay: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account that ran the command, by number where it has no name."""

    def unknown(number: int) -> None:
        raise KeyError(number)

    relay.run("token", "issue", "a")
    account = pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    relay.run("token", "issue", "b")
    with sqlite3.connect(relay.data / "vault.db") as database:
        query = "SELECT actor FROM audit WHERE action = 'token issue' ORDER BY id"
        assert database.execute(query).fetchall() == [(f"cli {account}",), (f"cli {os.getuid()}",)]
    database.close()


def test_errors_can_be_met_by_a_program_that_embeds_the_commands() -> None:
    """click's own switch for that leaves exceptions alone."""
    with pytest.raises(click.UsageError):
        keyrelay.main(["nonsense"], standalone_mode=False)
    assert isinstance(keyrelay, Keyrelay)


def test_the_server_is_not_loaded_to_list_keys() -> None:
    """Start-up time: a command imports what it needs."""
    program = (
        "import sys, proxy.cli, proxy.cli.key;"
        "print([m for m in ('uvicorn', 'starlette', 'httpcore', 'rich.table', 'proxy.app')"
        " if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert found.stdout.strip() == b"[]"


def test_the_frame_itself_loads_click_alone() -> None:
    """`keyrelay --help` waits for neither pydantic nor the database."""
    program = (
        "import sys, proxy.cli;"
        "print([m for m in ('pydantic', 'sqlalchemy', 'yaml', 'orjson') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert found.stdout.strip() == b"[]"


def test_a_real_process_has_the_same_codes(shell: Terminal, tmp_path: Path) -> None:
    """0 done, 1 failed, 2 not understood."""
    shell.spawn("key", "list", code=1)
    shell.spawn("init")
    shell.spawn("key", "list")
    shell.spawn("key", "list", "--what", code=2)
