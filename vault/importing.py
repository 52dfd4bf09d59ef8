"""Many keys and backends in one transaction: all that an import file holds, or nothing of it."""

from __future__ import annotations

from collections import Counter

from vault import keyrows, places
from vault.audit import Change
from vault.core import Core
from vault.errors import Invalid
from vault.keys import Keys, check_new
from vault.records import Applied, Backend, Changes, NewKey, Outcome
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
        keys = [await self._key(change, key, hasher, replace) for key in changes.keys]
        sites = [await _backend(change, backend) for backend in changes.backends]
        outcomes = (*keys, *sites)
        done = {outcome.done for outcome in outcomes}
        if "conflict" in done or not done - {"unchanged"}:
            raise _NothingToWrite(outcomes)
        return outcomes

    async def _key(
        self, change: Change, new: NewKey, hasher: KeyedHasher, replace: bool
    ) -> Outcome:
        name = ("key", new.tenant, new.service, new.alias)
        row = await keyrows.current(change.connection, *name[1:])
        if row is None:
            await self._keys.add(change, new, hasher)
            return Outcome("added", *name)
        if await self._keys.holds(change, row, new):
            return Outcome("unchanged", *name)
        if not replace:
            return Outcome("conflict", *name)
        await self._keys.replace(change, row, new, hasher)
        return Outcome("replaced", *name)


async def _backend(change: Change, backend: Backend) -> Outcome:
    name = ("backend", backend.tenant, backend.service, str(backend.binding))
    if await places.there(change.connection, backend):
        return Outcome("unchanged", *name)
    await places.insert_backend(change, backend)
    return Outcome("added", *name)
