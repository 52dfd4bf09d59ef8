"""`keyrelay tenant`: who owns keys, tokens, backends and answers."""

from __future__ import annotations

import click

from proxy.cli.commands import Group
from proxy.cli.output import json_option, show_done, show_table
from proxy.cli.params import NAME, confirm, yes_option
from proxy.cli.session import Session, with_session


@click.group(cls=Group)
def tenant() -> None:
    """List and remove tenants. A tenant is there as soon as it owns something."""


@tenant.command("list")
@json_option
@with_session
async def list_(session: Session, as_json: bool) -> None:
    """List the tenants and how much each owns."""
    rows = [await _row(session, name) for name in await session.vault.list_tenants()]
    show_table(("tenant", "keys", "tokens", "backends"), rows, as_json)


@tenant.command()
@click.argument("name", type=NAME)
@yes_option
@json_option
@with_session
async def remove(session: Session, name: str, yes: bool, as_json: bool) -> None:
    """Remove a tenant: its keys, tokens, backends and cached answers."""
    facts = await _row(session, name)
    confirm(f"remove all that tenant {name} owns?", yes)
    await session.vault.remove_tenant(name)
    sentence = (
        f"removed tenant {name}: {facts['keys']} keys, {facts['tokens']} tokens, "
        f"{facts['backends']} backends and its answers"
    )
    show_done(sentence, facts, as_json)


async def _row(session: Session, name: str) -> dict[str, object]:
    return {
        "tenant": name,
        "keys": len(await session.vault.list_keys(name)),
        "tokens": len(await session.vault.list_tokens(name)),
        "backends": len(await session.vault.list_backends(name)),
    }
