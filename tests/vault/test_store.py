"""The database: its settings, its schema, its errors."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from tests.support.clock import FakeClock
from tests.vault.conftest import ENGINES
from tests.vault.words import new_key, open_vault, rows, url_of
from vault import SchemaTooNew, StoreUnavailable, Token, Vault, schema
from vault import sqlite as sqlite_room
from vault import store as store_room
from vault.mastersource import MasterKeySource
from vault.sealing import DataKey
from vault.tables import METADATA
from vault.tokens import mint


@pytest.mark.parametrize("operation", ["READ", "WRITE", "FSYNC", "SHORT_READ"])
def test_an_error_of_the_disk_says_which_operation_it_was(operation: str) -> None:
    """SQLite's own words are the same for all of them."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = f"SQLITE_IOERR_{operation}"
    said = rf"now \(disk I/O error, SQLITE_IOERR_{operation}\); see that its disk"
    with pytest.raises(StoreUnavailable, match=said), sqlite_room._translated():
        raise OperationalError("SELECT", {}, error)


async def test_the_pragmas_are_set(vault: Vault) -> None:
    """Rollback journal, EXTRA, foreign keys, overwritten deletions, five seconds of patience."""
    expected = {
        "journal_mode": "delete",
        "synchronous": 3,
        "foreign_keys": 1,
        "secure_delete": 1,
        "busy_timeout": 5000,
    }
    async with vault._core.reading() as connection:
        found = {name: await connection.scalar(text(f"PRAGMA {name}")) for name in expected}
    assert found == expected


