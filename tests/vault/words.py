"""What the tests of the vault say often."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from vault import Backend, Binding, KeyRef, NewKey, Secret

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


def rows(data: Path, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """Reads or changes the database behind the vault's back."""
    connection = sqlite3.connect(data / "vault.db", isolation_level=None)
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


def touch_generation(data: Path) -> None:
    """Makes an open vault drop what it has looked up."""
    rows(data, "UPDATE vault_state SET generation = generation + 1")
