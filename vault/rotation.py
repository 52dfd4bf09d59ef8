"""Rotates the master key, and re-seals every row if asked; safe to kill at any moment.

Each step leaves a state in which the vault opens, and from which running it again goes on:
the key file holds the new key and the old one; then the database is wrapped by the new one, in one
transaction; then the file holds the new one alone. Re-sealing makes a second data key, moves the
rows over in batches, and drops the first when no row needs it; the one that vouches for short-lived
tokens is replaced with its first step, so that who stole it makes none any more.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final

from sqlalchemy import delete, func, select

from vault import keyrows
from vault.core import Core
from vault.datakeys import KEYS, SHORT_LIVED
from vault.errors import StoreUnavailable
from vault.files import reason_of
from vault.keyring import MasterKey, MasterKeys
from vault.keys import Keys
from vault.mastersource import MasterKeySource
from vault.records import Guard, Rotation
from vault.tables import DATA_KEYS

_BATCH: Final = 200
"""Rows that are re-sealed in one transaction, so that others can write in between."""


class Rotating:
    """The verb `rotate_master`."""

    def __init__(self, core: Core, keys: Keys) -> None:
        self._core = core
        self._keys = keys

    @property
    def _source(self) -> MasterKeySource:
        return self._core.data_keys.source

    async def rotate(self, reseal: bool, guard: Guard) -> Rotation:
        """A new master key; or the rest of a rotation that was interrupted, and then no other.

        With an outside source the new key is the one that stands first in it by now. With another
        guard than before it is a new key in any case; raises Invalid for an outside source.
        """
        try:
            return await self._rotate(reseal, self._guarded(guard))
        except OSError as error:
            raise StoreUnavailable(
                f"the master key {self._source.described} can't be replaced now "
                f"({reason_of(error)}); nothing is lost: see that its disk is writable and not "
                "full, and run keyrelay master rotate again"
            ) from error

    def _guarded(self, guard: Guard) -> MasterKeySource:
        if guard == "as before":
            return self._source
        return self._source.unsealed() if guard == "none" else self._source.sealed_to(guard)

    async def _rotate(self, reseal: bool, source: MasterKeySource) -> Rotation:
        async with self._alone():
            masters = self._source.read()
            unfinished = await self._reseal_unfinished()
            resumed = unfinished or (source.ours and bool(masters.retired))
            if source.ours and (source is not self._source or not resumed):
                masters = MasterKeys(MasterKey.random(), (masters.current, *masters.retired))
                source.write(masters)
                self._core.data_keys.source = source
            rewrapped = await self._rewrap(masters)
            if source.ours and masters.retired:
                source.write(MasterKeys(masters.current))
                source.end_other()
            resealed = await self._reseal(unfinished) if unfinished or reseal else 0
        return Rotation(source.described, resumed, rewrapped, resealed)

    def _alone(self) -> AbstractAsyncContextManager[None]:
        # An outside source is not rewritten, and the database's own transactions are enough.
        return self._source.locked() if self._source.ours else nullcontext()

    async def _rewrap(self, masters: MasterKeys) -> int:
        other = DATA_KEYS.c.master_id != masters.current.id
        async with self._core.reading() as connection:
            count = await connection.scalar(select(func.count()).where(other))
        if not count:
            return 0
        async with self._core.changing() as change:
            rewrapped = await self._core.data_keys.rewrap(change, masters)
            await change.record("master rotate", "", masters.current.id)
        return rewrapped

    async def _reseal_unfinished(self) -> bool:
        mine = select(func.count()).where(DATA_KEYS.c.purpose == KEYS)
        async with self._core.reading() as connection:
            return int(await connection.scalar(mine) or 0) > 1

    async def _reseal(self, unfinished: bool) -> int:
        if not unfinished:
            async with self._core.changing() as change:
                await self._core.data_keys.make(change, KEYS)
                await self._core.data_keys.renew(change, SHORT_LIVED)
        resealed = 0
        while moved := await self._move_batch():
            resealed += moved
        await self._core.reload_data_keys()
        return resealed

    async def _move_batch(self) -> int:
        """Re-seals some rows; once there are none left, drops the data keys that nothing needs."""
        async with self._core.changing() as change:
            key = await self._core.data_keys.ensure(change, KEYS)
            rows = await keyrows.sealed_otherwise(change.connection, key.id.hex(), _BATCH)
            for row in rows:
                plain = await self._keys.opened(change.connection, row, change.book.register)
                await keyrows.reseal(change, row, key, plain)
            if not rows:
                older = (DATA_KEYS.c.purpose == KEYS, DATA_KEYS.c.id != key.id.hex())
                await change.book.write(delete(DATA_KEYS).where(*older))
                await change.record("master reseal", "", key.id.hex())
            return len(rows)
