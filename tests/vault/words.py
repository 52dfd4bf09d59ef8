"""What the tests of the vault say often."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg

import vault
from tests.support.clock import FakeClock
from vault import Backend, Binding, KeyRef, NewKey, Secret, Vault
from vault.chain import Head, seal_of
from vault.datakeys import SEALED
from vault.keyring import MasterKey
from vault.sealing import KeyedHasher

FIRST = b"sk-first-0123456789abcdef"
SECOND = b"sk-second-0123456789abcdef"


def new_key(
    value: bytes = FIRST, alias: str = "default", service: str = "openai", tenant: str = "default"
) -> NewKey:
    return NewKey(tenant, service, alias, {"key": Secret(value)})


def named(alias: str = "default", service: str = "openai", tenant: str = "default") -> KeyRef:
    return KeyRef(tenant, service, alias, 1)


def backend(prefix: str = "/", service: str = "openai", tenant: str = "default") -> Backend:
    return Backend(tenant, service, Binding("http", "127.0.0.1", 9000, prefix))


def url_of(data: Path) -> str | None:
    """Where the database of a test's data directory is; None: in it."""
    place = data.parent / "url"
    return place.read_text() if place.exists() else None


async def open_vault(
    data: Path, environ: Mapping[str, str], clock: FakeClock, **options: Any
) -> Vault:
    """On the engine that the test runs on."""
    return await vault.open_vault(data, environ, clock, url=url_of(data), **options)


def rows(data: Path, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """Reads or changes the database behind the vault's back."""
    url = url_of(data)
    if url is not None:
        return said(url, query, *values)
    connection = sqlite3.connect(data / "vault.db", isolation_level=None)
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


def said(url: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """What a PostgreSQL answers; several statements answer nothing."""
    with ThreadPoolExecutor(1) as beside:  # a test's own loop is running
        return beside.submit(asyncio.run, _said(url, query, values)).result()


async def _said(url: str, query: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    numbers = count(1)
    numbered = "".join(f"${next(numbers)}" if sign == "?" else sign for sign in query)
    numbered = re.sub(r"zeroblob\((\d+)\)", r"decode(repeat('00', \1), 'hex')", numbered)
    connection = await asyncpg.connect(url)
    try:
        # As SQLite's shell: rows that others name may be taken out.
        await connection.execute("SET session_replication_role = replica")
        if ";" in query:
            await connection.execute(query)
            return []
        return [tuple(row) for row in await connection.fetch(numbered, *values)]
    finally:
        await connection.close()


def touch_generation(data: Path) -> None:
    """Makes an open vault drop what it has looked up, as another process with the keys would."""
    ((generation,),) = rows(data, "SELECT generation FROM vault_state")
    put_generation(data, generation + 1)


def put_generation(data: Path, generation: int) -> None:
    """Another number of changes, with the seal that only who has the master key can make."""
    ((number, link, root),) = rows(data, "SELECT audit_rows, audit_link, register FROM vault_state")
    seal = seal_of(hasher_of(data), generation, Head(number, link), root)
    rows(data, "UPDATE vault_state SET generation = ?, seal = ?", generation, seal)


def hasher_of(data: Path) -> KeyedHasher:
    """What makes such seals."""
    query = "SELECT id, purpose, wrapped FROM data_keys WHERE purpose = 'fingerprints'"
    ((key_id, purpose, wrapped),) = rows(data, query)
    marks = (b"", SEALED)
    return KeyedHasher(master_of(data).unwrap(bytes.fromhex(key_id), purpose, wrapped, marks))


def unmark(data: Path) -> None:
    """As releases left it whose key did not say that the vault is sealed."""
    query = "SELECT id, wrapped FROM data_keys WHERE purpose = 'fingerprints'"
    ((key_id, wrapped),) = rows(data, query)
    master = master_of(data)
    key = master.unwrap(bytes.fromhex(key_id), "fingerprints", wrapped, (SEALED,))
    again = master.wrap(key.marked(b""))
    rows(data, "UPDATE data_keys SET wrapped = ? WHERE id = ?", again, key_id)


def master_of(data: Path) -> MasterKey:
    """The master key as its file has it."""
    return MasterKey.parse((data / "master.key").read_text().split()[-1])
