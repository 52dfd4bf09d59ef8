"""Many keys of new names, written together: a few statements, however many there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from vault import keyrows
from vault.audit import Change
from vault.keyrows import Name
from vault.records import NewKey
from vault.sealing import DataKey, KeyedHasher
from vault.tables import KEY_VERSIONS, KEYS

_K: Final = KEYS.c


def name_of(new: NewKey) -> Name:
    """What a key is called."""
    return new.tenant, new.service, new.alias


async def used_names(connection: AsyncConnection, names: Sequence[Name]) -> set[Name]:
    """Those of which anything is there, if only what a removed key has left."""
    found = set[Name]()
    for some in keyrows.in_parts(names):
        for table in (KEYS, KEY_VERSIONS):
            query = select(table.c.tenant, table.c.service, table.c.alias)
            for row in await connection.execute(query.where(keyrows.among(some, table))):
                found.add((row.tenant, row.service, row.alias))
    return found


async def add(change: Change, new: Sequence[NewKey], key: DataKey, hasher: KeyedHasher) -> None:
    """Stores the first version of each: names of which nothing is there, in the order given."""
    connection = change.connection
    query = select(_K.tenant, _K.service).where(_K.live).distinct()
    served = {(tenant, service) for tenant, service in await connection.execute(query)}
    added = int(await connection.scalar(select(func.max(_K.added))) or 0)
    names, versions = list[Mapping[str, object]](), list[Mapping[str, object]]()
    for number, one in enumerate(new, added + 1):
        name = {"tenant": one.tenant, "service": one.service, "alias": one.alias}
        first = (one.tenant, one.service) not in served
        served.add((one.tenant, one.service))
        numbers = {"version": 1, "first_version": 1, "added": number, "added_at": change.at}
        names.append({**name, **numbers, "live": True, "is_default": first})
        row = keyrows.version_of(one, 1, hasher, change.at)
        sealed = keyrows.sealed_columns(row, key, keyrows.packed(one.credential))
        versions.append({**name, **sealed})
    await change.book.insert(KEYS, names)
    await change.book.insert(KEY_VERSIONS, versions)
    await change.record_all(("key add", one.tenant, f"{one.service}/{one.alias}") for one in new)
