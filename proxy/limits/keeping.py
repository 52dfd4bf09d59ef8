"""Where the counts of budgets, and of instances, are kept: beside the vault, wherever that is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from proxy.limits.budgets import Ledger
from proxy.limits.census import Census, FileCensus, PostgresCensus
from proxy.limits.ledger import SqliteLedger
from proxy.limits.notes import EVER
from proxy.limits.postgres import PostgresLedger


def ledger_at(data: Path, url: str | None) -> Ledger:
    """In the data directory, or in the database of this URL; nothing is opened yet."""
    return SqliteLedger(data / "usage.db") if url is None else PostgresLedger(url)


def census_at(data: Path, url: str | None) -> Census:
    """The same of the number of instances."""
    return FileCensus(data / "instances") if url is None else PostgresCensus(url)


async def written_in_all(ledger: Ledger) -> Mapping[str, int] | None:
    """What is counted for ever there, by subject; None: it can't be read, which is logged."""
    try:
        return await ledger.spent(EVER)
    finally:
        await ledger.aclose()


async def forget(ledger: Ledger) -> bool:
    """Makes it no calls in all there, for every subject; whether that is written."""
    try:
        there = await ledger.spent(EVER)
        if there is None:
            return False
        for subject, made in there.items():
            ledger.note(subject, EVER, -made)
        return len(await ledger.flush()) == len(there)
    finally:
        await ledger.aclose()


async def bring(calls: Mapping[str, int], ledger: Ledger) -> bool:
    """Makes it so many calls in all there, where it is fewer; whether that is written."""
    try:
        there = await ledger.spent(EVER)
        if there is None:
            return False
        more = {subject: made - there.get(subject, 0) for subject, made in calls.items()}
        lacking = {subject: made for subject, made in more.items() if made > 0}
        for subject, made in lacking.items():
            ledger.note(subject, EVER, made)
        return len(await ledger.flush()) == len(lacking)
    finally:
        await ledger.aclose()
