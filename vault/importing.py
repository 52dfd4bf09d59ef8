"""Many keys and backends in one transaction: all that an import file holds, or nothing of it."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

from vault import keyrows, newkeys, places
from vault.audit import Change
from vault.core import Core
from vault.datakeys import KEYS
from vault.errors import Invalid
from vault.keyrows import StoredKey
from vault.keys import Keys, check_new
from vault.newkeys import name_of, used_names
from vault.records import Applied, Backend, Changes, Done, NewKey, Outcome
from vault.sealing import KeyedHasher


class _NothingToWrite(Exception):
    """Rolls the transaction back: there is a conflict, or nothing has changed."""

    def __init__(self, outcomes: tuple[Outcome, ...]) -> None:
        super().__init__()
        self.outcomes = outcomes


class Importing:
    """The verb `apply`."""

    def __init__(self, core: Core, keys: Keys) -> None:
        self._core = core
        self._keys = keys

    async def apply(self, changes: Changes, replace: bool) -> Applied:
        """Adds what is new. What differs is replaced, or a conflict; with one nothing is done.

        Raises Declared, and Invalid for a name that comes twice.
        """
        self._check(changes)
        hasher = await self._keys.hasher()
        try:
            async with self._core.changing() as change:
                outcomes = await self._outcomes(change, changes, hasher, replace)
        except _NothingToWrite as reason:
            return Applied(reason.outcomes, written=False)
        return Applied(outcomes, written=True)

    def _check(self, changes: Changes) -> None:
        names = Counter(f"key {key.service}/{key.alias} of {key.tenant}" for key in changes.keys)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise Invalid(f"the same name comes more than once: {', '.join(twice)}")
        for key in changes.keys:
            check_new(key)
            self._core.declared.refuse_key(key.tenant, key.service, key.alias)
        for backend in changes.backends:
            places.check_backend(backend)
            self._core.declared.refuse_backend(backend)

    async def _outcomes(
        self, change: Change, changes: Changes, hasher: KeyedHasher, replace: bool
    ) -> tuple[Outcome, ...]:
        names = [name_of(key) for key in changes.keys]
        held = {row.name: row async for row in keyrows.current_of(change.connection, names)}
        done = [
            await self._judged(change, held.get(name_of(key)), key, replace) for key in changes.keys
        ]
        judged = list(zip(changes.keys, done, strict=True))
        await self._add(change, [key for key, one in judged if one == "added"], hasher)
        for key, one in judged:
            if one == "replaced":
                await self._keys.replace(change, held[name_of(key)], key, hasher)
        sites = [await _backend(change, backend) for backend in changes.backends]
        outcomes = (*(Outcome(one, "key", *name_of(key)) for key, one in judged), *sites)
        found = {outcome.done for outcome in outcomes}
        if "conflict" in found or not found - {"unchanged"}:
            raise _NothingToWrite(outcomes)
        return outcomes

    async def _judged(
        self, change: Change, row: StoredKey | None, new: NewKey, replace: bool
    ) -> Done:
        if row is None:
            return "added"
        if await self._keys.holds(change, row, new):
            return "unchanged"
        return "replaced" if replace else "conflict"

    async def _add(self, change: Change, new: list[NewKey], hasher: KeyedHasher) -> None:
        """In their order: the first key of a service becomes its default."""
        if not new:
            return
        key = await self._core.data_keys.ensure(change, KEYS)
        used = await used_names(change.connection, [name_of(one) for one in new])
        for known, some in groupby(new, lambda one: name_of(one) in used):
            if not known:
                await newkeys.add(change, list(some), key, hasher)
                continue
            for one in some:
                await self._keys.add(change, one, hasher)


async def _backend(change: Change, backend: Backend) -> Outcome:
    name = ("backend", backend.tenant, backend.service, str(backend.binding))
    if await places.there(change.connection, backend):
        return Outcome("unchanged", *name)
    await places.insert_backend(change, backend)
    return Outcome("added", *name)
