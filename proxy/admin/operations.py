"""The admin API's operations, one row each: what they take, what they give, which act they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from proxy.admin import asked, given, sums
from proxy.admin.acts import CHANGING, READING, Acts, KeyName, Wanted
from proxy.admin.reports import Reports
from proxy.errors import Unacceptable
from vault import AuditWanted, Token

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Asking:
    """One request to the API, read: who asks, and what stands in path, query and body."""

    acts: Acts
    reports: Reports
    who: Token
    path: Mapping[str, str]
    query: Any
    body: Any

    @property
    def key(self) -> KeyName:
        """The key that the path names."""
        return KeyName(self.path["service"], self.path["alias"])


@dataclass(frozen=True, slots=True)
class Operation:
    """One row. `gives` None: nothing, with 204. `name`: its operationId."""

    method: str
    path: str
    name: str
    does: str
    act: Callable[[Asking], Awaitable[BaseModel | None]]
    gives: type[BaseModel] | None = None
    query: type[asked.Asked] = asked.Asked
    body: type[asked.Asked] | None = None
    status: int = 200

    @property
    def roles(self) -> frozenset[str]:
        """Which tokens may."""
        return READING if self.method == "GET" else CHANGING


def part(
    rows: Sequence[_T], name: Callable[[_T], str], paging: asked.Paging
) -> tuple[Sequence[_T], str | None]:
    """The rows behind `after`, at most `limit`, and what stands for the last if more follow."""
    start = 0
    if paging.after is not None:
        places = [place for place, row in enumerate(rows, 1) if _mark(name(row)) == paging.after]
        if not places:
            raise Unacceptable("What after stands for is gone: begin the list again without it.")
        start = places[0]
    found = rows[start : start + paging.limit]
    return found, _mark(name(found[-1])) if start + paging.limit < len(rows) else None


def _mark(name: str) -> str:
    return blake2b(name.encode(), digest_size=8).hexdigest()


async def _tenant(asking: Asking) -> given.TenantGiven:
    acts, who = asking.acts, asking.who
    return given.TenantGiven(
        name=who.tenant,
        keys=len(await acts.keys(who)),
        tokens=len(await acts.tokens(who)),
        backends=len(await acts.backends(who)),
    )


async def _services(asking: Asking) -> given.Services:
    rows = asking.acts.services(asking.who, asking.query.text)
    found, after = part(rows, lambda one: one.name, asking.query)
    return given.Services(items=[given.ServiceGiven.of(one) for one in found], next=after)


async def _service(asking: Asking) -> given.ServiceGiven:
    return given.ServiceGiven.of(asking.acts.service(asking.who, asking.path["service"]))


async def _keys(asking: Asking) -> given.Keys:
    rows = await asking.acts.keys(asking.who)
    found, after = part(rows, lambda one: f"{one.ref.service}/{one.ref.alias}", asking.query)
    return given.Keys(items=[given.KeyGiven.of(one) for one in found], next=after)


async def _add_key(asking: Asking) -> given.KeyGiven:
    body: asked.NewKeyAsked = asking.body
    name = KeyName(body.service, body.alias)
    record = await asking.acts.add_key(asking.who, name, body.credential, body.hosts)
    return given.KeyGiven.of(record)


async def _rotate_key(asking: Asking) -> given.KeyGiven:
    credential = asking.body.credential
    return given.KeyGiven.of(await asking.acts.rotate_key(asking.who, asking.key, credential))


async def _make_default(asking: Asking) -> None:
    await asking.acts.make_default(asking.who, asking.key)


async def _remove_key(asking: Asking) -> None:
    await asking.acts.remove_key(asking.who, asking.key)


async def _tokens(asking: Asking) -> given.Tokens:
    rows = await asking.acts.tokens(asking.who)
    found, after = part(rows, lambda one: one.id, asking.query)
    now = asking.acts.now
    return given.Tokens(items=[given.TokenGiven.of(one, now) for one in found], next=after)


async def _issue_token(asking: Asking) -> given.TokenIssued:
    body: asked.NewTokenAsked = asking.body
    services = tuple(body.services or ())
    scope = (body.name, body.role, services, body.keys, body.expires_at)
    counted = (body.limits, body.upstream_limits, body.budget)
    wanted = Wanted(*scope, *counted, body.narrowing, body.calls)
    token, text = await asking.acts.issue_token(asking.who, wanted)
    return given.TokenIssued(**given.token_members(token, asking.acts.now), token=text)


async def _change_token(asking: Asking) -> given.TokenGiven:
    change = asking.body.change()
    token = await asking.acts.change_token(asking.who, asking.path["id"], change)
    return given.TokenGiven.of(token, asking.acts.now)


async def _revoke_token(asking: Asking) -> given.TokenGiven:
    token = await asking.acts.revoke_token(asking.who, asking.path["id"])
    return given.TokenGiven.of(token, asking.acts.now)


async def _backends(asking: Asking) -> given.Backends:
    rows = await asking.acts.backends(asking.who)
    found, after = part(rows, lambda one: f"{one.service} {one.binding}", asking.query)
    return given.Backends(items=[given.BackendGiven.of(one) for one in found], next=after)


async def _add_backend(asking: Asking) -> given.BackendGiven:
    body: asked.BackendAsked = asking.body
    place = await asking.acts.add_backend(asking.who, body.service, body.url)
    return given.BackendGiven.of(place)


async def _remove_backend(asking: Asking) -> None:
    await asking.acts.remove_backend(asking.who, asking.query.service, asking.query.url)


async def _cache(asking: Asking) -> given.CacheGiven:
    return given.CacheGiven.of(await asking.acts.cache(asking.who))


async def _purge(asking: Asking) -> given.PurgeGiven:
    return given.PurgeGiven.of(await asking.acts.purge(asking.who, asking.body.service))


async def _audit(asking: Asking) -> given.Audit:
    query: asked.AuditAsked = asking.query
    before = int(query.after) if query.after else None
    since = None if query.since is None else query.since.timestamp()
    wanted = AuditWanted(before=before, since=since, actor=query.actor, action=query.action)
    found = await asking.acts.audit(asking.who, query.limit + 1, **wanted)
    more = len(found) > query.limit
    shown = found[: query.limit]
    items = [given.ChangeGiven.of(one) for one in shown]
    return given.Audit(items=items, next=str(shown[-1].number) if more else None)


async def _usage(asking: Asking) -> sums.UsageGiven:
    query: asked.UsageAsked = asking.query
    days = (query.since, query.until)
    found = await asking.reports.used(asking.who, *days, query.service)
    return sums.UsageGiven.model_validate(found)


async def _health(asking: Asking) -> sums.HealthGiven:
    found = await asking.reports.standings(asking.who)
    return sums.HealthGiven(services=[sums.ServiceHealth.of(one) for one in found])


_KEY: Final = "/keys/{service}/{alias}"

OPERATIONS: Final = (
    Operation(
        "GET", "/tenant", "showTenant", "the token's tenant and how much it owns", _tenant,
        given.TenantGiven,
    ),
    Operation(
        "GET", "/services", "listServices", "the services known by name", _services,
        given.Services, asked.ServicesAsked,
    ),
    Operation(
        "GET", "/services/{service}", "showService", "one service, by a name of it", _service,
        given.ServiceGiven,
    ),
    Operation(
        "GET", "/keys", "listKeys", "the provider keys, masked", _keys, given.Keys, asked.Paging
    ),
    Operation(
        "POST", "/keys", "addKey", "seal a new key", _add_key, given.KeyGiven,
        body=asked.NewKeyAsked, status=201,
    ),
    Operation(
        "POST", _KEY + "/rotate", "rotateKey", "replace a key by a new one, without a gap",
        _rotate_key, given.KeyGiven, body=asked.KeyValue,
    ),
    Operation(
        "POST", _KEY + "/default", "makeKeyDefault", "let calls use this key of several",
        _make_default, status=204,
    ),
    Operation(
        "DELETE", _KEY, "removeKey", "end a key with all its versions", _remove_key, status=204
    ),
    Operation(
        "GET", "/tokens", "listTokens", "the tokens, the revoked too", _tokens,
        given.Tokens, asked.Paging,
    ),
    Operation(
        "POST", "/tokens", "issueToken", "issue a token; its text is shown this once",
        _issue_token, given.TokenIssued, body=asked.NewTokenAsked, status=201,
    ),
    Operation(
        "PATCH", "/tokens/{id}", "changeToken", "give a token other limits and bounds",
        _change_token, given.TokenGiven, body=asked.TokenChangeAsked,
    ),
    Operation(
        "DELETE", "/tokens/{id}", "revokeToken", "end a token for good", _revoke_token,
        given.TokenGiven,
    ),
    Operation(
        "GET", "/backends", "listBackends", "where else keys may go", _backends,
        given.Backends, asked.Paging,
    ),
    Operation(
        "POST", "/backends", "addBackend", "let a service's key go to a URL and below",
        _add_backend, given.BackendGiven, body=asked.BackendAsked, status=201,
    ),
    Operation(
        "DELETE", "/backends", "removeBackend", "take that back", _remove_backend,
        query=asked.BackendAsked, status=204,
    ),
    Operation(
        "GET", "/usage", "showUsage", "what the tenant's tokens have used", _usage,
        sums.UsageGiven, asked.UsageAsked,
    ),
    Operation(
        "GET", "/health", "showHealth", "how the tenant's services fare", _health,
        sums.HealthGiven,
    ),
    Operation(
        "GET", "/cache", "showCache", "how many answers are kept", _cache, given.CacheGiven
    ),
    Operation(
        "POST", "/cache/purge", "purgeCache", "end every answer that is kept by now", _purge,
        given.PurgeGiven, body=asked.PurgeAsked,
    ),
    Operation(
        "GET", "/audit", "listChanges", "who did what, the newest first", _audit,
        given.Audit, asked.AuditAsked,
    ),
)  # fmt: skip
