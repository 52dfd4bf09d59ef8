"""Where the admin API is found; what answers there is loaded when somebody asks.

Most servers answer calls only, and the API's models would cost each of them a part of its start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy.admin.answers import answering
from proxy.admin.door import Administration

if TYPE_CHECKING:
    from proxy.admin.places import Holders

ROOT: Final = "/admin/api/v1"


def routes(admin: Administration, holders: Holders) -> Sequence[BaseRoute]:
    """The API, and its description."""

    def load() -> ASGIApp:
        from proxy.admin.places import router  # noqa: PLC0415

        return router(admin, holders)

    return (Mount(ROOT, Later(load)), Route("/openapi.json", answering(_describe)))


class Later:
    """An application that is made with its first request."""

    def __init__(self, load: Callable[[], ASGIApp]) -> None:
        self._load = load
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if self._app is None:
            self._app = self._load()
        await self._app(scope, receive, send)


async def _describe(_: Request) -> Response:
    from proxy.admin.openapi import document  # noqa: PLC0415

    return Response(document(), media_type="application/json")
