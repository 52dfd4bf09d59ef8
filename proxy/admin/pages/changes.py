"""The audit log: who did what, newest first."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from proxy.admin.pages.board import Board, Visit, signed

AT_ONCE: Final = 100


async def changes(board: Board, visit: Visit) -> Response:
    """A hundred changes, and the way to those before."""
    asked = visit.asked("before")
    before = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 16 else None
    found = await board.admin.acts.audit(visit.who, AT_ONCE + 1, before=before)
    entries = found[:AT_ONCE]
    older = str(entries[-1].number) if len(found) > AT_ONCE else ""
    return signed(board, visit, "changes", "changes.html", entries=entries, older=older)
