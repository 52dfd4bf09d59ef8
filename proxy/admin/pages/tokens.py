"""Platform tokens: the list, and the forms that issue, limit and revoke."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.responses import RedirectResponse, Response

from proxy.admin.acts import Wanted
from proxy.admin.pages.board import Board, Visit, signed
from proxy.admin.pages.formats import span
from proxy.admin.pages.keys import tenant_option
from proxy.admin.pages.limits import Limits
from proxy.admin.pages.rendering import link
from proxy.errors import NotFound, RelayError, Unacceptable
from proxy.usage.store import DAY, HOUR, UsageError, Which
from vault import KeyRecord, Token

HOME: Final = "/admin/tokens"
MOST: Final = 200
"""Tokens that are shown at once: a page of thousands would hold up calls while it is made."""

ROLES: Final = (
    ("call", "calls services, nothing else"),
    ("read", "looks at usage and settings, can't call"),
    ("admin", "changes keys, tokens and backends, signs in here"),
)
SPANS: Final = (
    ("", "never"),
    ("1", "in a day"),
    ("7", "in a week"),
    ("30", "in 30 days"),
    ("90", "in 90 days"),
    ("365", "in a year"),
)
_DONE: Final = {
    "revoked": "The token is over, from now on.",
    "limits": "Limits and bounds are set: they hold within a second.",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One token. `rules`: limits of its own, in words."""

    token: Token
    ends: str
    over: bool
    used: float | None
    rules: tuple[str, ...]


async def tokens(board: Board, visit: Visit) -> Response:
    """The list: what is over stands apart; of very many the newest, or those looked for."""
    called = await _called(board, visit.who)
    part = visit.asked("name").strip()[:64]
    every = await board.admin.acts.tokens(visit.who)
    found = [one for one in every if part.lower() in one.name.lower()]
    rows = [_row(board, one, called) for one in found[-MOST:]]
    return signed(
        board,
        visit,
        "tokens",
        "tokens.html",
        current=[row for row in rows if not row.over],
        over=[row for row in rows if row.over],
        every=len(every),
        found=len(found),
        most=MOST,
        part=part,
        notice=_DONE.get(visit.asked("done"), ""),
        changed=visit.asked("id"),
        tenant_option=tenant_option(visit.who),
    )


async def issue_form(board: Board, visit: Visit) -> Response:
    """What a token may."""
    return await _issuing(board, visit)


async def issue(board: Board, visit: Visit) -> Response:
    """Issues a token; the answer alone shows it."""
    try:
        token, text = await board.admin.acts.issue_token(visit.who, _wanted(board, visit))
    except RelayError as error:
        return await _issuing(board, visit, error)
    held = await board.admin.acts.keys(visit.who)
    allowed = token.services or {one.ref.service for one in held} or {"openai"}
    sdk = f"base_url = {visit.base}/proxy/{min(allowed)}\napi_key  = {text}"
    return signed(board, visit, "tokens", "token_issued.html", token=token, text=text, sdk=sdk)


async def limits_form(board: Board, visit: Visit) -> Response:
    """How much a token may."""
    token = await _found(board, visit, visit.asked("id"))
    return _limiting(board, visit, token, Limits.of(token).fields)


async def limit(board: Board, visit: Visit) -> Response:
    """Gives a token other limits; what is as it was is no change."""
    token = await _found(board, visit, visit.form.get("id", ""))
    try:
        change = Limits.said(visit.form).change(Limits.of(token))
        if change:
            await board.admin.acts.change_token(visit.who, token.id, change)
    except RelayError as error:
        return _limiting(board, visit, token, visit.form, error)
    return RedirectResponse(link(HOME, done="limits", id=token.id), 303)


async def revoke_form(board: Board, visit: Visit) -> Response:
    """Asks once more."""
    token = await _found(board, visit, visit.asked("id"))
    return signed(
        board,
        visit,
        "tokens",
        "confirm.html",
        title=f"Revoke {token.name}?",
        what="Whoever holds it can't call from now on. There is no way back; another one can be "
        "issued.",
        action=f"{HOME}/revoke",
        hidden={"id": token.id},
        words="Revoke the token",
        back=HOME,
    )


async def revoke(board: Board, visit: Visit) -> Response:
    """Ends a token."""
    await board.admin.acts.revoke_token(visit.who, visit.form.get("id", ""))
    return RedirectResponse(link(HOME, done="revoked"), 303)


def _wanted(board: Board, visit: Visit) -> Wanted:
    form = visit.form
    days = form.get("days", "")
    if days not in dict(SPANS):
        raise Unacceptable("Choose when the token ends from the list.")
    chosen = [name.partition(":")[2] for name in form if name.startswith("service:")]
    aliases = {name.partition(":")[2]: form[name] for name in form if name.startswith("key:")}
    said = Limits.said(form)
    return Wanted(
        name=form.get("name", "").strip(),
        role=form.get("role", "call"),
        services=chosen,
        keys={service: alias for service, alias in aliases.items() if alias},
        expires_at=board.now + int(days) * DAY if days else None,
        limits=said.limits,
        upstream_limits=said.upstream_limits,
        budget=said.budget,
        narrowing=said.narrowing,
        calls=said.calls,
    )


def _row(board: Board, token: Token, called: dict[str, float]) -> Row:
    now = board.now
    expired = token.expires_at is not None and token.expires_at <= now
    if token.revoked_at is not None:
        ends = f"revoked {span(now - token.revoked_at)} ago"
    elif token.expires_at is None:
        ends = "never"
    else:
        ends = f"ended {span(now - token.expires_at)} ago" if expired else ""
        ends = ends or f"in {span(token.expires_at - now)}"
    used = board.last_use.of_token(token.id) or called.get(token.id)
    return Row(token, ends, expired or token.revoked_at is not None, used, Limits.of(token).words)


async def _called(board: Board, who: Token) -> dict[str, float]:
    """When each token was last used, by whole hours, in the last month."""
    if board.figures is None:
        return {}
    which = Which(board.now - 30 * DAY, board.now + HOUR, who.tenant)
    try:
        [found] = await board.figures.sums(which, ("token", "hour"))
    except UsageError:
        return {}
    return {one.group["token_id"]: one.group["hour"] for one in found}


async def _issuing(board: Board, visit: Visit, error: RelayError | None = None) -> Response:
    held = await board.admin.acts.keys(visit.who)
    return signed(
        board,
        visit,
        "tokens",
        "token_issue.html",
        status=error.status if error else 200,
        sentence=error.detail if error else "",
        services=sorted({one.ref.service for one in held}),
        several=_several(held),
        roles=ROLES,
        spans=SPANS,
        given=defaultdict(str, visit.form),
    )


def _several(held: Sequence[KeyRecord]) -> list[tuple[str, list[str]]]:
    """The services with several keys, and the aliases of these."""
    found: dict[str, list[str]] = defaultdict(list)
    for one in held:
        found[one.ref.service].append(one.ref.alias)
    return [(service, sorted(aliases)) for service, aliases in sorted(found.items()) if aliases[1:]]


def _limiting(
    board: Board,
    visit: Visit,
    token: Token,
    given: Mapping[str, str],
    error: RelayError | None = None,
) -> Response:
    return signed(
        board,
        visit,
        "tokens",
        "token_limits.html",
        status=error.status if error else 200,
        sentence=error.detail if error else "",
        token=token,
        given=defaultdict(str, given),
    )


async def _found(board: Board, visit: Visit, token_id: str) -> Token:
    for one in await board.admin.acts.tokens(visit.who):
        if one.id == token_id and one.revoked_at is None:
            return one
    raise NotFound("There is no such token any more: load the list again.")
