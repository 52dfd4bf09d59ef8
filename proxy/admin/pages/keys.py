"""Provider keys: the list, and the forms that add, rotate, prefer and remove."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.responses import RedirectResponse, Response

from proxy.admin.acts import KeyName
from proxy.admin.pages.board import Board, Visit, signed
from proxy.admin.pages.rendering import link
from proxy.errors import NotFound, RelayError
from proxy.services import Service
from proxy.usage.store import DAY, HOUR, UsageError, Which
from vault import Credential, KeyRecord, Secret, Token

HOME: Final = "/admin/keys"
OLD_SECONDS: Final = 180 * 86_400
"""The age from which on the page asks for a rotation."""

_DONE: Final = {
    "added": "The key is sealed. Calls can use it from now on.",
    "rotated": "The new key is sealed. Calls use it from now on; end the old one at the provider.",
    "default": "Calls use this key from now on when nobody names one.",
    "removed": "The key is gone, with all its versions.",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One key. `since`: when it was added or rotated; `used` None: see `unused`.

    `several`: its service has others.
    """

    record: KeyRecord
    since: float
    old: bool
    used: float | None
    unused: str
    several: bool


async def keys(board: Board, visit: Visit) -> Response:
    """The list."""
    records = await board.admin.acts.keys(visit.who)
    called = await _called(board, visit.who)
    return signed(
        board,
        visit,
        "keys",
        "keys.html",
        keys=_rows(board, records, called),
        changed=(visit.asked("service"), visit.asked("alias")),
        notice=_DONE.get(visit.asked("done"), ""),
        tenant_option=tenant_option(visit.who),
    )


async def add_form(board: Board, visit: Visit) -> Response:
    """What is asked depends on the service."""
    return _adding(board, visit, visit.asked("service"))


async def add(board: Board, visit: Visit) -> Response:
    """Seals a key."""
    form = visit.form
    name = KeyName(form.get("service", ""), form.get("alias", "") or "default")
    try:
        service = board.admin.acts.service(visit.who, name.service)
        hosts = form.get("hosts", "").replace(",", " ").split()
        await board.admin.acts.add_key(visit.who, name, _credential(service, form), hosts)
    except RelayError as error:
        return _adding(board, visit, name.service, error)
    return _done("added", name)


async def rotate_form(board: Board, visit: Visit) -> Response:
    """The parts of the new key."""
    return await _rotating(board, visit, KeyName(visit.asked("service"), visit.asked("alias")))


async def rotate(board: Board, visit: Visit) -> Response:
    """Seals a new version."""
    name = _named(visit)
    try:
        service = board.admin.acts.service(visit.who, name.service)
        await board.admin.acts.rotate_key(visit.who, name, _credential(service, visit.form))
    except RelayError as error:
        return await _rotating(board, visit, name, error)
    return _done("rotated", name)


async def make_default(board: Board, visit: Visit) -> Response:
    """Prefers one of several."""
    name = _named(visit)
    await board.admin.acts.make_default(visit.who, name)
    return _done("default", name)


async def remove_form(board: Board, visit: Visit) -> Response:
    """Asks once more."""
    ref = (await _found(board, visit, visit.asked("service"), visit.asked("alias"))).ref
    return signed(
        board,
        visit,
        "keys",
        "confirm.html",
        title=f"Remove {ref.service}/{ref.alias}?",
        what="Every version of it is destroyed at once, and calls that need it are refused. "
        "There is no way back.",
        action=f"{HOME}/remove",
        hidden={"service": ref.service, "alias": ref.alias},
        words="Remove the key",
        back=HOME,
    )


async def remove(board: Board, visit: Visit) -> Response:
    """Ends a key."""
    await board.admin.acts.remove_key(visit.who, _named(visit))
    return RedirectResponse(link(HOME, done="removed"), 303)


def categories(board: Board, who: Token) -> list[tuple[str, list[str]]]:
    """The services that take a key, by what they are for."""
    found: dict[str, list[str]] = defaultdict(list)
    for service in board.admin.acts.services(who):
        if not service.keyless:
            found[service.category].append(service.name)
    return sorted(found.items())


def tenant_option(who: Token) -> str:
    """What a command needs to act for this tenant."""
    return "" if who.tenant == "default" else f" --tenant {who.tenant}"


def _rows(board: Board, records: Sequence[KeyRecord], called: Mapping[str, float]) -> list[Row]:
    counts = Counter(record.ref.service for record in records)
    return [_row(board, one, called, counts[one.ref.service] > 1) for one in records]


def _row(board: Board, one: KeyRecord, called: Mapping[str, float], several: bool) -> Row:
    ref, since = one.ref, one.rotated_at or one.created_at
    used = board.last_use.of_key(ref.tenant, ref.service, ref.alias)
    if used is None and not several:  # before the start, by whole hours; of the service's only key
        used = called.get(ref.service)
    old = board.now - since >= OLD_SECONDS and not ref.declared
    return Row(one, since, old, used, "not since the start", several)


async def _called(board: Board, who: Token) -> dict[str, float]:
    """When each service was last called, by whole hours, in the last month."""
    if board.figures is None:
        return {}
    which = Which(board.now - 30 * DAY, board.now + HOUR, who.tenant)
    try:
        [found] = await board.figures.sums(which, ("service", "hour"))
    except UsageError:
        return {}
    return {one.group["service"]: one.group["hour"] for one in found if one.upstream}


def _adding(board: Board, visit: Visit, name: str, error: RelayError | None = None) -> Response:
    service = None
    if name:
        try:
            service = board.admin.acts.service(visit.who, name)
        except RelayError as unknown:
            error = error or unknown
    given = {"alias": visit.form.get("alias", ""), "hosts": visit.form.get("hosts", "")}
    return signed(
        board,
        visit,
        "keys",
        "key_add.html",
        status=error.status if error else 200,
        sentence=error.detail if error else "",
        categories=categories(board, visit.who),
        service=service,
        given=given,
    )


async def _rotating(
    board: Board, visit: Visit, name: KeyName, error: RelayError | None = None
) -> Response:
    ref = (await _found(board, visit, name.service, name.alias)).ref
    return signed(
        board,
        visit,
        "keys",
        "key_rotate.html",
        status=error.status if error else 200,
        sentence=error.detail if error else "",
        service=board.admin.acts.service(visit.who, ref.service),
        alias=ref.alias,
    )


async def _found(board: Board, visit: Visit, service: str, alias: str) -> KeyRecord:
    for one in await board.admin.acts.keys(visit.who):
        if (one.ref.service, one.ref.alias) == (service, alias):
            return one
    raise NotFound("There is no such key any more: load the list again.")


def _credential(service: Service, form: Mapping[str, str]) -> Credential:
    """White space around a part comes from copying."""
    given = ((part.name, form.get(f"part:{part.name}", "").strip()) for part in service.parts)
    return {name: Secret(text.encode()) for name, text in given if text}


def _named(visit: Visit) -> KeyName:
    return KeyName(visit.form.get("service", ""), visit.form.get("alias", ""))


def _done(what: str, name: KeyName) -> Response:
    return RedirectResponse(link(HOME, done=what, service=name.service, alias=name.alias), 303)
