"""Keys and tokens in every place of every command: none is repeated, none is left in a file."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from proxy.cli import keyrelay
from tests.proxy.cli.conftest import Terminal
from tests.support.canaries import files, holds

KEY = "sk-CANARY/0123456789+abcdefghijklmnop-0123456789"
PLACES = ("data", "config", "host", "key_file", "new_key_file")
"""Where something is: a failure names it, whatever it is."""
READING = (("import",), ("check",), ("restore",), ("backup",))
"""Their argument is the name of a file."""


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


@pytest.mark.parametrize("path", list(commands(keyrelay)), ids=" ".join)
def test_no_command_repeats_a_key_or_a_token(relay: Terminal, path: tuple[str, ...]) -> None:
    """As an argument, as an option's value, on standard input; with a vault that has both."""
    relay.run("key", "add", "openai", stdin=KEY + "\n")
    token = relay.run("token", "issue", "ann").out.strip()
    context = click.Context(keyrelay)
    command: click.Command | None = keyrelay
    for name in path:
        assert isinstance(command, click.Group)
        command = command.get_command(context, name)
    assert command is not None
    options = [
        param.opts[-1]
        for param in command.params
        if isinstance(param, click.Option) and not param.is_flag and param.name not in PLACES
    ]
    for text in (KEY, token):
        lines = [(f"--{text}",), ("openai", text)]
        if path not in READING:
            lines += [(text,), (text, text), (f"openai={text}",)]
        lines += [(option, text) for option in options]
        lines += [("openai", option, text) for option in options]
        if path != ("serve",):  # it would begin to serve
            lines += [(), ("openai",), ("ann",), ("openai", "--alias", "more")]
        for words in lines:
            said = tried(relay, (*path, *words), f"{text}\n{text}\n")
            assert holds(said.encode(), KEY, token) == [], (path, words)
    for found, octets in files(relay.data):
        assert (found.name, holds(octets, KEY, token)) == (found.name, [])


def tried(shell: Terminal, words: tuple[str, ...], stdin: str) -> str:
    """What a command prints, however it ends."""
    env = {"KEYRELAY_DATA": str(shell.data)}
    result = CliRunner(env=env).invoke(keyrelay, list(words), input=stdin)
    assert "Traceback" not in result.output
    return result.stdout + result.stderr
