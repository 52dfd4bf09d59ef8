"""`keyrelay backend`: the places of one's own where a service's key may go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import click

from proxy.cli.commands import Group
from proxy.cli.known import known_service
from proxy.cli.output import json_option, show_done, show_table
from proxy.cli.params import NAME, all_option, bundled, confirm, tenant_option, yes_option
from proxy.cli.session import Session, with_mending_session, with_session
from proxy.destinations import parse_registration, reachable
from vault import Backend

_COLUMNS: Final = ("tenant", "service", "url", "owner")


@dataclass(frozen=True, slots=True)
class Which:
    """Which registration is meant."""

    url: str
    service: str
    tenant: str


_which = bundled(
    "which",
    Which,
    click.argument("url"),
    click.option("--service", type=NAME, required=True, help="whose key the backend gets"),
    tenant_option,
)


@click.group(cls=Group)
def backend() -> None:
    """Say where else a service's key may go: a scheme, a host, a port and a path prefix."""


@backend.command()
@_which
@json_option
@with_session
async def add(session: Session, which: Which, as_json: bool) -> None:
    """Register URL and all below its path, such as http://10.0.0.5:8080/v1."""
    place = _place(session, which)
    reachable(place.binding)
    await session.vault.add_backend(place)
    sentence = f"the {place.service} key of tenant {place.tenant} may go to {place.binding}"
    show_done(sentence, _row(place), as_json)


@backend.command("list")
@tenant_option
@all_option
@json_option
@with_session
async def list_(session: Session, tenant: str, every_tenant: bool, as_json: bool) -> None:
    """List the registered backends."""
    places = await session.vault.list_backends(None if every_tenant else tenant)
    show_table(_COLUMNS, [_row(place) for place in places], as_json)


@backend.command()
@_which
@yes_option
@json_option
@with_mending_session
async def remove(session: Session, which: Which, yes: bool, as_json: bool) -> None:
    """Take a registration back: the key goes there no more."""
    place = _place(session, which)
    confirm(f"remove the backend {place.binding} of {place.service}?", yes)
    await session.vault.remove_backend(place)
    sentence = f"the {place.service} key of tenant {place.tenant} goes to {place.binding} no more"
    show_done(sentence, _row(place), as_json)


def _place(session: Session, which: Which) -> Backend:
    service = known_service(session.services, which.service)
    return Backend(which.tenant, service.name, parse_registration(which.url))


def _row(place: Backend) -> dict[str, object]:
    return {
        "tenant": place.tenant,
        "service": place.service,
        "url": str(place.binding),
        "owner": "file" if place.declared else "vault",
    }
