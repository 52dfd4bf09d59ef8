"""Makes a vault, or opens one: database, master key, schema and data keys, in a safe order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Final

from vault.anchor import Anchor
from vault.core import Clock, Core, Moment
from vault.datakeys import FINGERPRINTS, KEYS, DataKeys
from vault.errors import MasterKeyMissing, NotThere, StoreUnavailable
from vault.files import reason_of
from vault.freshness import require_newest
from vault.masterseal import Ask
from vault.mastersource import MasterKeySource
from vault.secret import Secret
from vault.store import Store
from vault.vault import Vault

DATABASE_NAME: Final = "vault.db"


async def open_vault(  # noqa: PLR0913 - the edge of the room: everything it takes from outside
    data: Path,
    environ: Mapping[str, str],
    clock: Clock,
    *,
    url: str | None = None,
    create: bool = False,
    actor: str = "cli",
    accept_rollback: bool = False,
    master_key_command: Sequence[str] = (),
    ask: Ask | None = None,
    new_passphrase: Secret | None = None,
) -> Vault:
    """Opens the vault of a data directory, or first makes what is missing where `create` is set.

    `url` is for a database elsewhere, `actor` for the audit log, `master_key_command` asks an
    outside keeper where no variable names a master key, `ask` gives the passphrase of one that has
    any, and a new vault gets the `new_passphrase`. Raises NotThere where there is no vault yet,
    MasterKeyMissing where there is no master key or none that fits, RolledBack for a database that
    is not the newest one unless `accept_rollback`, SchemaTooNew, StoreUnavailable; and Invalid or
    AlreadyExists where a new passphrase can't be.
    """
    store = Store.at(url or data / DATABASE_NAME)
    try:
        with _using(data):
            source = MasterKeySource.find(data, environ, master_key_command, ask)
            if new_passphrase is not None:
                source = source.sealed_to(new_passphrase)
                source.require_none()
            anchor = Anchor.find(data, environ)
            if create:
                source.make_directory()
        async with store.alone() if create else nullcontext():
            with _using(data):
                await _check_server(store, source, anchor, create)
                if create:
                    await _create(store, source)
                _check_pair(store, source)
                data_keys = DataKeys(source, source.read())
                core = Core(store, data_keys, clock, actor, Moment(anchor))
                await _open(store, core, accept_rollback)
    except BaseException:
        await store.close()
        raise
    return Vault(core)


@contextmanager
def _using(data: Path) -> Iterator[None]:
    """What a file refuses, before an engine takes it for its server."""
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(
            f"the data directory {data} can't be used ({reason_of(error)})"
        ) from error


async def _check_server(
    store: Store, source: MasterKeySource, anchor: Anchor, create: bool
) -> None:
    """On a server an empty database is nobody's loss, unless this directory knows of a vault."""
    if store.path is not None or await store.in_use():
        return
    if anchor.octets() is not None:
        raise MasterKeyMissing(
            f"the database {store.described} is empty, and {source.data} belongs to a vault: copy "
            "that here with keyrelay migrate, restore the database or correct vault.url; to begin "
            f"anew, move {anchor.path} away"
        )
    if not create:
        raise NotThere(f"there is no vault in {store.described} yet; make one with: keyrelay init")


async def _create(store: Store, source: MasterKeySource) -> None:
    async with source.locked():
        there = source.ours and source.path.exists()
        if there and store.path is not None:
            return
        # The database comes first: one without data keys needs no particular master key, so that a
        # run that was killed between the two can be repeated.
        store.make_file()
        await store.prepare()
        if source.ours and not there and not await store.in_use():
            source.create()


def _check_pair(store: Store, source: MasterKeySource) -> None:
    """The master key and the database belong together: one without the other is a loss."""
    both = f"the master key {source.described} and the database {store.described}"
    if not store.exists() and not (source.ours and source.present()):
        raise NotThere(f"there is no vault in {source.data} yet; make one with: keyrelay init")
    if not store.exists():
        raise MasterKeyMissing(
            f"{both} belong together, and the database is missing; restore it from your backup, "
            "or move the key away to begin anew"
        )
    if not source.present():
        raise MasterKeyMissing(
            f"{both} belong together, and the key is missing; restore it from your backup, "
            + ("copy it from another instance, " if store.path is None else "")
            + "or run keyrelay init again if it was interrupted"
        )


async def _open(store: Store, core: Core, accept: bool) -> None:
    anchored = core.anchor.octets()  # before the database: it may be newer by then, never older
    await store.prepare()
    await core.reload_data_keys()
    for purpose in (KEYS, FINGERPRINTS):
        await core.data_key(purpose)
    await require_newest(core, anchored, accept)
    await core.refresh()
