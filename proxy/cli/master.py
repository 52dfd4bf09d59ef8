"""`keyrelay master`: a new master key, without losing anything that it guards."""

from __future__ import annotations

import click

from proxy.cli.commands import Group
from proxy.cli.output import json_option, show_done
from proxy.cli.session import Session, with_session
from vault import Rotation


@click.group(cls=Group)
def master() -> None:
    """Rotate the master key."""


@master.command()
@click.option("--reseal", is_flag=True, help="encrypt every key anew, not only the data keys")
@json_option
@with_session
async def rotate(session: Session, reseal: bool, as_json: bool) -> None:
    """Wrap the data keys under a new master key. Safe to kill; run again, it goes on.

    master.key gets a new key by itself. With KEYRELAY_MASTER_KEY or KEYRELAY_MASTER_KEY_FILE put
    the new key first there, restart the server, run this, then take the old one out.
    """
    done = await session.vault.rotate_master(reseal=reseal)
    facts = {
        "source": done.source,
        "resumed": done.resumed,
        "data keys": done.rewrapped,
        "keys sealed anew": done.resealed,
    }
    show_done(_sentence(done), facts, as_json)


def _sentence(done: Rotation) -> str:
    resumed = "finished the rotation that was interrupted; " if done.resumed else ""
    resealed = f", {done.resealed} keys sealed anew" if done.resealed else ""
    return (
        f"{resumed}{done.rewrapped} data keys are wrapped by the current key of {done.source}"
        f"{resealed}: keep a copy of it elsewhere"
    )
