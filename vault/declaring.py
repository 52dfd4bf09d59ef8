"""Takes in what the configuration file declares; refuses what the vault holds as well."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from vault import keyrows, places
from vault.core import Core
from vault.declared import Declarations, DeclaredKey
from vault.errors import Declared
from vault.keys import Keys, check_new
from vault.records import Backend, NewKey
from vault.secret import octets_of

_TWICE: Final = "is in the configuration file and in the vault; take it out of the file"


class Declaring:
    """The verb `declare`."""

    def __init__(self, core: Core, keys: Keys) -> None:
        self._core = core
        self._keys = keys

    async def declare(self, keys: Iterable[NewKey], backends: Iterable[Backend]) -> None:
        """Replaces the file's share; raises Declared for what is there twice, and Invalid."""
        found = Declarations()
        hasher = await self._keys.hasher()
        async with self._core.reading() as connection:
            for new in keys:
                check_new(new)
                found.refuse_key(new.tenant, new.service, new.alias)
                await _refuse_stored_key(connection, new)
                octets = octets_of(new.credential[new.recognised_by])
                fingerprint = keyrows.fingerprint(hasher, octets)
                first = not found.has_default(new.tenant, new.service)
                found.add_key(DeclaredKey(new, fingerprint, self._core.clock.now(), first))
            for backend in backends:
                places.check_backend(backend)
                found.refuse_backend(backend)
                await _refuse_stored_backend(connection, backend)
                found.add_backend(backend)
        self._core.declared = found
        self._core.forget()


async def _refuse_stored_key(connection: AsyncConnection, new: NewKey) -> None:
    if await keyrows.current(connection, new.tenant, new.service, new.alias):
        raise Declared(f"key {new.service}/{new.alias} of tenant {new.tenant} {_TWICE}")


async def _refuse_stored_backend(connection: AsyncConnection, backend: Backend) -> None:
    if await places.there(connection, backend):
        name = f"{backend.binding} for {backend.service} of tenant {backend.tenant}"
        raise Declared(f"backend {name} {_TWICE}")
