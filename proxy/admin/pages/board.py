"""What the pages are made of: the acts, and what is counted, watched and known of health."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from proxy.admin.answers import Handler, answering, fields_of
from proxy.admin.door import Administration
from proxy.admin.lastuse import LastUse
from proxy.admin.live import LiveCalls
from proxy.admin.pages.rendering import page, refusal_page, sign_in_page
from proxy.admin.session import Session, has_cookie
from proxy.health.watch import Standing
from proxy.usage.store import CallRow, Order, Part, Trouble, Which
from proxy.usage.sums import Sums
from vault import KeyRecord, Token

NO_COOKIE = (
    "Your browser did not keep the cookie that stands for the token: it does so over https, "
    "and over http on 127.0.0.1 or localhost only."
)


class Figures(Protocol):
    """What is asked of usage; all raise UsageError."""

    async def sums(self, which: Which, *groupings: Sequence[Part]) -> list[list[Sums]]:
        """What calls come to, for each grouping, by hours and days."""
        ...

    async def minutes(self, which: Which, *groupings: Sequence[Part]) -> list[list[Sums]]:
        """The same of single calls, to the second."""
        ...

    async def calls(self, which: Which, order: Order, limit: int) -> list[CallRow]:
        """Some of the single calls."""
        ...

    async def troubles(self, which: Which, limit: int) -> list[Trouble]:
        """What went wrong, the most frequent first."""
        ...


@dataclass(frozen=True, slots=True)
class Board:
    """`figures` None: usage is switched off. `standings`: how the services of a tenant fare."""

    admin: Administration
    live: LiveCalls
    last_use: LastUse
    figures: Figures | None
    standings: Callable[[Token], Awaitable[Sequence[Standing]]]

    @property
    def now(self) -> float:
        """Unix seconds."""
        return self.admin.acts.now


@dataclass(frozen=True, slots=True)
class Visit:
    """One request by somebody who is signed in. `form`: what a change brings; `public_url`: where
    callers reach this server, if that is known."""

    request: Request
    session: Session
    form: dict[str, str]
    public_url: str | None

    @property
    def who(self) -> Token:
        """In whose name."""
        return self.session.who

    def asked(self, name: str) -> str:
        """A parameter of the query; empty where there is none."""
        return self.request.query_params.get(name, "")

    @property
    def base(self) -> str:
        """The same, or as the browser says it: that knows neither of a TLS server before us nor of
        the other listener."""
        return self.public_url or f"{self.request.url.scheme}://{self.request.url.netloc}"


OVER = "Your session is over: sign in again."

View = Callable[[Board, Visit], Awaitable[Response]]


def shown(board: Board, section: str, path: str, view: View) -> Route:
    """A page that is only looked at; whoever is not signed in is asked for a token.

    What renews itself (`poll`) is no use of the session: it would never end.
    """

    async def show(request: Request) -> Response:
        polled = bool(request.query_params.get("poll"))
        session = await board.admin.sessions.find(fields_of(request), used=not polled)
        if session is None:
            return _signed_out(request)
        return await view(board, Visit(request, session, {}, board.admin.origin.public_url))

    return Route(path, plainly(show), methods=["GET"], name=section)


def changed(board: Board, path: str, view: View) -> Route:
    """A form that changes something."""

    async def change(request: Request) -> Response:
        session, form = await board.admin.changing(request)
        return await view(board, Visit(request, session, form, board.admin.origin.public_url))

    return Route(path, plainly(change), methods=["POST"])


def _signed_out(request: Request) -> Response:
    """The sign-in, and why; a part of a page (htmx) is told to become the whole of it."""
    begun = "begun" in request.query_params
    sentence = NO_COOKIE if begun else ""
    if has_cookie(fields_of(request)):
        sentence = OVER
    part = "hx-request" in request.headers
    answer = sign_in_page(sentence, 401 if part or begun else 200)
    if part:
        answer.headers["HX-Redirect"] = "/admin"
    return answer


def plainly(handler: Handler) -> Handler:
    """Errors as pages."""
    return answering(handler, refusal_page)


def example(visit: Visit, keys: Sequence[KeyRecord]) -> str:
    """A first call, to be pasted into a shell."""
    service = keys[0].ref.service if keys else "openai"
    url = f"{visit.base}/proxy/{service}/v1/models"
    return f"curl '{url}' -H 'Authorization: Bearer kr_…'"


def signed(board: Board, visit: Visit, section: str, template: str, **values: Any) -> Response:
    """A page with the frame of somebody who is signed in."""
    status = values.pop("status", 200)
    frame = {"session": visit.session, "section": section, "now": board.now}
    return page(template, {**frame, **values}, status)
