"""Backends: the list, and the forms that add and remove."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from starlette.responses import RedirectResponse, Response

from proxy.admin.pages.board import Board, Visit, signed
from proxy.admin.pages.keys import categories, tenant_option
from proxy.admin.pages.rendering import link
from proxy.errors import RelayError

HOME: Final = "/admin/backends"
_DONE: Final = {
    "added": "Registered: calls there carry the service's key from now on.",
    "removed": "Taken back: no key goes there any more.",
}


async def backends(board: Board, visit: Visit) -> Response:
    """The list."""
    return signed(
        board,
        visit,
        "backends",
        "backends.html",
        backends=await board.admin.acts.backends(visit.who),
        notice=_DONE.get(visit.asked("done"), ""),
        tenant_option=tenant_option(visit.who),
    )


async def add_form(board: Board, visit: Visit) -> Response:
    """Which service, and where."""
    return _adding(board, visit)


async def add(board: Board, visit: Visit) -> Response:
    """Registers a place."""
    service, url = visit.form.get("service", ""), visit.form.get("url", "").strip()
    try:
        await board.admin.acts.add_backend(visit.who, service, url)
    except RelayError as error:
        return _adding(board, visit, error)
    return RedirectResponse(link(HOME, done="added"), 303)


async def remove_form(board: Board, visit: Visit) -> Response:
    """Asks once more."""
    service, url = visit.asked("service"), visit.asked("url")
    return signed(
        board,
        visit,
        "backends",
        "confirm.html",
        title=f"Take back {service}?",
        what=f"Calls to {url} are refused from now on, and no key goes there any more.",
        action=f"{HOME}/remove",
        hidden={"service": service, "url": url},
        words="Remove the backend",
        back=HOME,
    )


async def remove(board: Board, visit: Visit) -> Response:
    """Takes a registration back."""
    given = visit.form
    await board.admin.acts.remove_backend(visit.who, given.get("service", ""), given.get("url", ""))
    return RedirectResponse(link(HOME, done="removed"), 303)


def _adding(board: Board, visit: Visit, error: RelayError | None = None) -> Response:
    return signed(
        board,
        visit,
        "backends",
        "backend_add.html",
        status=error.status if error else 200,
        sentence=error.detail if error else "",
        categories=categories(board, visit.who),
        given=defaultdict(str, visit.form),
    )
