"""What the configuration file declares, in the audit log: each difference to what that knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from vault import places
from vault.core import Core
from vault.declared import Declarations, DeclaredKey
from vault.keys import Keys
from vault.sealing import KeyedHasher, encode
from vault.secret import octets_of
from vault.tables import AUDIT

ACTOR: Final = "keys.yaml"

_THERE: Final = ("declare", "redeclare")
_ACTS: Final = ("key declare", "key redeclare", "key undeclare")
_PLACES: Final = ("backend declare", "backend undeclare")
_MARK_DIGITS: Final = 8


class _Thing(NamedTuple):
    """A key or a backend, by its name."""

    kind: str
    tenant: str
    name: str


Marks = Mapping[_Thing, str]
"""What tells one value of a key from another, and nothing else of it; empty for a backend."""


class Noting:
    """The verb `note_declared`."""

    def __init__(self, core: Core, keys: Keys) -> None:
        self._core = core
        self._keys = keys

    async def note(self) -> None:
        """Writes what was declared, changed or taken out since the log heard of it; else nothing.

        Several processes may: whoever comes second finds that it is written.
        """
        now = dict(_marks(self._core.declared, await self._keys.hasher()))
        async with self._core.reading() as connection:
            if await _noted(connection) == now:
                return
        async with self._core.acting_as(ACTOR).noting() as change:
            if acts := list(_acts(await _noted(change.connection), now)):
                await change.record_all(acts)


def _marks(declared: Declarations, hasher: KeyedHasher) -> Iterator[tuple[_Thing, str]]:
    keys = declared.keys()
    for key in keys:
        new = key.new
        yield _Thing("key", new.tenant, f"{new.service}/{new.alias}"), _mark(key, hasher)
    for backend in declared.backends():
        yield _Thing("backend", backend.tenant, places.subject_of(backend)), ""


def _mark(key: DeclaredKey, hasher: KeyedHasher) -> str:
    """Keyed, short, bound to the name: it tells nobody a value, nor that two names have one."""
    new = key.new
    parts = (encode(part, octets_of(new.credential[part])) for part in sorted(new.credential))
    name = (new.tenant, new.service, new.alias, int(key.default), new.recognised_by)
    octets = encode("keyrelay declared key 1", *name, encode(*new.hosts), *parts)
    return hasher.digest(octets).hex()[:_MARK_DIGITS]


async def _noted(connection: AsyncConnection) -> dict[_Thing, str]:
    """What the log says that the file declares."""
    a, found = AUDIT.c, dict[_Thing, str]()
    query = select(a.action, a.tenant, a.subject).where(a.action.in_((*_ACTS, *_PLACES)))
    for action, tenant, subject in await connection.execute(query.order_by(a.id)):
        kind, _, act = action.partition(" ")
        name, mark = subject, ""
        if kind == "key":  # neither a service nor an alias has a space in it
            name, _, mark = subject.partition(" ")
        found.pop(_Thing(kind, tenant, name), None)
        if act in _THERE:
            found[_Thing(kind, tenant, name)] = mark
    return found


def _acts(before: Marks, now: Marks) -> Iterator[tuple[str, str, str]]:
    for thing in before:
        if thing not in now:
            yield f"{thing.kind} undeclare", thing.tenant, thing.name
    for thing, mark in now.items():
        if before.get(thing) != mark:
            act = "redeclare" if thing in before else "declare"
            yield f"{thing.kind} {act}", thing.tenant, f"{thing.name} {mark}".rstrip()
