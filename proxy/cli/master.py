"""`keyrelay master`: a new master key, without losing anything that it guards."""

from __future__ import annotations

import click

from proxy.cli.commands import Group
from proxy.cli.output import json_option, show_done
from proxy.cli.secrets_in import read_passphrase
from proxy.cli.session import Session, with_session
from vault import Guard, Rotation


@click.group(cls=Group)
def master() -> None:
    """Rotate the master key."""


@master.command()
@click.option("--reseal", is_flag=True, help="encrypt every key anew, end all short-lived tokens")
@click.option(
    "--passphrase/--no-passphrase",
    "sealed",
    default=None,
    help="give the master key a new passphrase, or keep it in master.key without one",
)
@json_option
@with_session
async def rotate(session: Session, reseal: bool, sealed: bool | None, as_json: bool) -> None:
    """Wrap the data keys under a new master key. Safe to kill; run again, it goes on.

    master.key gets a new key by itself. With KEYRELAY_MASTER_KEY or KEYRELAY_MASTER_KEY_FILE put
    the new key first there, restart the server, run this, then take the old one out.
    A new passphrase comes from a prompt or, as one line, from standard input: put it into the file
    of KEYRELAY_MASTER_PASSPHRASE_FILE afterwards, and restart the server.
    """
    done = await session.vault.rotate_master(reseal=reseal, guard=_guard(sealed))
    facts = {
        "source": done.source,
        "resumed": done.resumed,
        "data keys": done.rewrapped,
        "keys sealed anew": done.resealed,
    }
    show_done(_sentence(done), facts, as_json)


def _guard(sealed: bool | None) -> Guard:
    if sealed is None:
        return "as before"
    return read_passphrase(again=True, title="New passphrase") if sealed else "none"


def _sentence(done: Rotation) -> str:
    resumed = "finished the rotation that was interrupted; " if done.resumed else ""
    resealed = f", {done.resealed} keys sealed anew" if done.resealed else ""
    return (
        f"{resumed}{done.rewrapped} data keys are wrapped by the current key of {done.source}"
        f"{resealed}: keep a copy of it elsewhere"
    )
