"""The command line: a table of commands, each imported when it is called.

`keyrelay key list` must not pay for the server's imports, so this file imports click alone.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from proxy.cli.commands import places
from proxy.cli.desk import desk_of
from proxy.cli.failures import report
from proxy.discretion import be_discreet

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "init": ("proxy.cli.init:init", "make the data directory, the master key and the databases"),
    "serve": ("proxy.cli.serve:serve", "run the proxy"),
    "key": ("proxy.cli.key:key", "add, list, rotate, remove and test provider keys"),
    "import": ("proxy.cli.importing:import_file", "seal every key of a YAML file into the vault"),
    "token": ("proxy.cli.token:token", "issue, list, change and revoke platform tokens"),
    "backend": ("proxy.cli.backend:backend", "say where else a service's key may go"),
    "service": ("proxy.cli.service:service", "show the services known by name"),
    "tenant": ("proxy.cli.tenant:tenant", "list and remove tenants"),
    "master": ("proxy.cli.master:master", "rotate the master key"),
    "backup": ("proxy.cli.backing:backup", "write the vault to a file, sealed to a passphrase"),
    "restore": ("proxy.cli.backing:restore", "put the vault of a backup into the data directory"),
    "migrate": ("proxy.cli.migrate:migrate", "move the vault to another database"),
    "audit": ("proxy.cli.audit:audit", "show who did what, and verify that nobody changed it"),
    "cache": ("proxy.cli.cache:cache", "show what the cache holds, or purge it"),
    "usage": ("proxy.cli.usage:usage", "say what was called, how well and at what price"),
    "explain": ("proxy.cli.explain:explain", "say what would happen to a call; sends nothing"),
    "check": ("proxy.cli.check:check", "read the configuration and say every mistake"),
}


class Keyrelay(click.Group):
    """The root: finds commands in the table, and turns every failure into one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The names in the order of the table."""
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002
        cmd_name: str,
    ) -> click.Command | None:
        """The command itself, imported now."""
        if cmd_name not in COMMANDS:
            return None
        if cmd_name == "serve":  # its imports take the longest: a reload meanwhile ends no server
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002
        formatter: click.HelpFormatter,
    ) -> None:
        """The list of `keyrelay --help`, without importing a single command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs a command line and ends the process: 0 done, 1 failed, 2 not understood."""
        name = prog_name or "keyrelay"
        _open_missing_streams()
        if not standalone_mode:
            return super().main(args, name, complete_var, standalone_mode=False, **extra)
        try:
            code = super().main(args, name, complete_var, standalone_mode=False, **extra)
        except (Exception, KeyboardInterrupt) as error:
            code = report(error)
        sys.exit(code if isinstance(code, int) else 0)


def _open_missing_streams() -> None:
    """A stream that was closed is empty, and no database gets its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - as long as we run


def _version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"keyrelay {importlib.metadata.version('keyrelay')}")
        ctx.exit()


@click.group(cls=Keyrelay, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="print the version",
)
@places
@click.pass_context
def keyrelay(ctx: click.Context) -> None:
    """Holds a team's provider keys so that nobody else has to.

    Secrets are read from a prompt or from standard input, never from an argument.
    """
    desk_of(ctx)


def main() -> None:
    """The command `keyrelay`."""
    be_discreet()
    keyrelay()
