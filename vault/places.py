"""Backends: where else a tenant's key may go."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, Row, and_, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from vault.audit import Change
from vault.bindings import Binding
from vault.core import Core
from vault.errors import AlreadyExists, NotThere
from vault.names import check_binding, check_names, tenant_option
from vault.records import Backend
from vault.register import Register
from vault.registering import entry_in
from vault.tables import BACKENDS

_B: Final = BACKENDS.c


class Places:
    """The verbs for backends."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def add(self, backend: Backend) -> None:
        """Registers a backend; raises AlreadyExists, Declared, Invalid."""
        check_backend(backend)
        self._core.declared.refuse_backend(backend)
        async with self._core.changing() as change:
            if await there(change.connection, backend):
                raise AlreadyExists(
                    f"{backend.binding} is a backend for {backend.service} of tenant "
                    f"{backend.tenant} already"
                )
            await insert_backend(change, backend)

    async def remove(self, backend: Backend) -> None:
        """Ends a backend; raises NotThere, Declared."""
        self._core.declared.refuse_backend(backend)
        async with self._core.changing() as change:
            if not await there(change.connection, backend):
                raise NotThere(
                    f"{backend.binding} is no backend for {backend.service} of tenant "
                    f"{backend.tenant}; see what there is with: keyrelay backend list"
                    + tenant_option(backend.tenant)
                )
            await change.book.write(delete(BACKENDS).where(_same(backend)))
            await change.record("backend remove", backend.tenant, subject_of(backend))

    async def list(self, tenant: str | None) -> list[Backend]:
        """Every backend of one tenant or of all; the file's last."""
        async with self._core.reading() as connection:
            stored = await of_tenant(connection, tenant)
        return stored + self._core.declared.backends(tenant)


def check_backend(backend: Backend) -> None:
    """Names and place; raises Invalid."""
    check_names(tenant=backend.tenant, service=backend.service)
    check_binding(backend.binding)


async def of_tenant(
    connection: AsyncConnection, tenant: str | None, register: Register | None = None
) -> list[Backend]:
    """The stored backends of one tenant or of all, in the order of their registration.

    With a register only those that are as they were written.
    """
    query = select(BACKENDS).order_by(_B.id)
    if tenant is not None:
        query = query.where(_B.tenant == tenant)
    found = await connection.execute(query)
    return [
        _stored(row) for row in found if register is None or register.knows(entry_in(row, BACKENDS))
    ]


async def there(connection: AsyncConnection, backend: Backend) -> bool:
    """Whether exactly this backend is stored."""
    found = await connection.execute(select(_B.id).where(_same(backend)))
    return found.first() is not None


async def insert_backend(change: Change, backend: Backend) -> None:
    """Stores a backend."""
    binding = backend.binding
    place = {"scheme": binding.scheme, "host": binding.host, "port": binding.port}
    owner = {"tenant": backend.tenant, "service": backend.service}
    await change.book.write(insert(BACKENDS).values(**owner, **place, prefix=binding.prefix))
    await change.record("backend add", backend.tenant, subject_of(backend))


async def remove_all(change: Change, tenant: str) -> None:
    """Ends every backend of a tenant."""
    await change.book.write(delete(BACKENDS).where(_B.tenant == tenant))


def _same(backend: Backend) -> ColumnElement[bool]:
    binding = backend.binding
    place = and_(_B.scheme == binding.scheme, _B.host == binding.host, _B.port == binding.port)
    owner = and_(_B.tenant == backend.tenant, _B.service == backend.service)
    return and_(owner, place, _B.prefix == binding.prefix)


def _stored(row: Row[Any]) -> Backend:
    binding = Binding(row.scheme, row.host, row.port, row.prefix)
    return Backend(row.tenant, row.service, binding)


def subject_of(backend: Backend) -> str:
    """Its name in the audit log."""
    return f"{backend.service} {backend.binding}"
