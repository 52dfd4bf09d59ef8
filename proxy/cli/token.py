"""`keyrelay token`: issue, list and revoke platform tokens; a token is shown once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import click

from proxy.cli.commands import Group
from proxy.cli.failures import Failed
from proxy.cli.known import known_service
from proxy.cli.output import instant, json_option, show_done, show_json, show_table
from proxy.cli.params import NAME, TOKEN_NAME, Expiry, Pair, all_option, bundled, tenant_option
from proxy.cli.session import Session, with_session
from proxy.services import Services
from vault import DEFAULT_TENANT, ROLES, NewToken, Token

_COLUMNS: Final = ("id", "name", "tenant", "role", "services", "keys", "expires", "state")


@dataclass(frozen=True, slots=True)
class Asked:
    """The token that was asked for, in the words of the command line."""

    name: str
    tenant: str
    role: str
    services: tuple[str, ...]
    keys: tuple[tuple[str, str], ...]
    expires: float | None


@click.group(cls=Group)
def token() -> None:
    """Issue, list and revoke platform tokens."""


@token.command()
@bundled(
    "asked",
    Asked,
    click.argument("name", type=TOKEN_NAME),
    tenant_option,
    click.option(
        "--role", type=click.Choice(ROLES), default="call", show_default=True, help="what it may do"
    ),
    click.option("--service", "services", type=NAME, multiple=True, help="only this; repeatable"),
    click.option(
        "--key", "keys", type=Pair(), multiple=True, help="which of several keys; repeatable"
    ),
    click.option("--expires", type=Expiry(), help="30d, 12h or a date such as 2030-01-31"),
)
@json_option
@with_session
async def issue(session: Session, asked: Asked, as_json: bool) -> None:
    """Issue a token called NAME. It is printed once, to standard output."""
    wanted = _wanted(session.services, asked)
    await _refuse_absent_keys(session, wanted)
    issued, text = await session.vault.issue_token(wanted)
    if as_json:
        show_json({**_row(issued, session.now), "token": text})
        return
    click.echo(text)
    click.echo("this is the only time that the token is shown: keep it where secrets are", err=True)


@token.command("list")
@tenant_option
@all_option
@json_option
@with_session
async def list_(session: Session, tenant: str, every_tenant: bool, as_json: bool) -> None:
    """List the tokens; what they open is not in the list."""
    now = session.now
    tokens = await session.vault.list_tokens(None if every_tenant else tenant)
    show_table(_COLUMNS, [_row(one, now) for one in tokens], as_json)


@token.command()
@click.argument("name", metavar="NAME|ID", type=TOKEN_NAME)
@tenant_option
@json_option
@with_session
async def revoke(session: Session, name: str, tenant: str, as_json: bool) -> None:
    """Revoke a token, at once and for good."""
    revoked = await session.vault.revoke_token(tenant, name)
    sentence = f"revoked {revoked.name} ({revoked.id}) of tenant {tenant}"
    show_done(sentence, _row(revoked, session.now), as_json)


def _wanted(services: Services, asked: Asked) -> NewToken:
    named = frozenset(known_service(services, name).name for name in asked.services)
    return NewToken(
        tenant=asked.tenant,
        name=asked.name,
        role=asked.role,
        services=named or None,
        key_aliases={known_service(services, name).name: alias for name, alias in asked.keys},
        expires_at=asked.expires,
    )


async def _refuse_absent_keys(session: Session, wanted: NewToken) -> None:
    held = {
        (key.ref.service, key.ref.alias) for key in await session.vault.list_keys(wanted.tenant)
    }
    owner = "" if wanted.tenant == DEFAULT_TENANT else f" --tenant {wanted.tenant}"
    for service, alias in wanted.key_aliases.items():
        if (service, alias) not in held:
            raise Failed(
                f"tenant {wanted.tenant} has no key {service}/{alias}: "
                f"keyrelay key add {service} --alias {alias}{owner}"
            )


def _row(one: Token, now: float) -> dict[str, object]:
    return {
        "id": one.id,
        "name": one.name,
        "tenant": one.tenant,
        "role": one.role,
        "services": "all" if one.services is None else sorted(one.services),
        "keys": [f"{service}={alias}" for service, alias in sorted(one.key_aliases.items())],
        "expires": instant(one.expires_at),
        "state": _state(one, now),
        "created": instant(one.created_at),
        "revoked": instant(one.revoked_at),
    }


def _state(one: Token, now: float) -> str:
    if one.revoked_at is not None:
        return "revoked"
    return "expired" if one.expires_at is not None and one.expires_at <= now else "good"
