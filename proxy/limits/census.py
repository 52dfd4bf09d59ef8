"""How many instances there were: for one that starts while Redis can't tell.

It stands beside the vault: in the database that they share, or in the data directory that the
workers of one machine do.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Final, Protocol

from proxy.database import Connection, DatabaseGone, Line, make_tables

_TABLE: Final = """CREATE TABLE IF NOT EXISTS relay_instances (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    instances integer NOT NULL
)"""
_LAST: Final = "SELECT instances FROM relay_instances"
_NOTE: Final = """INSERT INTO relay_instances (instances) VALUES ($1)
    ON CONFLICT (one) DO UPDATE SET instances = excluded.instances"""


class Census(Protocol):
    """One number that outlasts an instance."""

    async def last(self) -> int:
        """It; 1 where nobody has written any, or it can't be read."""
        ...

    async def note(self, instances: int) -> bool:
        """Keeps another; whether it was written."""
        ...


class FileCensus:
    """In a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def last(self) -> int:
        """As the seam has it."""
        with suppress(OSError, ValueError):
            return max(1, int(await asyncio.to_thread(self._path.read_text)))
        return 1

    async def note(self, instances: int) -> bool:
        """As the seam has it."""
        with suppress(OSError):
            await asyncio.to_thread(self._write, f"{instances}\n")
            return True
        return False

    def _write(self, text: str) -> None:
        """Workers may do it at once: the name is that of a whole file at any time."""
        new = self._path.with_name(f"{self._path.name}.{token_hex(4)}")
        new.touch(0o600)
        new.write_text(text)
        new.replace(self._path)


class PostgresCensus:
    """In a database; nobody stays connected for it."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def last(self) -> int:
        """As the seam has it."""
        with suppress(DatabaseGone):
            return max(1, await self._ask(_LAST) or 1)
        return 1

    async def note(self, instances: int) -> bool:
        """As the seam has it."""
        with suppress(DatabaseGone):
            await self._ask(_NOTE, instances)
            return True
        return False

    async def _ask(self, statement: str, *values: int) -> int | None:
        line = Line(self._url, _prepare)
        try:
            async with line.transaction() as connection:
                found: int | None = await connection.fetchval(statement, *values)
                return found
        finally:
            with suppress(DatabaseGone):
                await line.aclose()


async def _prepare(connection: Connection) -> None:
    await make_tables(connection, _TABLE)
