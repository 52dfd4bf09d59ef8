"""Where the counts of budgets, and of instances, are kept: beside the vault, wherever that is."""

from __future__ import annotations

from pathlib import Path

from proxy.limits.budgets import Ledger
from proxy.limits.census import Census, FileCensus, PostgresCensus
from proxy.limits.ledger import SqliteLedger
from proxy.limits.postgres import PostgresLedger


def ledger_at(data: Path, url: str | None) -> Ledger:
    """In the data directory, or in the database of this URL; nothing is opened yet."""
    return SqliteLedger(data / "usage.db") if url is None else PostgresLedger(url)


def census_at(data: Path, url: str | None) -> Census:
    """The same of the number of instances."""
    return FileCensus(data / "instances") if url is None else PostgresCensus(url)
