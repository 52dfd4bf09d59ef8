"""`keyrelay backup` and `keyrelay restore`: the vault in one file that is sealed."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from proxy.cli.commands import Command, accept_rollback_option
from proxy.cli.desk import Desk
from proxy.cli.failures import Failed
from proxy.cli.output import instant, json_option, show_done
from proxy.cli.secrets_in import read_passphrase
from proxy.cli.session import Session, open_vault_of, with_desk, with_mending_session
from proxy.config import ConfigError
from vault import AuditEntry, BackupKey, Secret, VaultError, restore_vault

BESIDE: Final = ("keys.yaml", "services.yaml")
NOT_IN_IT: Final = ("cache.db", "usage.db")
SEALED: Final = "master.sealed"
_PLACE: Final = click.Path(path_type=Path)
_file = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@click.command(cls=Command)
@_file
@click.option("--to-key", "key_file", type=_PLACE, help="seal it to the key in this file")
@click.option("--new-key", "new_key_file", type=_PLACE, help="make that key, in a new file")
@json_option
@with_mending_session
async def backup(
    session: Session, file: Path, key_file: Path | None, new_key_file: Path | None, as_json: bool
) -> None:
    """Write the vault to FILE, sealed to a passphrase or key; a server may go on meanwhile.

    The passphrase comes from a prompt or, as one line, from standard input. FILE holds the
    database, and of the data directory also the master key, keys.yaml and services.yaml where they
    lie in it. It does not hold kept answers and usage, nor what lies elsewhere.
    """
    lock = _lock(key_file, new_key_file)
    made = await session.vault.backup(file, lock, BESIDE)
    lacks = [*NOT_IN_IT, *([f"the master key of {made.outside}"] if made.outside else [])]
    lacks += [f"the passphrase of {SEALED}"] if SEALED in made.files else []
    config = session.desk.config_path
    if config is not None and config.name not in made.files:
        lacks.append(str(config))
    sentence = f"{file} holds {', '.join(made.files)}; it does not hold {', '.join(lacks)}"
    facts = {"file": str(file), "holds": made.files, "does not hold": lacks}
    show_done(sentence, facts, as_json)


@click.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--key", "key_file", type=_PLACE, help="open it with the key in this file")
@click.option("--replace", is_flag=True, help="give up the vault that is there")
@accept_rollback_option
@json_option
@with_desk
def restore(desk: Desk, file: Path, key_file: Path | None, replace: bool, as_json: bool) -> None:
    """Put the vault of a backup into the data directory; stop the server first.

    Where the anchor knows of newer changes, the vault opens only once that is accepted.
    The passphrase comes from a prompt or, as one line, from standard input.
    """
    _refuse_server(desk)
    octets = file.read_bytes()
    lock = BackupKey.read(key_file) if key_file else read_passphrase(again=False)
    with _alone(desk.data):
        done = asyncio.run(restore_vault(desk.data, octets, lock, replace=replace))
        # Where the vault does not open yet, who opens it will say why.
        with _quiet(not desk.accept_rollback):
            asyncio.run(_record(desk, done.made_at))
    sentence = (
        f"{desk.data} is as it was at {instant(done.made_at)}, with {', '.join(done.files)}: "
        "tokens revoked and keys rotated since then are back, so do that again"
    )
    facts = {"data": str(desk.data), "made at": instant(done.made_at), "files": done.files}
    show_done(sentence, facts, as_json)


def _refuse_server(desk: Desk) -> None:
    with contextlib.suppress(ConfigError):
        if desk.vault_place().url is not None:
            raise Failed(
                "a backup is restored to a file, and vault.url names a server: take that out of "
                "the configuration, restore, and move the vault there with keyrelay migrate"
            )


def _lock(key_file: Path | None, new_key_file: Path | None) -> Secret | BackupKey:
    if key_file is not None and new_key_file is not None:
        raise click.UsageError("--to-key and --new-key exclude one another")
    if new_key_file is not None:
        return BackupKey.make(new_key_file)
    return BackupKey.read(key_file) if key_file is not None else read_passphrase(again=True)


def _quiet(quiet: bool) -> contextlib.AbstractContextManager[None]:
    refusals = (VaultError, ConfigError) if quiet else ()
    return contextlib.suppress(*refusals)


async def _record(desk: Desk, made_at: float) -> None:
    """Leaves in the audit log what came back; an older vault is accepted first, if it may be."""
    vault = await open_vault_of(desk, desk.config())
    try:
        subject = f"as it was at {instant(made_at)}"
        entry = AuditEntry(desk.clock.now(), desk.actor, "vault restore", "", subject)
        await vault.note([entry])
    finally:
        await vault.close()


@contextlib.contextmanager
def _alone(data: Path) -> Iterator[None]:
    """No server may use the files that are about to be replaced."""
    lock = data / "cache.db.lock"
    if not lock.exists():
        yield
        return
    with os.fdopen(os.open(lock, os.O_RDWR), "r+b") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed(f"a server runs on {data}: stop it first") from None
        yield
