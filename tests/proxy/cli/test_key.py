"""A team's admin adds, tests, rotates and removes provider keys."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.proxy.cli.conftest import CANARY, OTHER, Terminal
from tests.support.origin import ThreadedOrigin, reply

SERVICE = """
services:
  mine:
    origin: {url}
    hosts: [api.mine.example.com]
    key_name: X-Key
    prefix: ''
    probe: GET /v1/me
  silent:
    hosts: [api.silent.example.com]
  sub:
    hosts: ['*.sub.example.com']
    probe: GET /me
  nokey:
    hosts: [open.example.com]
    in: none
"""


def test_a_key_comes_by_standard_input_and_is_shown_masked(relay: Terminal) -> None:
    """`keyrelay key add openai < FILE`."""
    assert "…cdef" in relay.run("key", "add", "openai", stdin=CANARY + "\n").out
    [row] = relay.run("key", "list").rows
    assert (row["service"], row["alias"], row["key"]) == ("openai", "default", "…cdef")
    [document] = relay.run("key", "list", "--json").json
    assert (document["version"], document["default"], document["owner"]) == (1, True, "vault")


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\n\n"])
def test_the_line_end_is_no_part_of_a_key(relay: Terminal, ending: str) -> None:
    """Nor is there one where `printf` wrote none."""
    relay.run("key", "add", "openai", stdin=CANARY + ending)
    assert relay.run("key", "list").rows[0]["key"] == "…cdef"


@pytest.mark.parametrize("words", [("add",), ("rotate",)])
def test_a_key_as_argument_is_refused_and_counts_as_exposed(
    relay: Terminal, words: tuple[str, ...]
) -> None:
    """It stands in the shell's history and in the list of processes by then."""
    err = relay.run("key", *words, "openai", CANARY, stdin=OTHER, code=2).err
    assert "consider it exposed" in err
    assert relay.run("key", "list").rows == []


def test_a_real_process_does_the_same(relay: Terminal) -> None:
    """The pipe of a real shell."""
    relay.spawn("key", "add", "openai", CANARY, code=2)
    relay.spawn("key", "add", "openai", stdin=CANARY + "\n")
    relay.spawn("key", "add", "openai", stdin=CANARY + "\n", code=1)
    assert relay.spawn("key", "list").rows[0]["key"] == "…cdef"


@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        ("", "nothing came by standard input"),
        ("\n", "nothing came by standard input"),
        (f"{CANARY}\n{OTHER}\n", "expected one line by standard input, got 2"),
        (f" {CANARY}\n", "the API key has white space around it"),
        (f"{CANARY}\x07\n", "the API key has a line break or another control character"),
    ],
)
def test_what_is_no_key_is_refused(relay: Terminal, stdin: str, said: str) -> None:
    """Before it is stored, and without showing it."""
    assert relay.run("key", "add", "openai", stdin=stdin, code=1).err.startswith(
        f"keyrelay: {said}"
    )


def test_a_key_of_several_parts_has_a_line_for_each(relay: Terminal) -> None:
    """In the order of `keyrelay service show`."""
    parts = relay.run("service", "show", "twilio", "--json").json["parts"]
    assert len(parts) == 2
    err = relay.run("key", "add", "twilio", stdin=CANARY, code=1).err
    assert f"expected 2 lines by standard input ({', '.join(parts)}), got 1" in err
    relay.run("key", "add", "twilio", stdin=f"AC0123\n{CANARY}\n")
    assert relay.run("key", "list").rows[0]["key"] == "…cdef"


def test_a_host_of_ones_own_is_fixed_with_the_key(relay: Terminal) -> None:
    """A service with `*.` hosts; judged before the key is asked for."""
    relay.write("data/keys.yaml", SERVICE.format(url="http://127.0.0.1:1"))
    assert "expected hosts" in relay.run("key", "add", "sub", stdin=CANARY, code=1).err
    wrong = ("--host", "a.b.sub.example.com")
    assert "such as acme" in relay.run("key", "add", "sub", *wrong, stdin=CANARY, code=1).err
    relay.run("key", "add", "sub", "--host", "we.sub.example.com", stdin=CANARY)
    assert relay.run("key", "list", "--json").json[0]["hosts"] == ["we.sub.example.com"]


