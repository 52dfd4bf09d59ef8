"""The verb of `keyrelay backup`: the vault as it is at one moment, while others go on using it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from vault.archive import Archive, Lock
from vault.core import Core
from vault.errors import Invalid, StoreUnavailable
from vault.files import reason_of, write_private
from vault.mastersource import FILE_NAMES, MasterKeySource
from vault.records import BackupMade

DATABASE_NAME: Final = "vault.db"


class BackingUp:
    """The verb `backup`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    @property
    def _source(self) -> MasterKeySource:
        return self._core.data_keys.source

    async def backup(self, path: Path, lock: Lock, beside: Iterable[str]) -> BackupMade:
        """Writes the file, mode 0600; raises Invalid, Unopenable, StoreUnavailable.

        `beside`: names of other files of the data directory, taken where they are there.
        """
        async with self._source.locked():  # no rotation between the key's file and the database
            await self._core.reload_data_keys()  # what does not open is no backup
            names = (FILE_NAMES if self._source.ours else ()) + tuple(beside)
            files = {DATABASE_NAME: await self._core.store.snapshot()}
            files |= await asyncio.to_thread(_read, self._source.data, names)
        archive = Archive(self._core.clock.now(), files)
        await asyncio.to_thread(_write, path, archive, lock)
        async with self._core.changing() as change:
            await change.record("vault backup", "", ", ".join(files))
        return BackupMade(tuple(files), None if self._source.ours else self._source.described)


def _read(data: Path, names: Iterable[str]) -> dict[str, bytes]:
    return {name: (data / name).read_bytes() for name in names if (data / name).is_file()}


def _write(path: Path, archive: Archive, lock: Lock) -> None:
    if path.exists():
        raise Invalid(f"{path} is there already; name another file, or move it away")
    octets = archive.sealed(lock)
    try:
        write_private(path, octets)
    except OSError as error:
        raise StoreUnavailable(f"{path} can't be written ({reason_of(error)})") from error
