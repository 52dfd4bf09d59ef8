"""The verb of `keyrelay migrate`: the vault as it is in another database, no longer in this one.

While it copies nobody changes the vault. The copy is looked over before it counts; then the old
database says that it was left, so that no two go on apart. Killed in between, the old one goes on,
and the copy is made anew by the next run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from sqlalchemy import delete, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from vault import schema
from vault.anchor import Point, point_of
from vault.auditing import Auditing
from vault.chain import State
from vault.core import Core, Moment
from vault.datakeys import FINGERPRINTS
from vault.errors import AlreadyExists, Invalid, Unopenable
from vault.records import Moved
from vault.registering import faults, read
from vault.store import Inside, Store, hold, state_in
from vault.tables import AUDIT, DATA_KEYS, METADATA

Ready = Callable[[], Awaitable[None]]
"""What else is to be done there before the copy counts; what it raises undoes the copy."""

MOVE: Final = "vault migrate"
"""The action of the last row of a copy."""

_AT_ONCE: Final = 1000
_TABLES: Final = METADATA.sorted_tables
_STANDS: Final = text("UPDATE alembic_version SET version_num = :at")


class Moving:
    """The verb `move`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def move(self, place: str | Path, ready: Ready | None = None) -> Moved:
        """To a URL or a SQLite file. Raises AlreadyExists where another vault is there, Unopenable
        where the copy is not sound, Invalid, StoreUnavailable, and what `ready` raises."""
        there = Store.at(place)
        try:
            return await self._move(there, ready)
        finally:
            await there.close()

    async def _move(self, there: Store, ready: Ready | None) -> Moved:
        here = self._core.store
        if here.described == there.described:
            raise Invalid(f"the vault is in {there.described} already")
        there.make_file()
        await _prepare(there)
        async with here.writing() as old:
            await here.engine.require_alone(old)
            state = await hold(old)
            self._core.judge(await self._core.generation_hasher(), state)
            async with there.engine.writing() as new:
                await there.engine.require_alone(new)
                await _make_room(old, new, there, state)
                rows = await _copy(old, new)
                await there.engine.count_on(new)
                await self._look_over(new, rows)
                await self._record(new, there)
                if ready is not None:
                    await ready()
            await old.execute(_STANDS, {"at": schema.MOVED})
        return Moved(here.described, there.described, rows)

    async def _look_over(self, new: AsyncConnection, rows: dict[str, int]) -> None:
        """Raises Unopenable unless every row is there, and as it was written, under our keys."""
        counts = {table.name: select(func.count()).select_from(table) for table in _TABLES}
        found = {name: await new.scalar(query) for name, query in counts.items()}
        core = self._as_if_open(new)
        register = await read(new, (await state_in(new)).root or b"", None)
        await core.data_keys.load(new, register)
        odd = await faults(new, register)
        log = await Auditing(core).verify()
        odd += [f"row {fault.row} of the audit log {fault.what}" for fault in log.faults]
        odd += [f"{name} differs in number" for name in rows if rows[name] != found[name]]
        if odd:
            more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
            raise Unopenable(
                f"nothing was moved, for {odd[0]}{more}; see keyrelay audit verify, and restore "
                "the database from a backup, or remove what does not open"
            )

    async def _record(self, new: AsyncConnection, there: Store) -> None:
        async with self._as_if_open(new).changing() as change:
            subject = f"{self._core.store.described} to {there.described}"
            await change.record(MOVE, "", subject)

    def _as_if_open(self, connection: AsyncConnection) -> Core:
        """What is inside a transaction, as a vault; the anchor hears of it once it is opened."""
        core = self._core
        inside = Inside(connection)
        return Core(inside, core.data_keys.anew(), core.clock, core.actor, Moment(core.anchor))


async def _prepare(there: Store) -> None:
    """Empty, it gets its tables; else it must stand where this release does, or have been left."""
    async with there.reading() as connection:
        revision = await connection.run_sync(schema.revision_of)
    if revision not in (schema.HEAD, schema.MOVED, None):
        raise Invalid(f"{there.described} stands at revision {revision}; name an empty database")
    if revision is None:
        await there.prepare()


async def _make_room(
    old: AsyncConnection, new: AsyncConnection, there: Store, state: State
) -> None:
    """Empties the target of what is an earlier copy of the same vault, and of nothing else."""
    mine, other = await _name_of(old), await _name_of(new)
    if other is not None and mine != other:
        raise AlreadyExists(f"there is another vault in {there.described}; name an empty database")
    if other is not None and await _has_more(new, state):
        raise AlreadyExists(f"the same vault is in {there.described}, and newer: go on with that")
    for table in reversed(_TABLES):
        await new.execute(delete(table))
    await new.execute(_STANDS, {"at": schema.HEAD})


async def _has_more(new: AsyncConnection, state: State) -> bool:
    """Whether a copy went on. One that ends with the row of its making did not: whoever made it
    was killed before the old database could say that it was left."""
    there, here = point_of(await state_in(new)), point_of(state)
    if state.head is None or there != Point(here.generation + 1, here.rows + 1):
        return there > here
    link = await new.scalar(select(AUDIT.c.link).where(AUDIT.c.id == here.rows))
    last = await new.scalar(select(AUDIT.c.action).where(AUDIT.c.id == there.rows))
    return (link, last) != (state.head.link, MOVE)


async def _name_of(connection: AsyncConnection) -> str | None:
    """What tells a vault from every other: the data key that is never replaced."""
    query = select(DATA_KEYS.c.id).where(DATA_KEYS.c.purpose == FINGERPRINTS)
    found: str | None = await connection.scalar(query.limit(1))
    return found


async def _copy(old: AsyncConnection, new: AsyncConnection) -> dict[str, int]:
    """How many rows of each table."""
    rows = dict.fromkeys((table.name for table in _TABLES), 0)
    for table in _TABLES:
        found = await old.stream(select(table))
        async for some in found.partitions(_AT_ONCE):
            await new.execute(insert(table), [dict(row._mapping) for row in some])
            rows[table.name] += len(some)
    return rows
