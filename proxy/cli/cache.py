"""`keyrelay cache`: what is kept, and the end of it."""

from __future__ import annotations

import asyncio
import logging

import click

from proxy.cache.entry import CacheStats, SchemaTooNew, StoreError
from proxy.cache.schema import read_stats
from proxy.cli.commands import Group
from proxy.cli.desk import Desk
from proxy.cli.failures import Failed
from proxy.cli.known import known_service
from proxy.cli.output import json_option, show_done, show_json, show_table
from proxy.cli.params import NAME, all_option, tenant_option
from proxy.cli.session import Session, open_session, require_data, with_desk, with_session
from proxy.config import Config
from vault import Purge


@click.group(cls=Group)
def cache() -> None:
    """Show what the cache holds, or purge it."""


@cache.command()
@json_option
@with_desk
def stats(desk: Desk, as_json: bool) -> None:
    """Say how many answers are kept, for whom, and how much room they take."""
    require_data(desk)
    config = desk.config()
    try:
        shared = config.cache.url is not None
        found = asyncio.run(_shared(desk, config)) if shared else read_stats(desk.data / "cache.db")
    except (StoreError, SchemaTooNew) as error:
        raise Failed(str(error)) from error
    rows = [
        {"tenant": tenant, "service": service or None, "answers": one.entries, "bytes": one.octets}
        for (tenant, service), one in found.holdings.items()
    ]
    if as_json:
        show_json({"answers": found.entries, "bytes": found.octets, "by": rows})
        return
    show_table(("tenant", "service", "answers", "bytes"), rows, as_json)
    click.echo(f"{found.entries} answers, {found.octets} bytes", err=True)


async def _shared(desk: Desk, config: Config) -> CacheStats:
    """What all instances have in Redis."""
    from proxy.way import stored_in_redis  # noqa: PLC0415 - most commands need none of it

    heard, log = logging.NullHandler(), logging.getLogger("keyrelay.engine")
    log.addHandler(heard)  # what a server would log is said by the command's failure
    try:
        async with open_session(desk, config) as session:
            return await stored_in_redis(config, session.vault, desk.clock)
    finally:
        log.removeHandler(heard)


@cache.command()
@tenant_option
@all_option
@click.option("--service", type=NAME, help="only the answers of this service")
@json_option
@with_session
async def purge(
    session: Session, tenant: str, every_tenant: bool, service: str | None, as_json: bool
) -> None:
    """End every answer that is kept by now; a running server drops them within a second."""
    name = known_service(session.services, service).name if service else None
    purged = Purge(session.now, None if every_tenant else tenant, name)
    await session.vault.purge(purged)
    whose = "every tenant" if every_tenant else f"tenant {tenant}"
    what = f"the {name} answers" if name else "the answers"
    facts = {"tenant": purged.tenant, "service": name, "until": purged.at}
    show_done(f"purged {what} of {whose}", facts, as_json)