def test_a_service_without_keys_takes_none(relay: Terminal) -> None:
    """Said before anything is asked."""
    assert "ollama needs no key" in relay.run("key", "add", "ollama", code=1).err


def test_several_keys_of_one_service_have_aliases_and_a_default(relay: Terminal) -> None:
    """The first is the default until another is made so."""
    relay.run("key", "add", "openai", stdin=CANARY)
    relay.run("key", "add", "openai", "--alias", "work", stdin=OTHER)
    relay.run("key", "default", "openai", "--alias", "work")
    defaults = {row["alias"]: row["default"] for row in relay.run("key", "list").rows}
    assert defaults == {"default": "no", "work": "yes"}
    relay.run("key", "remove", "openai", "--alias", "work")
    assert [row["default"] for row in relay.run("key", "list").rows] == ["yes"]


def test_a_key_is_rotated_in_place(relay: Terminal) -> None:
    """A new version under the same name."""
    relay.run("key", "add", "gemini", stdin=CANARY)
    said = relay.run("key", "rotate", "google-gemini", "--json", stdin=OTHER).json
    assert (said["service"], said["version"], said["key"]) == ("google-gemini", 2, "…3210")


def test_tenants_do_not_see_each_other(relay: Terminal) -> None:
    """`--tenant` names the owner; `--all` lists everybody's."""
    relay.run("key", "add", "openai", "--tenant", "research", stdin=CANARY)
    assert relay.run("key", "list").rows == []
    assert len(relay.run("key", "list", "--tenant", "research").rows) == 1
    assert len(relay.run("key", "list", "--all").rows) == 1
    relay.run("key", "remove", "openai", code=1)
    relay.run("key", "remove", "openai", "--tenant", "research")


@pytest.mark.parametrize(
    ("name", "hint"), [("opanai", "did you mean openai"), ("zzzzzz", "see keyrelay service list")]
)
def test_an_unknown_service_gets_a_hint(relay: Terminal, name: str, hint: str) -> None:
    """Near names, or where they are listed."""
    assert hint in relay.run("key", "add", name, stdin=CANARY, code=1).err


# The configuration's own keys.


def test_what_the_file_declares_is_listed_and_not_changeable(relay: Terminal) -> None:
    """Its values need not be in this shell's environment."""
    relay.write("data/keys.yaml", "keys: {openai: '${SERVER_HAS_IT}'}")
    [row] = relay.run("key", "list").rows
    assert (row["owner"], row["default"]) == ("file", "yes")
    for words in (("rotate", "openai"), ("default", "openai"), ("remove", "openai")):
        assert "configuration file" in relay.run("key", *words, stdin=CANARY, code=1).err
    assert "configuration file" in relay.run("key", "add", "openai", stdin=CANARY, code=1).err


def test_the_same_name_in_file_and_vault_can_be_mended(relay: Terminal) -> None:
    """Everything stops, and either of the two can be taken away."""
    relay.run("key", "add", "openai", stdin=CANARY)
    relay.write("data/keys.yaml", "keys: {openai: '${SERVER_HAS_IT}'}")
    assert "take it out of the file" in relay.run("key", "list", code=1).err
    relay.run("key", "remove", "openai", "--alias", "default")
    assert relay.run("key", "list").rows[0]["owner"] == "file"


def test_mistakes_of_the_configuration_stop_every_command(relay: Terminal) -> None:
    """One line each."""
    relay.write("data/keys.yaml", "server: {port: x}\nnonsense: 1\n")
    lines = relay.run("key", "list", code=1).err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"keyrelay: {relay.data / 'keys.yaml'}: server.port: ")


# Testing a key.


@pytest.mark.parametrize(
    ("status", "code", "said", "good"),
    [
        (200, 0, "the provider takes it (status 200)", True),
        (401, 1, "the provider refuses it (status 401)", False),
        (429, 0, "can't know: the provider answered with status 429", None),
    ],
)
def test_a_key_is_tested_by_one_authenticated_call(
    relay: Terminal, status: int, code: int, said: str, good: bool | None
) -> None:
    """The call that the service names, with the key where the service wants it."""
    with ThreadedOrigin(reply(status)) as origin:
        relay.write("data/keys.yaml", SERVICE.format(url=origin.url))
        relay.run("key", "add", "mine", stdin=CANARY)
        assert said in relay.run("key", "test", "mine", code=code).out
        assert relay.run("key", "test", "mine", "--json", code=code).json["good"] is good
        assert len(origin.requests) == 2
        assert origin.last.header("x-key") == CANARY
        assert origin.last.target == "/v1/me"


