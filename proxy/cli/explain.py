"""`keyrelay explain`: what would happen to a call, without a value in it; nothing is sent."""

from __future__ import annotations

import os
from typing import Final
from urllib.parse import quote

import click

from proxy.authentication import Authenticator, HandedOut
from proxy.cache.key import Keyer
from proxy.cache.policy import CacheSettings, decide
from proxy.call import Call, Directions, parse_directions
from proxy.cli.commands import Command
from proxy.cli.output import instant, json_option, show_facts
from proxy.cli.params import tenant_option
from proxy.cli.secrets_in import read_line
from proxy.cli.session import Session, with_session
from proxy.cli.wiring import PSEUDONYM, authorizer, forwarder
from proxy.destinations import Target
from proxy.errors import RelayError
from proxy.grant import Client, Grant, Place, site_of
from proxy.messages import NoBody
from proxy.routing import Router
from proxy.services import Slot

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@click.command(cls=Command)
@click.argument("url")
@click.option(
    "--method", type=click.Choice(_METHODS), default="GET", show_default=True, help="of the call"
)
@tenant_option
@json_option
@with_session
async def explain(session: Session, url: str, method: str, tenant: str, as_json: bool) -> None:
    """Say what would happen to URL: a call (/proxy?server=...) or a bare destination.

    The caller is the token on standard input; without one, or with --tenant, a token of that
    tenant without limits.
    """
    text = b"" if _tenant_was_named() else read_line()
    fields = ((b"authorization", b"Bearer " + text),) if text else ()
    call = Call(method, _directions(session, url), fields, NoBody(), "explain")
    facts: dict[str, object] = {}
    try:
        await _explain(session, call, tenant, facts)
        facts["verdict"] = "would be forwarded"
    except RelayError as error:
        facts["verdict"] = f"refused with status {error.status}: {error.detail}"
        facts["code"] = error.code
    show_facts(facts, as_json)


def _tenant_was_named() -> bool:
    source = click.get_current_context().get_parameter_source("tenant")
    return source is click.core.ParameterSource.COMMANDLINE


def _directions(session: Session, url: str) -> Directions | RelayError:
    try:
        return parse_directions(_target(url), session.services)
    except RelayError as error:
        return error


def _target(url: str) -> bytes:
    """The request target: of a call as it is, of a bare destination as its `server`."""
    rest = url if url.startswith("/") else "/" + url.partition("://")[2].partition("/")[2]
    if rest.startswith("/proxy") and rest[6:7] in ("", "/", "?"):
        return os.fsencode(rest)  # the octets that were typed, whatever they are
    return b"/proxy?server=" + quote(os.fsencode(url), safe="").encode()


async def _explain(session: Session, call: Call, tenant: str, facts: dict[str, object]) -> None:
    client = await _client(session, call, tenant)
    facts |= {"caller": client.name, "tenant": client.tenant}
    route = Router(PSEUDONYM).route(call)
    facts |= {"destination": _place_of(route.target), "parameters": _parameters(route.target)}
    grant = authorizer(session).authorize(client, call, route)
    facts |= _granted(call, grant)
    async with forwarder(session) as upstream:
        settings = CacheSettings(**session.config.cache.model_dump())
        keyer = Keyer(
            hasher=await session.vault.hasher("cache-keys"),
            forwarded=upstream.forwarded,
            ignore_fields=settings.ignore_fields,
            fold_json=settings.json_whitespace == "ignore",
        )
        facts |= _cached(session, call, route.asked, settings)
        facts["cache key"] = keyer.parts(call, grant)


async def _client(session: Session, call: Call, tenant: str) -> Client:
    if not call.fields:
        return Client(f"any token of {tenant}", await session.vault.holdings(tenant))
    server = session.config.server
    rules = HandedOut(server.accept_handed_out, server.handed_out_grace)
    asked = Authenticator(session.vault, session.services, session.desk.clock, rules)
    return await asked.authenticate(call)


def _granted(call: Call, grant: Grant) -> dict[str, object]:
    site = site_of(grant.sites, grant.target)
    return {
        "service": grant.service.name if grant.service else None,
        "place": grant.place.value,
        "rule": str(site.binding) if site else None,
        "key": f"{grant.key.service}/{grant.key.alias}" if grant.key else None,
        "key goes in": _carriers(call, grant),
    }


def _carriers(call: Call, grant: Grant) -> list[str]:
    if grant.service is None or grant.key is None:
        return []
    if grant.place is Place.BACKEND:
        return [_carrier(slot) for slot in grant.service.backend_slots]
    slots = grant.service.slots_for(grant.target.host, call.fields)
    return [_carrier(slot) for slot in slots]


def _carrier(slot: Slot) -> str:
    if slot.carrier in ("header", "basic"):
        return f"header {slot.name}"
    return f"parameter {slot.name}" if slot.carrier == "query" else "a segment of the path"


def _cached(
    session: Session, call: Call, asked: Directions, settings: CacheSettings
) -> dict[str, object]:
    plan = decide(call.method, asked, session.now, settings)
    return {
        "looked up in the cache": plan.lookup,
        "kept until": instant(plan.until) or "not kept",
        "cache detail": plan.detail,
    }


def _place_of(target: Target) -> str:
    return f"{target.scheme}://{target.authority}{target.path}"


def _parameters(target: Target) -> list[str]:
    """Their names; a value may be a secret."""
    return [each.partition("=")[0] for each in (target.query or "").split("&") if each]
