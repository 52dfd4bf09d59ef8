"""Where usage is kept: beside the vault, wherever that is."""

from __future__ import annotations

from pathlib import Path

from proxy.usage.postgres import PostgresUsage
from proxy.usage.sqlite import SqliteUsage
from proxy.usage.store import UsageStore


def usage_store(data: Path, url: str | None) -> UsageStore:
    """In the data directory, or in the database of this URL; nothing is opened yet."""
    return SqliteUsage(data / "usage.db") if url is None else PostgresUsage(url)