def test_a_declared_key_is_tested_with_its_value(relay: Terminal) -> None:
    """Then, and only then, its variable must be set in this shell."""
    with ThreadedOrigin(reply(200)) as origin:
        text = SERVICE.format(url=origin.url) + "keys: {mine: '${MINE}'}"
        relay.write("data/keys.yaml", text)
        assert "variable MINE" in relay.run("key", "test", "mine", code=1).err
        relay.environ["MINE"] = CANARY
        relay.run("key", "test", "mine")
        assert origin.last.header("x-key") == CANARY


def test_a_service_without_a_probe_says_that_it_cannot_know(relay: Terminal) -> None:
    """That is no failure."""
    relay.write("data/keys.yaml", SERVICE.format(url="http://127.0.0.1:1"))
    relay.run("key", "add", "silent", stdin=CANARY)
    assert "can't know: no cheap call is known" in relay.run("key", "test", "silent").out


def test_an_unreachable_provider_is_a_failure(relay: Terminal) -> None:
    """Whether the key is good stays unknown, and the sentence says why."""
    relay.write("data/keys.yaml", SERVICE.format(url="http://127.0.0.1:1"))
    relay.run("key", "add", "mine", stdin=CANARY)
    assert "refused" in relay.run("key", "test", "mine", code=1).err
    assert "no key work" in relay.run("key", "test", "mine", "--alias", "work", code=1).err


# At a terminal.


def at_terminal(shell: Terminal, words: list[str], answers: list[tuple[bytes, bytes]]) -> bytes:
    """Runs a command on a pseudo-terminal, answers each prompt, and gives all that was shown."""
    ours, theirs = os.openpty()

    def make_it_ours() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, "-m", "proxy.cli", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=make_it_ours,  # noqa: PLW1509 - no threads here
        env={**os.environ, "KEYRELAY_DATA": str(shell.data), "TERM": "dumb", "COLUMNS": "120"},
        cwd=shell.home,
    )
    os.close(theirs)
    shown, seen = b"", 0
    for prompt, answer in answers:
        while prompt not in shown[seen:]:
            shown += os.read(ours, 4096)
        seen = len(shown)
        os.write(ours, answer + b"\n")
    while chunk := _read(ours):
        shown += chunk
    os.close(ours)
    assert process.wait(30) == 0, shown
    return shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other side is closed
        return b""


def test_a_terminal_asks_for_the_key_without_echo(relay: Terminal) -> None:
    """What is typed is not shown."""
    shown = at_terminal(relay, ["key", "add", "openai"], [(b"API key: ", CANARY.encode())])
    assert CANARY.encode() not in shown
    assert b"added openai/default" in shown
    assert relay.run("key", "list").rows[0]["key"] == "…cdef"


def test_a_terminal_asks_before_something_is_lost(relay: Terminal) -> None:
    """A script has decided already, and so has --yes."""
    relay.run("key", "add", "openai", stdin=CANARY)
    shown = at_terminal(relay, ["key", "remove", "openai"], [(b"[y/N]: ", b"y")])
    assert b"remove the key openai/default of tenant default?" in shown
    assert relay.run("key", "list").rows == []


def test_a_terminal_gets_a_table(relay: Terminal) -> None:
    """Drawn for people; nothing in it is read as markup."""
    relay.run("key", "add", "openai", stdin=CANARY)
    shown = at_terminal(relay, ["key", "list"], [])
    assert b"\t" not in shown
    assert b"openai" in shown


def test_the_vault_holds_no_key_in_the_clear(relay: Terminal) -> None:
    """Nor does anything else in the data directory."""
    relay.run("key", "add", "openai", stdin=CANARY)
    for path in [one for one in Path(relay.data).rglob("*") if one.is_file()]:
        assert CANARY.encode() not in path.read_bytes()
