"""Every path of the page, and which view it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.routing import BaseRoute

from proxy.admin import door
from proxy.admin.pages import assets, backends, calls, changes, keys, tokens
from proxy.admin.pages.board import Board, View, changed, plainly, shown
from proxy.admin.pages.overview import overview

_PAGES: Final[Sequence[tuple[str, str, View]]] = (
    ("overview", "/admin", overview),
    ("calls", "/admin/calls", calls.calls),
    ("keys", "/admin/keys", keys.keys),
    ("keys", "/admin/keys/add", keys.add_form),
    ("keys", "/admin/keys/rotate", keys.rotate_form),
    ("keys", "/admin/keys/remove", keys.remove_form),
    ("tokens", "/admin/tokens", tokens.tokens),
    ("tokens", "/admin/tokens/issue", tokens.issue_form),
    ("tokens", "/admin/tokens/limits", tokens.limits_form),
    ("tokens", "/admin/tokens/revoke", tokens.revoke_form),
    ("backends", "/admin/backends", backends.backends),
    ("backends", "/admin/backends/add", backends.add_form),
    ("backends", "/admin/backends/remove", backends.remove_form),
    ("changes", "/admin/changes", changes.changes),
)
_FORMS: Final[Sequence[tuple[str, View]]] = (
    ("/admin/keys/add", keys.add),
    ("/admin/keys/rotate", keys.rotate),
    ("/admin/keys/default", keys.make_default),
    ("/admin/keys/remove", keys.remove),
    ("/admin/tokens/issue", tokens.issue),
    ("/admin/tokens/limits", tokens.limit),
    ("/admin/tokens/revoke", tokens.revoke),
    ("/admin/backends/add", backends.add),
    ("/admin/backends/remove", backends.remove),
)


def routes(board: Board) -> Sequence[BaseRoute]:
    """The pages, their forms, what they are drawn with, and the doors."""
    return (
        *(shown(board, section, path, view) for section, path, view in _PAGES),
        *(changed(board, path, view) for path, view in _FORMS),
        calls.stream(board),
        assets.route(),
        *door.routes(board.admin, plainly),
    )
