"""The verb of `keyrelay restore`: from a backup to a data directory; safe to kill and repeat."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from vault import schema
from vault.archive import Archive, Lock
from vault.backup import DATABASE_NAME
from vault.errors import AlreadyExists, SchemaTooNew, StoreUnavailable, Unopenable
from vault.files import reason_of, sync_directory, write_private
from vault.mastersource import FILE_NAME, FILE_NAMES, SEALED_NAME, MasterKeySource
from vault.records import Restored

_KEPT: Final = (DATABASE_NAME, FILE_NAME, SEALED_NAME)


async def restore_vault(
    data: Path, octets: bytes, lock: Lock, *, replace: bool = False
) -> Restored:
    """Puts the files of a backup into a data directory, which is made if it isn't there.

    Raises Unopenable for a file, passphrase or key that does not open, SchemaTooNew, AlreadyExists
    where a vault is there and `replace` does not say that it may go, and StoreUnavailable.
    """
    archive = await asyncio.to_thread(Archive.opened, octets, lock)
    _check(archive.files)
    source = MasterKeySource.find(data, {})
    try:
        source.make_directory()
        async with source.locked():
            _refuse_vault(data, replace)
            _put(data, archive.files)
    except OSError as error:
        raise StoreUnavailable(f"{data} can't be used ({reason_of(error)})") from error
    return Restored(archive.made_at, tuple(archive.files))


def _check(files: Mapping[str, bytes]) -> None:
    database = files.get(DATABASE_NAME)
    if not database:
        raise Unopenable("the backup holds no vault")
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.deserialize(database)
            sound = connection.execute("PRAGMA integrity_check").fetchall()
            [(revision,)] = connection.execute("SELECT version_num FROM alembic_version")
        except (sqlite3.Error, ValueError):
            raise Unopenable("the database in the backup is damaged; take another one") from None
    if sound != [("ok",)]:
        raise Unopenable("the database in the backup is damaged; take another one")
    if str(revision) > schema.HEAD:
        raise SchemaTooNew(
            f"the backup stands at revision {revision}, which this release does not know; "
            "install the newer keyrelay that wrote it"
        )


def _refuse_vault(data: Path, replace: bool) -> None:
    there = [str(data / name) for name in _KEPT if (data / name).exists()]
    if there and not replace:
        raise AlreadyExists(
            f"there is a vault already ({', '.join(there)}) and nothing was written; "
            "name another place with --data, or give up what is there with --replace"
        )


def _put(data: Path, files: Mapping[str, bytes]) -> None:
    """At any moment the key's files fit the database that is there, unless one that is sealed to a
    passphrase replaces another such: then a restore that was killed is to be run again."""
    key = files.get(FILE_NAME)
    if SEALED_NAME in files:  # beside a master.key both are read
        write_private(data / SEALED_NAME, files[SEALED_NAME])
    if key is not None:
        old = data / FILE_NAME
        write_private(old, key + (old.read_bytes() if old.exists() else b""))
    _end_journal(data / DATABASE_NAME)
    write_private(data / DATABASE_NAME, files[DATABASE_NAME])
    for name, octets in files.items():
        if name != DATABASE_NAME:
            write_private(data / name, octets)
    if any(name in files for name in FILE_NAMES):
        for name in set(FILE_NAMES) - set(files):
            (data / name).unlink(missing_ok=True)
        sync_directory(data)


def _end_journal(database: Path) -> None:
    """An unfinished journal of the old database would be played back into the new one."""
    if database.exists():
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(database)) as connection,
        ):
            connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    database.with_name(f"{database.name}-journal").unlink(missing_ok=True)
