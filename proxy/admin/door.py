"""Where people sign in and out: POST /admin/login and /admin/logout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from proxy.admin.acts import Acts
from proxy.admin.answers import Handler, answering, fields_of, peer_of, read_form
from proxy.admin.origin import OwnOrigin
from proxy.admin.reports import Reports
from proxy.admin.session import Session, Sessions, check_csrf
from proxy.errors import Unauthorized
from proxy.messages import Field

HOME = "/admin"
SIGNED_OUT = "Nobody is signed in here any more: sign in, then repeat the change."


@dataclass(frozen=True, slots=True)
class Administration:
    """What the API and the page for people work with."""

    acts: Acts
    sessions: Sessions
    origin: OwnOrigin
    reports: Reports

    async def changing(self, request: Request) -> tuple[Session, dict[str, str]]:
        """Who sends a form of our page, and its members; raises Forbidden, Unauthorized.

        The form's member `csrf`, or the field X-CSRF-Token, holds `Session.csrf`.
        """
        fields = fields_of(request)
        self.origin.check_change(fields)
        session = await self.sessions.find(fields)
        if session is None:
            raise Unauthorized(SIGNED_OUT)
        form = await read_form(request)
        check_csrf(session, form.pop("csrf", "") or request.headers.get("x-csrf-token", ""))
        return session, form


def routes(
    admin: Administration, wrap: Callable[[Handler], Handler] = answering
) -> Sequence[BaseRoute]:
    """The two doors, and whoever only looks at one; `wrap` says how errors are answered."""

    async def login(request: Request) -> Response:
        admin.origin.check_change(fields_of(request))
        form = await read_form(request)
        cookie = await admin.sessions.sign_in(
            form.get("token", "").strip().encode(), peer_of(request)
        )
        admin.sessions.sign_out(fields_of(request))  # of the session before nothing is left over
        return _to(f"{HOME}?begun=1", cookie)

    async def logout(request: Request) -> Response:
        await admin.changing(request)
        return _to(HOME, admin.sessions.sign_out(fields_of(request)))

    async def lead_in(_: Request) -> Response:
        return Response(status_code=303, headers={"Location": HOME})

    return (
        *(Route(HOME + path, wrap(lead_in)) for path in ("/", "/login", "/logout")),
        Route(f"{HOME}/login", wrap(login), methods=["POST"]),
        Route(f"{HOME}/logout", wrap(logout), methods=["POST"]),
    )


def _to(place: str, cookie: Field) -> Response:
    name, line = cookie
    return Response(status_code=303, headers={"Location": place, name.decode(): line.decode()})
