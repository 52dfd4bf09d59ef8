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
from proxy.cli.session import with_desk
from vault import open_vault

CACHE: Final = "cache.db"


@click.command(cls=Command)
@json_option
@with_desk
def init(desk: Desk, as_json: bool) -> None:
    """Make the data directory (0700), the master key (0600) and the databases.

    What is there already stays as it is.
    """
    asyncio.run(make(desk))
    sentence = (
        f"{desk.data} is ready: keep a copy of its master key elsewhere; "
        "next: keyrelay key add SERVICE"
    )
    show_done(sentence, {"data": str(desk.data)}, as_json)


async def make(desk: Desk) -> None:
    """Makes what is missing; refuses a key without its database, and a database without its key."""
    make_directory(desk.data)
    vault = await open_vault(
        desk.data,
        desk.environ,
        desk.clock,
        create=True,
        actor=desk.actor,
        master_key_command=desk.config().server.master_key_command if desk.config_path else (),
    )
    await vault.close()
    cache = desk.data / CACHE
    if not cache.exists():
        open_for_writing(cache).close()


def make_directory(data: Path) -> None:
    """The data directory, for its owner alone; one that is there keeps its mode."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
