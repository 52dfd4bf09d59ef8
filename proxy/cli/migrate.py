"""`keyrelay migrate`: the vault to another database, and what to write so that it is used."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import click

from proxy.cli.commands import Command
from proxy.cli.desk import Desk
from proxy.cli.failures import Failed
from proxy.cli.output import json_option, show_done
from proxy.cli.secrets_in import read_url
from proxy.cli.session import open_vault_of, require_data, with_desk
from proxy.config import resolve_url, url_of_vault
from proxy.limits.keeping import bring, forget, ledger_at, written_in_all
from proxy.limits.postgres import PostgresLedger
from vault import Moved

FILE: Final = "file"
_TABLES: Final = ("keys", "tokens", "backends", "audit")
_EXPOSED: Final = (
    "a URL with a password is never an argument: it stands in the shell's history and in the "
    "process list now; change the password, and name the URL by '${NAME}' or file:PATH, or type it"
)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where to: for the vault, and as it stands in the configuration."""

    place: str | Path = field(repr=False)
    setting: str | None


@click.command(cls=Command)
@click.option("--to", "to", help="postgresql://..., '${NAME}', file:PATH, or file for vault.db")
@json_option
@with_desk
def migrate(desk: Desk, to: str | None, as_json: bool) -> None:
    """Move the vault to another database: from its file to PostgreSQL, or back.

    Without --to the URL comes from a prompt or, as one line, from standard input. All is copied in
    one transaction and looked over there; what was left refuses itself from then on, so that no two
    vaults go on apart. The master key stays where it is. A server may run meanwhile: it changes
    nothing more, serves who was seen for server.vault_grace, and is to be started again with the
    line of configuration that this prints.
    """
    require_data(desk)
    place = _place(desk, to)
    moved = asyncio.run(_moved(desk, place))
    told = ", ".join(f"{moved.rows[name]} {name}" for name in _TABLES)
    facts: dict[str, object] = {
        "from": moved.left,
        "to": moved.entered,
        "rows": {str(name): count for name, count in moved.rows.items()},
        "vault.url": place.setting,
    }
    sentence = f"the vault is in {moved.entered} now ({told}), and no longer in {moved.left}"
    show_done(f"{sentence}; {_next(place)}{_of_usage(desk, moved, place)}", facts, as_json)


async def _moved(desk: Desk, place: _Place) -> Moved:
    """A file of usage follows later, with the first server; of a database only what is for good is
    taken along, and read before anything else happens."""
    config = desk.config()
    url = config.vault.url
    calls = {} if url is None else await written_in_all(ledger_at(desk.data, url.text))
    if calls is None:
        raise Failed("what tokens have called in all can't be read; nothing was moved: try again")
    there = place.place if isinstance(place.place, str) else None
    vault = await open_vault_of(desk, config)
    try:
        moved = await vault.move(place.place, partial(_make_ready, there))
    finally:
        await vault.close()
    if calls and not await bring(calls, ledger_at(desk.data, there)):
        raise Failed(
            f"the vault is in {moved.entered} now, but not what tokens with --calls have called: "
            "those begin anew there; issue them anew"
        )
    return moved


async def _make_ready(url: str | None) -> None:
    """What a database that was left has counted for good is older than what comes: in the file of
    usage, or with `bring`. It would be counted twice."""
    if url is not None and not await forget(PostgresLedger(url)):
        raise Failed("calls in all of before can't be reset there; nothing was moved: try again")


def _place(desk: Desk, to: str | None) -> _Place:
    if to == FILE:
        return _Place(desk.data / "vault.db", None)
    if to is not None and _holds_password(to):
        raise Failed(_EXPOSED)
    try:
        url = read_url() if to is None else resolve_url(to, desk.environ, Path())
        return _Place(url_of_vault(url), _setting(to))
    except ValueError as error:
        raise Failed(str(error)) from error


def _holds_password(to: str) -> bool:
    place = to.partition("://")[2]
    before, _, options = place.partition("?")
    user = (before if "@" in before else place).rpartition("@")[0]
    return ":" in user or "password=" in options.lower()


def _setting(to: str | None) -> str:
    """As it is to stand in the configuration, whose files are named as seen from there."""
    if to is None:
        return "${NAME}  # or file:PATH: where the URL is that you gave"
    name = to.removeprefix("file:")
    return to if name == to else f"file:{Path(name).expanduser().absolute()}"


def _of_usage(desk: Desk, moved: Moved, place: _Place) -> str:
    """Where it is to be found; what a server still writes goes with it."""
    if place.setting is None:
        return (
            f"\n\nusage stays in {moved.left}, and begins anew in usage.db; what tokens with "
            "--calls have called came along"
        )
    if (file := desk.data / "usage.db").exists():
        return f"\n\nthe first server that starts with it takes the usage of {file} over"
    return ""


def _next(place: _Place) -> str:
    if place.setting is None:
        return "take vault.url out of the configuration, and start every server again"
    return (
        f"write this into the configuration, and start every server again:\n\n"
        f"vault:\n  url: {place.setting}"
    )
