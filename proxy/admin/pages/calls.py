"""Calls as they end: the newest on the page, and those that come as server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from proxy.admin.answers import answering, fields_of
from proxy.admin.door import SIGNED_OUT
from proxy.admin.live import Line, LiveCalls, Wish
from proxy.admin.pages.board import Board, Visit, example, signed
from proxy.admin.pages.formats import clock, octets, seconds
from proxy.errors import Unauthorized, Unavailable
from proxy.messages import Fields

PATIENCE: Final = 15.0
"""Seconds without a call after which a sign of life is sent."""

STATUSES: Final = (
    ("", "all"),
    ("2", "2xx"),
    ("3", "3xx"),
    ("4", "4xx"),
    ("5", "5xx"),
    ("error", "every error"),
)
_STREAM: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


async def calls(board: Board, visit: Visit) -> Response:
    """The newest calls, newest first."""
    wish = _wish(visit.request)
    lines = list(board.live.newest(visit.who.tenant, wish))
    every = board.live.newest(visit.who.tenant, Wish())
    keys = await board.admin.acts.keys(visit.who)
    held = {key.ref.service for key in keys}
    return signed(
        board,
        visit,
        "calls",
        "calls.html",
        lines=lines[::-1],
        after=str(lines[-1].number if lines else 0),
        names=sorted(held | {one.service for one in every if one.service} | {wish.service} - {""}),
        statuses=STATUSES,
        wish=wish,
        example=example(visit, keys),
    )


def stream(board: Board) -> Route:
    """Calls as they end, for a page that is open."""

    async def give(request: Request) -> Response:
        fields = fields_of(request)
        board.admin.origin.check(fields)
        session = await board.admin.sessions.find(fields, used=False)
        if session is None:
            raise Unauthorized(SIGNED_OUT)
        return _Stream(_Tail(board, fields, session.who.tenant, _wish(request)), _after(request))

    return Route("/admin/calls/stream", answering(give), methods=["GET"])


class _Tail:
    """One page that watches, until `leave`; raises Overloaded where too many do."""

    def __init__(self, board: Board, fields: Fields, tenant: str, wish: Wish) -> None:
        self._live: LiveCalls = board.live
        self._sessions = board.admin.sessions
        self._fields = fields
        self._tenant = tenant
        self._wish = wish
        self._watcher = self._live.watch(tenant, wish)

    def leave(self) -> None:
        """Nobody reads it any more."""
        self._live.leave(self._tenant, self._watcher)

    async def events(self, after: int) -> AsyncIterator[str]:
        """Server-sent events, as long as somebody is signed in, keeps up and stays."""
        missed = list(self._live.newest(self._tenant, self._wish, after))
        yield "retry: 3000\n\n"
        if missed:
            yield _event(missed)
        async for lines in self._watcher.lines(PATIENCE):
            try:
                session = await self._sessions.find(self._fields, used=False)
            except Unavailable:  # the page comes again by itself
                return
            if session is None:
                yield "event: over\ndata:\n\n"
                return
            yield _event(lines) if lines else ": still here\n\n"


class _Stream(StreamingResponse):
    """A tail as an answer; however that ends, nobody watches for it any more."""

    def __init__(self, tail: _Tail, after: int) -> None:
        super().__init__(tail.events(after), headers=_STREAM, media_type="text/event-stream")
        self._tail = tail

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The answer."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._tail.leave()


def _event(lines: Sequence[Line]) -> str:
    told = json.dumps([_told(line) for line in lines])
    return f"id: {lines[-1].number}\nevent: calls\ndata: {told}\n\n"


def _told(line: Line) -> dict[str, Any]:
    return {
        "ended": clock(line.began + line.seconds),
        "status": line.status,
        "cut": line.cut,
        "code": line.code,
        "service": line.service,
        "token": line.token,
        "method": line.method,
        "host": line.host,
        "verdict": line.verdict,
        "time": seconds(line.seconds),
        "sent": octets(line.sent),
    }


def _wish(request: Request) -> Wish:
    status = request.query_params.get("status", "")
    known = {value for value, _ in STATUSES}
    return Wish(request.query_params.get("service", "")[:64], status if status in known else "")


def _after(request: Request) -> int:
    """The number of the last call that the page has: it says so when it comes again."""
    said = request.headers.get("last-event-id") or request.query_params.get("after", "")
    return int(said) if said.isascii() and said.isdigit() and len(said) < 16 else 0
