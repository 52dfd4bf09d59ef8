"""The vault's verbs: put, open, rotate, recognise; composes the rooms below."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, Unpack

from vault import audit
from vault.archive import Lock
from vault.auditing import Auditing
from vault.backup import BackingUp
from vault.core import Clock, Core
from vault.declaring import Declaring
from vault.importing import Importing
from vault.issued import Issued
from vault.keys import Keys
from vault.moving import Moving, Ready
from vault.noting import Noting
from vault.places import Places
from vault.records import (
    Applied,
    AuditEntry,
    AuditReport,
    AuditWanted,
    Backend,
    BackupMade,
    Changes,
    Guard,
    Holdings,
    KeyRecord,
    KeyRef,
    Moved,
    NewKey,
    NewShortLived,
    NewToken,
    Purge,
    Recognised,
    Rotation,
    Token,
    TokenChange,
)
from vault.registering import faults, read
from vault.rotation import Rotating
from vault.sealing import KeyedHasher, KeyedSealer
from vault.secret import Credential
from vault.shortlived import ShortLiving
from vault.tenants import Tenants

__all__ = ["Clock", "Hasher", "Hashing", "Sealer", "Vault"]


class Sealer(Protocol):
    """Encrypts under one data key, bound to associated data."""

    def seal(self, plaintext: bytes, aad: bytes) -> bytes:
        """A blob that opens with the same associated data only."""
        ...

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """The plaintext; raises Unopenable."""
        ...


class Hashing(Protocol):
    """A hash under way."""

    def update(self, data: bytes, /) -> None:
        """More octets."""
        ...

    def digest(self) -> bytes:
        """The 32 octets of the HMAC."""
        ...

    def copy(self) -> Hashing:
        """Another hash that has taken the same octets."""
        ...


class Hasher(Protocol):
    """HMAC-SHA-256 under one data key."""

    def digest(self, data: bytes) -> bytes:
        """The 32 octets of the HMAC."""
        ...

    def begin(self) -> Hashing:
        """An incremental HMAC."""
        ...


class Vault:
    """An open vault; `vault.open_vault` makes one.

    Every change is durable when the call returns, counts up `generation` and leaves an audit entry.
    Every call can raise StoreUnavailable; every change Invalid, for a name that is no name.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._keys = Keys(core)
        self._tokens = Issued(core)
        self._short_lived = ShortLiving(core, self._tokens)
        self._places = Places(core)
        self._tenants = Tenants(core)
        self._importing = Importing(core, self._keys)
        self._declaring = Declaring(core, self._keys)
        self._noting = Noting(core, self._keys)
        self._rotating = Rotating(core, self._keys)
        self._backing_up = BackingUp(core)
        self._auditing = Auditing(core)
        self._moving = Moving(core)

    @property
    def generation(self) -> int:
        """How often the vault was changed, as far as this process knows."""
        return self._core.generation

    def acting_as(self, actor: str) -> Vault:
        """The same open vault; what is changed through it is the actor's in the audit log."""
        return Vault(self._core.acting_as(actor))

    def run_as(self, run: str) -> None:
        """From now on this opening counts as one with all that have the same `run`: several workers
        of one server, which count the calls of short-lived tokens together."""
        self._core.run = run

    # keys -------------------------------------------------------------------------------------

    async def put_key(self, new: NewKey) -> KeyRecord:
        """Adds a key; the first of its service is the default. Raises AlreadyExists, Declared."""
        return await self._keys.put(new)

    async def rotate_key(
        self, tenant: str, service: str, alias: str, credential: Credential
    ) -> KeyRecord:
        """A new version; the old one is recognised for up to a day. Raises NotThere, Declared."""
        return await self._keys.rotate(KeyRef(tenant, service, alias, 0), credential)

    async def remove_key(self, tenant: str, service: str, alias: str) -> None:
        """Ends all versions at once; the oldest other key of the service takes over as default.

        Raises NotThere, Declared.
        """
        await self._keys.remove(KeyRef(tenant, service, alias, 0))

    async def make_default(self, tenant: str, service: str, alias: str) -> None:
        """The key that is used when nobody names one. Raises NotThere, Declared."""
        await self._keys.make_default(KeyRef(tenant, service, alias, 0))

    async def list_keys(self, tenant: str | None = None) -> list[KeyRecord]:
        """Every key, masked; the file's first, then by service with the default first."""
        return await self._keys.list(tenant)

    async def open_key(self, ref: KeyRef) -> Credential:
        """The parts of a key, held once per version; if it was rotated meanwhile, the new ones.

        Raises NotThere, and Unopenable for a row that was tampered with.
        """
        return await self._keys.open(ref)

    async def recognise(self, presented: bytes) -> tuple[Recognised, ...]:
        """Every key version, of any tenant, whose recognised part is exactly this."""
        return await self._keys.recognise(presented)

    # tokens -----------------------------------------------------------------------------------

    async def issue_token(self, new: NewToken) -> tuple[Token, str]:
        """A new token and its text, which is kept nowhere. Raises AlreadyExists."""
        return await self._tokens.issue(new)

    async def list_tokens(self, tenant: str | None = None) -> list[Token]:
        """Every token, the revoked too, oldest first."""
        return await self._tokens.list(tenant)

    async def change_token(self, tenant: str, name_or_id: str, change: TokenChange) -> Token:
        """Gives a token other limits; what is not named stays. Raises NotThere."""
        return await self._tokens.change(tenant, name_or_id, change)

    async def revoke_token(self, tenant: str, name_or_id: str) -> Token:
        """Ends a token for good. Raises NotThere."""
        return await self._tokens.revoke(tenant, name_or_id)

    async def verify_token(self, text: bytes) -> Token | None:
        """The token that a caller presents; None for every reason, with the same work."""
        return await self._tokens.verify(text) or await self._short_lived.verify(text)

    async def issue_short_lived(self, parent: Token, new: NewShortLived) -> tuple[Token, str]:
        """A narrower token for a while, of which nothing is stored, and its text. Raises Invalid.

        One with a number of calls ends with this run of the server, which counts them.
        """
        return await self._short_lived.issue(parent, new)

    async def good_token(self, token_id: str) -> Token | None:
        """The token of an id that was verified before, as it is now; None once it is over."""
        return await self._tokens.good(token_id)

    # backends, tenants ------------------------------------------------------------------------

    async def add_backend(self, backend: Backend) -> None:
        """Registers a backend. Raises AlreadyExists, Declared."""
        await self._places.add(backend)

    async def remove_backend(self, backend: Backend) -> None:
        """Ends a backend. Raises NotThere, Declared."""
        await self._places.remove(backend)

    async def list_backends(self, tenant: str | None = None) -> list[Backend]:
        """Every backend; the file's last."""
        return await self._places.list(tenant)

    async def list_tenants(self) -> list[str]:
        """Every tenant that has a key, a token or a backend."""
        return await self._tenants.list()

    async def remove_tenant(self, tenant: str) -> None:
        """Ends a tenant's keys, tokens, backends and answers. Raises NotThere, Declared."""
        await self._tenants.remove(tenant)

    async def holdings(self, tenant: str) -> Holdings:
        """What one tenant holds, from memory if nothing has changed."""
        return await self._tenants.holdings(tenant)

    # many at once, the configuration file, the master key -------------------------------------

    async def apply(self, changes: Changes, *, replace: bool = False) -> Applied:
        """All of an import in one transaction, or, with a conflict, nothing. Raises Declared."""
        return await self._importing.apply(changes, replace)

    async def declare(self, keys: Iterable[NewKey], backends: Iterable[Backend]) -> None:
        """What the configuration file owns: held in memory only, replaced as a whole.

        Raises Declared for what the vault holds as well, or the file twice.
        """
        await self._declaring.declare(keys, backends)

    async def note_declared(self) -> None:
        """Puts into the audit log how that differs from what the log knows of it already.

        Neither counts up `generation` nor forgets what was looked up.
        """
        await self._noting.note()

    async def rotate_master(self, *, reseal: bool = False, guard: Guard = "as before") -> Rotation:
        """A new master key, or the rest of an interrupted rotation; `reseal` renews every row too,
        and ends the short-lived tokens of before.

        Raises MasterKeyMissing, Unopenable, and Invalid where the new `guard` can't be.
        """
        return await self._rotating.rotate(reseal, guard)

    async def backup(self, path: Path, lock: Lock, beside: Iterable[str]) -> BackupMade:
        """The vault in one file, sealed to a passphrase or key; others may change it meanwhile.

        With the master key where that lies in the data directory, and with the files `beside` it
        that are there. Raises Invalid, Unopenable.
        """
        return await self._backing_up.backup(path, lock, beside)

    async def move(self, place: str | Path, ready: Ready | None = None) -> Moved:
        """The vault to another database, by its URL or file; this one refuses itself from then on.

        `ready` is awaited once the target is known to be empty or left behind, before the copy
        counts: what it raises leaves the vault where it is, and the target as it was.
        Raises AlreadyExists where another vault is there, Unopenable where a row is not as it was
        written, Invalid for a URL that can't be used.
        """
        return await self._moving.move(place, ready)

    # what the running proxy reads -------------------------------------------------------------

    async def refresh(self) -> bool:
        """Looks for a change by another process and forgets what was looked up; True if so."""
        return await self._core.refresh()

    async def catch_up(self) -> str:
        """Writes the anchor once more where a change that stands could not be noted there.

        Returns why it still can't be, or nothing.
        """
        return await self._core.catch_up()

    def lapse(self) -> None:
        """Nothing that was read counts any more, until `refresh` can read the database again."""
        self._core.lapse()

    async def purges(self) -> tuple[Purge, ...]:
        """The newest purge for each tenant and service."""
        return await self._tenants.purges()

    async def purge(self, purge: Purge) -> None:
        """Ends the answers stored up to a time."""
        await self._tenants.purge(purge)

    async def sealer(self, purpose: str) -> Sealer:
        """What seals for one purpose; its data key is made on first use, durably.

        A purpose is for sealing or for hashing, never for both.
        """
        return KeyedSealer(await self._core.data_key(purpose), self._core.data_keys.known)

    async def hasher(self, purpose: str) -> Hasher:
        """What hashes for one purpose; its data key is made on first use, durably."""
        return KeyedHasher(await self._core.data_key(purpose))

    async def audit(self, limit: int = 100, **wanted: Unpack[AuditWanted]) -> Sequence[AuditEntry]:
        """The newest entries of the audit log that are wanted, newest first."""
        async with self._core.reading() as connection:
            return await audit.latest(connection, limit, wanted)

    async def verify_audit(self) -> AuditReport:
        """Whether each row of the audit log is as it was written, and none is gone.

        Raises RolledBack where its sealed end was changed.
        """
        return await self._auditing.verify()

    async def note(self, entries: Iterable[AuditEntry]) -> None:
        """Puts entries about what changes nothing into the audit log, in one transaction.

        Neither counts up `generation` nor forgets what was looked up.
        """
        async with self._core.noting() as change:
            for entry in entries:
                await change.log.append(change.connection, entry)

    async def examine(self) -> Sequence[str]:
        """Names each row that is not as it was written last, or is gone. Nothing is changed."""
        async with self._core.reading() as connection:
            root = (await self._core.register(connection)).root
            return await faults(connection, await read(connection, root, None))

    async def check(self) -> None:
        """Whether the database can be read and written now."""
        self._core.require_sound()
        await self._core.store.check()

    async def close(self) -> None:
        """Closes the database."""
        await self._core.store.close()
