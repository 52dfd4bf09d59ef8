"""`keyrelay key`: add, list, rotate, remove and test provider keys; shown only masked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import click

from proxy.cli.commands import Group
from proxy.cli.desk import Desk
from proxy.cli.failures import EXIT_FAILED, Failed, plainly
from proxy.cli.known import known_service
from proxy.cli.output import instant, json_option, show_done, show_table
from proxy.cli.params import Which, all_option, confirm, tenant_option, which_key, yes_option
from proxy.cli.secrets_in import EXPOSED, read_credential
from proxy.cli.session import (
    Session,
    open_session,
    with_desk,
    with_mending_session,
    with_session,
)
from proxy.config import judge_hosts, make_key
from proxy.injection import check_credential
from vault import KeyRecord

if TYPE_CHECKING:
    from proxy.cli.probing import Verdict

_EXTRA_ARGUMENTS: Final = {"allow_extra_args": True}
_COLUMNS: Final = ("tenant", "service", "alias", "key", "default", "hosts", "owner", "changed")


@click.group(cls=Group)
def key() -> None:
    """Add, list, rotate, remove and test provider keys.

    A key is read from a prompt without echo or from standard input (one line for each of its
    parts), never from an argument, and is never shown again.
    """


@key.command(context_settings=_EXTRA_ARGUMENTS)
@which_key
@click.option("--host", "hosts", multiple=True, help="your own host, for a service with *. hosts")
@json_option
@with_session
async def add(session: Session, which: Which, hosts: tuple[str, ...], as_json: bool) -> None:
    """Add a key for SERVICE: keyrelay key add openai < FILE."""
    _refuse_arguments()
    service = known_service(session.services, which.service)
    if service.keyless:
        raise Failed(f"{service.name} needs no key")
    with plainly():
        judge_hosts(service, hosts)
        credential = read_credential(service)
        new = make_key(service, (which.tenant, which.alias), credential, hosts)
    record = await session.vault.put_key(new)
    show_done(f"added {_name(record)}, {record.masked}", _row(record), as_json)


@key.command(context_settings=_EXTRA_ARGUMENTS)
@which_key
@json_option
@with_session
async def rotate(session: Session, which: Which, as_json: bool) -> None:
    """Replace the key of SERVICE by a new one, without a gap."""
    _refuse_arguments()
    service = known_service(session.services, which.service)
    with plainly():
        credential = read_credential(service)
        check_credential(service, credential)
    record = await session.vault.rotate_key(which.tenant, service.name, which.alias, credential)
    show_done(f"rotated {_name(record)}, now {record.masked}", _row(record), as_json)


@key.command("list")
@tenant_option
@all_option
@json_option
@with_session
async def list_(session: Session, tenant: str, every_tenant: bool, as_json: bool) -> None:
    """List the keys, masked."""
    records = await session.vault.list_keys(None if every_tenant else tenant)
    show_table(_COLUMNS, [_row(record) for record in records], as_json)


@key.command()
@which_key
@json_option
@with_session
async def default(session: Session, which: Which, as_json: bool) -> None:
    """Make one of several keys of SERVICE the one that calls use."""
    service = known_service(session.services, which.service).name
    await session.vault.make_default(which.tenant, service, which.alias)
    facts = {"tenant": which.tenant, "service": service, "alias": which.alias, "default": True}
    show_done(f"{service}/{which.alias} is the default now", facts, as_json)


@key.command()
@which_key
@yes_option
@json_option
@with_mending_session
async def remove(session: Session, which: Which, yes: bool, as_json: bool) -> None:
    """Remove a key: calls that need it are refused from then on."""
    name = f"{which.service}/{which.alias}"
    confirm(f"remove the key {name} of tenant {which.tenant}?", yes)
    service = session.services.canonical(which.service) or which.service
    await session.vault.remove_key(which.tenant, service, which.alias)
    facts = {"tenant": which.tenant, "service": service, "alias": which.alias, "removed": True}
    show_done(f"removed {name}", facts, as_json)


@key.command()
@which_key
@json_option
@with_desk
def test(desk: Desk, which: Which, as_json: bool) -> None:
    """Ask the provider whether a key is good, by one cheap call where it has one."""
    verdict = asyncio.run(_probe(desk, which))
    facts = {
        "service": which.service,
        "alias": which.alias,
        "tenant": which.tenant,
        "good": verdict.good,
        "verdict": verdict.sentence,
        "status": verdict.status,
    }
    show_done(f"{which.service}/{which.alias}: {verdict.sentence}", facts, as_json)
    click.get_current_context().exit(EXIT_FAILED if verdict.good is False else 0)


async def _probe(desk: Desk, which: Which) -> Verdict:
    # Imported here: no other command of this group needs the network.
    from proxy.cli.probing import held_key, probe_key  # noqa: PLC0415

    async with open_session(desk, desk.config()) as session:
        service = known_service(session.services, which.service)
        holdings = await session.vault.holdings(which.tenant)
        if not held_key(holdings.keys.get(service.name, ()), which).declared:
            return await probe_key(session, service, which)
    # The file's own key: now its value is needed.
    async with open_session(desk, desk.config("resolve")) as session:
        return await probe_key(session, service, which)


def _refuse_arguments() -> None:
    context = click.get_current_context()
    if context.args:
        raise click.UsageError(EXPOSED, context)


def _name(record: KeyRecord) -> str:
    return f"{record.ref.service}/{record.ref.alias} of tenant {record.ref.tenant}"


def _row(record: KeyRecord) -> dict[str, object]:
    ref = record.ref
    return {
        "tenant": ref.tenant,
        "service": ref.service,
        "alias": ref.alias,
        "key": record.masked,
        "default": ref.default,
        "hosts": list(ref.hosts),
        "owner": "file" if ref.declared else "vault",
        "version": ref.version,
        "created": instant(record.created_at),
        "changed": instant(record.rotated_at or record.created_at),
    }
