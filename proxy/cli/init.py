"""`keyrelay init`: the data directory, the master key, the databases."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import click

from proxy.cache.schema import open_for_writing
from proxy.cli.commands import Command
from proxy.cli.desk import Desk
from proxy.cli.output import json_option, show_done
from proxy.cli.secrets_in import read_passphrase
from proxy.cli.session import open_vault_of, with_desk
from proxy.config import Config
from vault import Secret

CACHE: Final = "cache.db"


@click.command(cls=Command)
@click.option("--passphrase", "sealed", is_flag=True, help="seal the master key to a passphrase")
@json_option
@with_desk
def init(desk: Desk, sealed: bool, as_json: bool) -> None:
    """Make the data directory (0700), the master key (0600) and the databases.

    What is there already stays as it is. A passphrase comes from a prompt or, as one line, from
    standard input. Later it is read from the file that KEYRELAY_MASTER_PASSPHRASE_FILE names, or
    asked for on a terminal.
    """
    asyncio.run(make(desk, read_passphrase(again=True) if sealed else None))
    kept = "its passphrase, and of master.sealed," if sealed else "its master key"
    sentence = (
        f"{desk.data} is ready: keep a copy of {kept} elsewhere; next: keyrelay key add SERVICE"
    )
    show_done(sentence, {"data": str(desk.data)}, as_json)


async def make(desk: Desk, new_passphrase: Secret | None = None) -> None:
    """Makes what is missing; refuses a key without its database, and a database without its key."""
    make_directory(desk.data)
    config = desk.config() if desk.config_path else Config()
    vault = await open_vault_of(desk, config, create=True, new_passphrase=new_passphrase)
    await vault.close()
    cache = desk.data / CACHE
    if not cache.exists():
        open_for_writing(cache).close()


def make_directory(data: Path) -> None:
    """The data directory, for its owner alone; one that is there keeps its mode."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
