"""Provider keys: put, rotate, remove, open, and recognise one that comes back."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection

from vault import keyrows
from vault.audit import Change
from vault.core import Core
from vault.datakeys import FINGERPRINTS, KEYS
from vault.errors import AlreadyExists, Declared, Invalid, NotThere, Unopenable
from vault.keyrows import StoredKey
from vault.names import check_names, tenant_option
from vault.records import KeyRecord, KeyRef, NewKey, Recognised
from vault.register import Register
from vault.sealing import KeyedHasher, key_id_of
from vault.secret import Credential, octets_of


class Keys:
    """The verbs for provider keys."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def put(self, new: NewKey) -> KeyRecord:
        """Adds a key; the first of its service is the default. Raises AlreadyExists, Declared."""
        check_new(new)
        self._core.declared.refuse_key(new.tenant, new.service, new.alias)
        hasher = await self.hasher()
        async with self._core.changing() as change:
            if await keyrows.current(change.connection, new.tenant, new.service, new.alias):
                raise AlreadyExists(
                    f"tenant {new.tenant} has a key {new.service}/{new.alias} already; "
                    f"change it with: keyrelay key rotate {new.service} --alias {new.alias}"
                    + tenant_option(new.tenant)
                )
            return await self.add(change, new, hasher)

    async def rotate(self, old: KeyRef, credential: Credential) -> KeyRecord:
        """A new version of a key; the old one is recognised for a while, and never sent again."""
        self._core.declared.refuse_key(old.tenant, old.service, old.alias)
        hasher = await self.hasher()
        async with self._core.changing() as change:
            row = await self.live(change.connection, old)
            # The new version inherits hosts and part: only from a row that is as it was sealed.
            await self.opened(change.connection, row, change.book.register)
            name = (old.tenant, old.service, old.alias)
            new = NewKey(*name, credential, row.recognised_by, row.ref.hosts)
            check_new(new)
            return await self.replace(change, row, new, hasher)

    async def remove(self, name: KeyRef) -> None:
        """Ends a key with all its versions; the oldest other becomes the default if it was it."""
        self._core.declared.refuse_key(name.tenant, name.service, name.alias)
        async with self._core.changing() as change:
            row = await self.live(change.connection, name)
            await keyrows.remove(change, row.ref)
            await change.record("key remove", name.tenant, _subject(row.ref))
            heir = await keyrows.oldest(change.connection, name.tenant, name.service)
            if row.ref.default and heir is not None:
                await _set_default(change, name.tenant, name.service, heir)

    async def make_default(self, name: KeyRef) -> None:
        """The key that is used when nobody names one."""
        core = self._core
        core.declared.refuse_key(name.tenant, name.service, name.alias)
        if core.declared.has_default(name.tenant, name.service):
            raise Declared(
                f"the default key of {name.service} is the first that the configuration file "
                "declares; change it there"
            )
        async with core.changing() as change:
            await self.live(change.connection, name)
            await _set_default(change, name.tenant, name.service, name.alias)

    async def list(self, tenant: str | None) -> list[KeyRecord]:
        """Every key of one tenant or of all, masked; the file's first."""
        core = self._core
        async with core.reading() as connection:
            rows = await keyrows.all_current(connection, tenant)
        stored = [
            replace(row.record(), ref=ref)
            for row in rows
            for ref in core.declared.beside([row.ref])
        ]
        return [key.record() for key in core.declared.keys(tenant)] + stored

    async def open(self, ref: KeyRef) -> Credential:
        """The parts of a key; where it was rotated meanwhile, those of the current version.

        Raises NotThere once it was removed, Unopenable for a row that was tampered with.
        """
        if ref.declared:
            return self._declared(ref)
        seen = self._core.seen
        name = (ref.tenant, ref.service, ref.alias, ref.version)
        credential = seen.opened.get(name)
        if credential is None:
            async with self._core.reading() as connection:
                row = await self.live(connection, ref)
                register = await self._core.register(connection)
                credential = keyrows.unpacked(await self.opened(connection, row, register))
            seen.opened.put(name, credential)
        return credential

    async def recognise(self, presented: bytes) -> tuple[Recognised, ...]:
        """Every key, of any tenant, whose recognised part is exactly this."""
        core = self._core
        wanted = keyrows.fingerprint(await self.hasher(), presented)
        seen = core.seen
        found = seen.recognised.get(wanted)
        if found is None:
            async with core.reading() as connection:
                register = await core.register(connection)
                now = core.clock.now()
                stored = await keyrows.with_fingerprint(connection, wanted, now, register)
            found = (*core.declared.recognise(wanted), *stored)
            seen.recognised.put(wanted, found)
        return found

    async def hasher(self) -> KeyedHasher:
        """What makes fingerprints."""
        return KeyedHasher(await self._core.data_key(FINGERPRINTS))

    # steps inside a transaction ---------------------------------------------------------------

    async def live(self, connection: AsyncConnection, name: KeyRef) -> StoredKey:
        """The current row of a key; raises NotThere."""
        row = await keyrows.current(connection, name.tenant, name.service, name.alias)
        if row is None:
            raise NotThere(
                f"tenant {name.tenant} has no key {name.service}/{name.alias}; "
                f"see what there is with: keyrelay key list{tenant_option(name.tenant)}"
            )
        return row

    async def add(self, change: Change, new: NewKey, hasher: KeyedHasher) -> KeyRecord:
        """Stores the first version of a name."""
        version = await keyrows.add_name(change, new)
        await self._insert(change, new, version, hasher)
        await change.record("key add", new.tenant, f"{new.service}/{new.alias}")
        name = KeyRef(new.tenant, new.service, new.alias, version)
        return (await self.live(change.connection, name)).record()

    async def replace(
        self, change: Change, old: StoredKey, new: NewKey, hasher: KeyedHasher
    ) -> KeyRecord:
        """Stores the next version of a name and retires the one before it."""
        await keyrows.retire(change, old.ref)
        await self._insert(change, new, old.ref.version + 1, hasher)
        await change.record("key rotate", new.tenant, f"{new.service}/{new.alias}")
        return (await self.live(change.connection, old.ref)).record()

    async def holds(self, change: Change, row: StoredKey, new: NewKey) -> bool:
        """Whether a stored key is the same as this one, part for part."""
        same = (row.recognised_by, row.ref.hosts) == (new.recognised_by, new.hosts)
        if not same or row.sealed is None:
            return False
        opened = await self.opened(change.connection, row, change.book.register)
        return opened == keyrows.packed(new.credential)

    async def _insert(self, change: Change, new: NewKey, version: int, hasher: KeyedHasher) -> None:
        key = await self._core.data_keys.ensure(change, KEYS)
        row = keyrows.version_of(new, version, hasher, change.at)
        await keyrows.insert_version(change, row, key, keyrows.packed(new.credential))

    def _declared(self, ref: KeyRef) -> Credential:
        credential = self._core.declared.credential(ref)
        if credential is None:
            raise NotThere(
                f"the configuration file declares no key {ref.service}/{ref.alias} any more"
            )
        return credential

    async def opened(
        self, connection: AsyncConnection, row: StoredKey, register: Register | None
    ) -> bytes:
        """The packed credential of a row; raises Unopenable, naming the row."""
        known = self._core.data_keys.known
        if not row.known_to(register):
            raise keyrows.unopenable(row)
        try:
            key_id = key_id_of(row.sealed or b"")
        except Unopenable as error:
            raise keyrows.unopenable(row) from error
        if key_id not in known:
            # Another process may have sealed it with a data key that it has just made.
            await self._core.data_keys.load(connection, register)
        key = known.get(key_id)
        if key is None or key.purpose != KEYS:
            raise keyrows.unopenable(row)
        return keyrows.opened(row, key)


def check_new(new: NewKey) -> None:
    """Names, and that there is something to seal and to recognise; raises Invalid."""
    check_names(tenant=new.tenant, service=new.service, alias=new.alias)
    secret = new.credential.get(new.recognised_by)
    if secret is None or not octets_of(secret):
        raise Invalid(f"the {new.recognised_by} of key {new.service}/{new.alias} is empty")


async def _set_default(change: Change, tenant: str, service: str, alias: str) -> None:
    await keyrows.set_default(change, tenant, service, alias)
    await change.record("key default", tenant, f"{service}/{alias}")


def _subject(ref: KeyRef) -> str:
    return f"{ref.service}/{ref.alias}"
