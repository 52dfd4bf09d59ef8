"""The random data keys, one per purpose: made on first use, stored wrapped, held unwrapped here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from vault.audit import Change
from vault.errors import MasterKeyMissing, Unopenable
from vault.keyring import MasterKey, MasterKeys
from vault.mastersource import MasterKeySource
from vault.register import Register
from vault.registering import entry_in, held_rows, refused
from vault.sealing import DataKey
from vault.tables import DATA_KEYS, STATE

KEYS: Final = "keys"
FINGERPRINTS: Final = "fingerprints"
SHORT_LIVED: Final = "short-lived-tokens"
SEALED: Final = b"sealed"
"""The mark of the key that seals the vault's state, from its first seal on: nobody without the
master key makes a sealed vault pass for one of a release that did not seal."""


class DataKeys:
    """The data keys of one vault. What was unwrapped once works on when the master key changes."""

    def __init__(self, source: MasterKeySource, masters: MasterKeys) -> None:
        self.source = source
        self._masters = masters
        self._known: dict[bytes, DataKey] = {}
        self._current: dict[str, DataKey] = {}

    def anew(self) -> DataKeys:
        """The same master keys, and nothing unwrapped yet."""
        return DataKeys(self.source, self._masters)

    @property
    def known(self) -> Mapping[bytes, DataKey]:
        """Every data key that the database holds, by id; changes in place."""
        return self._known

    def current(self, purpose: str) -> DataKey | None:
        """The key that new things of this purpose are sealed with, as of the last `load`."""
        return self._current.get(purpose)

    @property
    def sealed(self) -> bool:
        """Whether the vault was sealed and registered once, as of the first `load`."""
        key = self.current(FINGERPRINTS)
        return key is not None and key.mark == SEALED

    async def load(self, connection: AsyncConnection, register: Register | None = None) -> None:
        """Unwraps what is new in the database and forgets what is gone from it.

        Raises MasterKeyMissing where no master key fits, and Unopenable for a changed row; with a
        register also for one that was put back or taken out.
        """
        query = select(DATA_KEYS).order_by(DATA_KEYS.c.number)
        found = (await connection.execute(query)).all()
        if register is not None:
            _judge(found, register)
        keys = [self._unwrapped(row) for row in found]
        self._known.clear()
        self._known.update({key.id: key for key in keys})
        self._current = {key.purpose: key for key in keys}

    def adopt(self, key: DataKey) -> None:
        """Remembers what `ensure` returned, once its transaction is durable."""
        self._known[key.id] = self._current[key.purpose] = key

    async def ensure(self, change: Change, purpose: str) -> DataKey:
        """The current key of a purpose as this transaction sees it; made if there is none.

        Not remembered here: the transaction may still fail.
        """
        stored = await self.stored(change.connection, purpose, change.book.register)
        return stored if stored is not None else await self.make(change, purpose)

    async def stored(
        self, connection: AsyncConnection, purpose: str, register: Register | None = None
    ) -> DataKey | None:
        """The current key of a purpose as a transaction sees it, or None."""
        newest = select(DATA_KEYS).where(DATA_KEYS.c.purpose == purpose)
        found = await connection.execute(newest.order_by(DATA_KEYS.c.number.desc()).limit(1))
        row = found.first()
        if row is None:
            return None
        if register is not None and not register.knows(entry := entry_in(row, DATA_KEYS)):
            raise refused(entry.name)
        return self._unwrapped(row)

    async def make(self, change: Change, purpose: str) -> DataKey:
        """A new data key, from now on the current one of its purpose."""
        if purpose == FINGERPRINTS and await held_rows(change.connection):
            raise Unopenable(
                f"the vault's data key ({FINGERPRINTS}) is gone, though the vault holds keys, "
                "tokens or backends; restore the database from a backup"
            )
        key = DataKey.random(purpose)
        master = await self._wrapping_master(change.connection)
        highest = select(func.max(DATA_KEYS.c.number)).where(DATA_KEYS.c.purpose == purpose)
        number = await change.connection.scalar(highest) or 0
        row = {"id": key.id.hex(), "purpose": purpose, "number": number + 1}
        wrapped = {"master_id": master.id, "wrapped": master.wrap(key), "created_at": change.at}
        await change.book.write(insert(DATA_KEYS).values(**row, **wrapped))
        await change.record("data-key make", "", purpose)
        return key

    async def renew(self, change: Change, purpose: str) -> None:
        """A new data key in the place of the one of a purpose, where there is one: what it vouched
        for is over."""
        if await self.stored(change.connection, purpose, change.book.register) is None:
            return
        key = await self.make(change, purpose)
        older = (DATA_KEYS.c.purpose == purpose, DATA_KEYS.c.id != key.id.hex())
        await change.book.write(delete(DATA_KEYS).where(*older))

    async def rewrap(self, change: Change, masters: MasterKeys) -> int:
        """Wraps every data key with the current one of `masters`; returns how many had another."""
        self._masters = masters
        master = masters.current
        other = select(DATA_KEYS).where(DATA_KEYS.c.master_id != master.id)
        rows = (await change.connection.execute(other)).all()
        for row in rows:
            key = self._unwrapped(row)
            if key.purpose == FINGERPRINTS:  # another process may have marked it since
                key = key.marked(SEALED)
            values = {"master_id": master.id, "wrapped": master.wrap(key)}
            mine = update(DATA_KEYS).where(DATA_KEYS.c.id == row.id)
            await change.book.write(mine.values(**values))
        await change.connection.execute(update(STATE).values(master_id=master.id))
        return len(rows)

    async def mark(self, change: Change) -> bool:
        """Lets the key that seals the vault say that it is sealed; False where it says so already.

        Raises Unopenable for a changed row.
        """
        own = select(DATA_KEYS).where(DATA_KEYS.c.purpose == FINGERPRINTS)
        row = (await change.connection.execute(own)).one()
        key = self._opened(row)  # what is held may be older than what another process wrote
        if key.mark == SEALED:
            return False
        wrapped = self._master(row.master_id).wrap(key.marked(SEALED))
        mine = update(DATA_KEYS).where(DATA_KEYS.c.id == row.id)
        await change.book.write(mine.values(wrapped=wrapped))
        return True

    async def _wrapping_master(self, connection: AsyncConnection) -> MasterKey:
        # The database names the master key that wraps: a process that read an older key file must
        # not wrap with a key that a rotation in another process is about to drop.
        master_id = await connection.scalar(select(STATE.c.master_id))
        if master_id is None:
            await connection.execute(update(STATE).values(master_id=self._masters.current.id))
            return self._masters.current
        return self._master(master_id)

    def _unwrapped(self, row: Row[Any]) -> DataKey:
        key_id = _id_of(row)
        held = self._known.get(key_id)
        if held is not None and held.purpose == row.purpose:
            return held
        return self._opened(row)

    def _opened(self, row: Row[Any]) -> DataKey:
        marks = (SEALED, b"") if row.purpose == FINGERPRINTS else (b"",)
        return self._master(row.master_id).unwrap(_id_of(row), row.purpose, row.wrapped, marks)

    def _master(self, master_id: str) -> MasterKey:
        master = self._masters.by_id(master_id)
        if master is None:
            self._masters = self.source.read()
            master = self._masters.by_id(master_id)
        if master is None:
            raise MasterKeyMissing(
                f"the master key of {self.source.described} does not fit this database, which "
                f"needs the one with id {master_id}; restore that key"
            )
        return master


def _judge(rows: Sequence[Row[Any]], register: Register) -> None:
    """Raises Unopenable for a row that should be other than it is."""
    entries = [entry_in(row, DATA_KEYS) for row in rows]
    odd = [entry.name for entry in entries if not register.knows(entry)]
    gone = sorted(set(register.named(DATA_KEYS.name)) - {entry.name for entry in entries})
    for name in (*odd, *gone):
        raise refused(name)


def _id_of(row: Row[Any]) -> bytes:
    """The id of a row's data key; raises Unopenable for a row that is none of ours."""
    try:
        key_id = bytes.fromhex(row.id)
    except (ValueError, TypeError):
        key_id = b""
    if isinstance(row.wrapped, bytes) and key_id.hex() == row.id:
        return key_id
    raise Unopenable(
        f"data key {row.id!r} ({row.purpose}) does not open; restore the database from a backup"
    )