def test_the_migrations_make_the_tables_that_are_read(data: Path) -> None:
    """And end at the revision that a start looks for."""
    engine = create_engine(f"sqlite:///{data}/vault.db")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
        assert context.get_current_revision() == schema.HEAD
    engine.dispose()
    config = Config()
    config.set_main_option("script_location", "vault:migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]


def test_a_start_at_head_does_not_load_alembic(data: Path) -> None:
    """It would cost more than all the rest."""
    program = f"""
import asyncio, pathlib, sys
from tests.support.clock import FakeClock
from vault import open_vault
async def main():
    vault = await open_vault(pathlib.Path({str(data)!r}), {{}}, FakeClock())
    await vault.close()
asyncio.run(main())
print("alembic" in sys.modules)
"""
    run = [sys.executable, "-c", program]
    assert subprocess.run(run, check=True, capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize("engine", ENGINES)
async def test_an_older_database_is_brought_here(
    nothing_yet: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tokens open what they opened, have no limits, and can be given some."""
    source = MasterKeySource.find(nothing_yet, {})
    source.make_directory()
    source.create()
    store = store_room.Store.at(url_of(nothing_yet) or nothing_yet / "vault.db")
    store.make_file()
    with monkeypatch.context() as earlier:
        earlier.setattr(schema, "HEAD", "0001")
        await store.prepare()
    await store.close()
    master, own = source.read().current, DataKey.random("fingerprints")
    sealed = (own.id.hex(), own.purpose, 1, master.id, master.wrap(own), 1.0)
    rows(nothing_yet, "INSERT INTO data_keys VALUES (?, ?, ?, ?, ?, ?)", *sealed)
    minted = mint()
    columns = "id, tenant, name, role, key_aliases, digest, created_at"
    values = (minted.id, "default", "ada", "call", "{}", minted.digest, 1.0)
    rows(nothing_yet, f"INSERT INTO tokens ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", *values)
    vault = await open_vault(nothing_yet, {}, clock)
    token = await vault.verify_token(minted.text.encode())
    assert token == Token(minted.id, "ada", "default", "call", 1.0)
    changed = await vault.change_token("default", "ada", {"limits": ("60/minute",)})
    assert (changed.limits, changed.upstream_limits, changed.budget) == (("60/minute",), (), None)
    await vault.close()


async def test_a_newer_schema_is_refused(data: Path, clock: FakeClock) -> None:
    """Also by init; and nothing is changed."""
    rows(data, "UPDATE alembic_version SET version_num = '9999'")
    before = (data / "vault.db").read_bytes()
    for create in (False, True):
        with pytest.raises(SchemaTooNew, match=r"revision 9999.*install the newer keyrelay"):
            await open_vault(data, {}, clock, create=create)
    assert (data / "vault.db").read_bytes() == before


async def test_a_locked_database_is_unavailable(
    data: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while of patience; a read too; and afterwards all goes on."""
    pragmas = ("PRAGMA busy_timeout = 10", *sqlite_room._PRAGMAS[1:])
    monkeypatch.setattr(sqlite_room, "_PRAGMAS", pragmas)
    vault = await open_vault(data, {}, clock)
    other = sqlite3.connect(data / "vault.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    for act in (vault.refresh, vault.list_keys, lambda: vault.put_key(new_key())):
        with pytest.raises(StoreUnavailable, match=r"database is locked.*: try again$"):
            await act()
    other.execute("ROLLBACK")
    other.close()
    await vault.put_key(new_key())
    await vault.close()


async def test_a_reader_that_stays_does_not_lose_a_write(
    data: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that can't be made is an error, and nothing of it is there."""
    pragmas = ("PRAGMA busy_timeout = 10", *sqlite_room._PRAGMAS[1:])
    monkeypatch.setattr(sqlite_room, "_PRAGMAS", pragmas)
    vault = await open_vault(data, {}, clock)
    other = sqlite3.connect(data / "vault.db", isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT * FROM keys").fetchall()
    with pytest.raises(StoreUnavailable):
        await vault.put_key(new_key())
    other.execute("ROLLBACK")
    other.close()
    assert await vault.list_keys() == []
    assert not await vault.refresh()
    await vault.put_key(new_key())
    await vault.close()


async def test_too_many_at_once_is_unavailable(
    data: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits too long for a connection is told so."""
    monkeypatch.setattr(sqlite_room, "_WAIT_SECONDS", 0.01)
    vault = await open_vault(data, {}, clock)
    async with AsyncExitStack() as stack:
        for _ in range(sqlite_room._CONNECTIONS):
            await stack.enter_async_context(vault._core.reading())
        with pytest.raises(StoreUnavailable, match="too many are using it"):
            await vault.list_keys()
    assert await vault.list_keys() == []
    await vault.close()


async def test_a_lost_table_is_an_error_without_values(vault: Vault, data: Path) -> None:
    """Neither the message nor its cause shows what was to be stored."""
    rows(data, "DROP TABLE audit")
    with pytest.raises(StoreUnavailable, match="no such table: audit") as error:
        await vault.put_key(new_key())
    assert "default" not in str(error.value.__cause__)
    assert await vault.list_keys() == []


async def test_a_cancelled_change_leaves_the_vault_usable(vault: Vault) -> None:
    """A caller that hangs up takes nothing down."""
    task = asyncio.create_task(vault.put_key(new_key()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await vault.put_key(new_key(alias="next"))
    assert "next" in {key.ref.alias for key in await vault.list_keys()}


async def test_data_keys_are_made_once(vault: Vault, opener, data: Path) -> None:
    """By whoever comes first; the others take that one."""
    other = await opener()
    sealers = await asyncio.gather(*(one.sealer("cache-bodies") for one in (vault, other) * 3))
    sealed = sealers[0].seal(b"body", b"row")
    assert {one.open(sealed, b"row") for one in sealers} == {b"body"}
    hashers = [await one.hasher("cache-keys") for one in (vault, other)]
    assert hashers[0].digest(b"x") == hashers[1].digest(b"x")
    query = "SELECT count(*), count(DISTINCT purpose) FROM data_keys"
    assert rows(data, query) == [(4, 4)]


async def test_a_check_writes_and_takes_it_back(tmp_path: Path) -> None:
    """The generation stays; a folder that is gone is found out."""
    data = tmp_path / "data"
    vault = await open_vault(data, {}, FakeClock(), create=True, actor="test")
    try:
        generation = vault.generation
        await vault.check()
        assert await vault.refresh() is False
        assert vault.generation == generation
        data.rename(tmp_path / "elsewhere")
        with pytest.raises(StoreUnavailable):
            await vault.check()
    finally:
        await vault.close()
