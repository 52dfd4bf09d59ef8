"""`keyrelay token`: issue, list, change and revoke platform tokens; a token is shown once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import click

from proxy.cli.commands import Group
from proxy.cli.failures import Failed
from proxy.cli.known import known_service
from proxy.cli.narrowing import OPTIONS, Texts, shown, texts_of
from proxy.cli.output import instant, json_option, show_done, show_table
from proxy.cli.params import NAME, TOKEN_NAME, Expiry, Pair, all_option, bundled, tenant_option
from proxy.cli.rates import BUDGET, CALLS, NONE, RATE, Nothing, Said
from proxy.cli.session import Session, with_mending_session, with_session
from proxy.limits.grammar import Limit, in_order
from proxy.services import Services
from vault import DEFAULT_TENANT, ROLES, Narrowing, NewToken, Token, TokenChange

_COLUMNS: Final = (
    *("id", "name", "tenant", "role", "services", "keys", "expires", "state"),
    *("limits", "upstream limits", "budget", "calls", "only"),
)
UNSEEN: Final = "nobody can have read the token, so it is revoked: issue another one"
_limits = click.option(
    "--limit", "limits", type=RATE, multiple=True, help="calls in a time, as 60/minute; repeatable"
)
_upstream_limits = click.option(
    "--upstream-limit",
    "upstream_limits",
    type=RATE,
    multiple=True,
    help="the same for calls that no kept answer saves; repeatable",
)
_budget = click.option("--budget", type=BUDGET, help="upstream calls in a calendar month")
_calls = click.option("--calls", type=CALLS, help="calls in all, ever")


@dataclass(frozen=True, slots=True)
class Asked:
    """The token that was asked for, in the words of the command line."""

    name: str
    tenant: str
    role: str
    services: tuple[str, ...]
    keys: tuple[tuple[str, str], ...]
    expires: float | None
    limits: tuple[Said, ...]
    upstream_limits: tuple[Said, ...]
    budget: int | Nothing | None
    calls: int | Nothing | None
    hosts: Texts
    paths: Texts
    methods: Texts
    origins: Texts


@dataclass(frozen=True, slots=True)
class Other:
    """What is to be different about a token."""

    limits: tuple[Said, ...]
    upstream_limits: tuple[Said, ...]
    budget: int | Nothing | None
    calls: int | Nothing | None
    hosts: Texts
    paths: Texts
    methods: Texts
    origins: Texts


@click.group(cls=Group)
def token() -> None:
    """Issue, list, change and revoke platform tokens.

    For a page in a browser make a short-lived one of them: POST /tokens on the server.
    """


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
    _limits,
    _upstream_limits,
    _budget,
    _calls,
    *OPTIONS,
)
@json_option
@with_session
async def issue(session: Session, asked: Asked, as_json: bool) -> None:
    """Issue a token called NAME. It is printed once, to standard output."""
    wanted = _wanted(session.services, asked)
    await _refuse_absent_keys(session, wanted)
    issued, text = await session.vault.issue_token(wanted)
    try:
        show_done(text, {**_row(issued, session.now), "token": text}, as_json)
    except OSError as error:
        await session.vault.revoke_token(issued.tenant, issued.id)
        raise Failed(UNSEEN) from error
    if not as_json:
        once = "this is the only time that the token is shown: keep it where secrets are"
        click.echo(once, err=True)


@token.command("list")
@tenant_option
@all_option
@json_option
@with_mending_session
async def list_(session: Session, tenant: str, every_tenant: bool, as_json: bool) -> None:
    """List the tokens; what they open is not in the list."""
    now = session.now
    tokens = await session.vault.list_tokens(None if every_tenant else tenant)
    show_table(_COLUMNS, [_row(one, now) for one in tokens], as_json)


@token.command("set")
@click.argument("name", metavar="NAME|ID", type=TOKEN_NAME)
@tenant_option
@bundled("other", Other, _limits, _upstream_limits, _budget, _calls, *OPTIONS)
@json_option
@with_session
async def set_(session: Session, name: str, tenant: str, other: Other, as_json: bool) -> None:
    """Give a token other limits and bounds; what is not named stays, `none` takes it away."""
    change = _change(session.services, other)
    changed = await session.vault.change_token(tenant, name, change)
    sentence = f"set {changed.name} ({changed.id}) of tenant {tenant}: {_in_words(changed)}"
    show_done(sentence, _row(changed, session.now), as_json)


@token.command()
@click.argument("name", metavar="NAME|ID", type=TOKEN_NAME)
@tenant_option
@json_option
@with_mending_session
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
        limits=_texts(services, "--limit", asked.limits),
        upstream_limits=_texts(services, "--upstream-limit", asked.upstream_limits),
        budget=None if asked.budget is NONE else asked.budget,
        narrowing=Narrowing(*(texts_of(name, getattr(asked, name)) for name in Narrowing._fields)),
        calls=None if asked.calls is NONE else asked.calls,
    )


def _change(services: Services, other: Other) -> TokenChange:
    change: TokenChange = {}
    if other.limits:
        change["limits"] = _texts(services, "--limit", other.limits)
    if other.upstream_limits:
        change["upstream_limits"] = _texts(services, "--upstream-limit", other.upstream_limits)
    if other.budget is not None:
        change["budget"] = None if other.budget is NONE else other.budget
    if other.calls is not None:
        change["calls"] = None if other.calls is NONE else other.calls
    if other.hosts:
        change["hosts"] = texts_of("hosts", other.hosts)
    if other.paths:
        change["paths"] = texts_of("paths", other.paths)
    if other.methods:
        change["methods"] = texts_of("methods", other.methods)
    if other.origins:
        change["origins"] = texts_of("origins", other.origins)
    if not change:
        raise click.UsageError(
            "say what changes: --limit, --upstream-limit, --budget, --calls, --host, --path, "
            "--method or --origin"
        )
    return change


def _texts(services: Services, option: str, said: tuple[Said, ...]) -> tuple[str, ...]:
    """The canonical texts, each once; `none` stands alone."""
    limits = [one for one in said if one is not NONE]
    if limits and len(limits) < len(said):
        raise click.UsageError(f"{option} none takes all away; leave it out to set others")
    named = [_for_service(services, one) for one in limits]
    try:
        return tuple(map(str, in_order(named)))
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from error


def _for_service(services: Services, limit: Limit) -> Limit:
    if limit.service is None:
        return limit
    return limit._replace(service=known_service(services, limit.service).name)


def _in_words(one: Token) -> str:
    """The limits and bounds that a token has of its own."""
    upstream = [f"upstream {text}" for text in one.upstream_limits]
    budget = [] if one.budget is None else [f"budget {one.budget}"]
    calls = [] if one.calls is None else [f"calls {one.calls}"]
    found = [*one.limits, *upstream, *budget, *calls, *shown(one)]
    return ", ".join(found) or "no limits of its own"


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
        "limits": list(one.limits),
        "upstream limits": list(one.upstream_limits),
        "budget": one.budget,
        "calls": one.calls,
        "only": shown(one),
    }


def _state(one: Token, now: float) -> str:
    if one.revoked_at is not None:
        return "revoked"
    return "expired" if one.expires_at is not None and one.expires_at <= now else "good"
