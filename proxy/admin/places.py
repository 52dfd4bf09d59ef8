"""The paths of the admin API: each answers by the table of operations, for tokens that may."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from proxy.admin.acts import check_role
from proxy.admin.answers import answering, fields_of, peer_of
from proxy.admin.door import Administration
from proxy.admin.operations import OPERATIONS, Asking, Operation
from proxy.admin.reading import read_json, read_path, read_query
from proxy.errors import BadRequest, MethodNotAllowed
from proxy.messages import Fields, values
from vault import Token


class Holders(Protocol):
    """What is asked of the authentication."""

    async def holder(self, fields: Fields, peer: str) -> Token:
        """Whose token a request brings; raises Unauthorized, Unavailable."""
        ...


def router(admin: Administration, holders: Holders) -> Router:
    """All of them, below wherever it is mounted."""
    rows = sorted(OPERATIONS, key=lambda one: one.path)
    places = [
        Route(path, Place(admin, holders, {one.method: one for one in group}))
        for path, group in groupby(rows, lambda one: one.path)
    ]
    return Router(places, redirect_slashes=False)


class Place:
    """One path of the API, for every method."""

    def __init__(
        self, admin: Administration, holders: Holders, operations: Mapping[str, Operation]
    ) -> None:
        self._admin = admin
        self._holders = holders
        self._operations = operations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        request = Request(scope, receive)
        response = await answering(self._answer)(request)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        fields = fields_of(request)
        self._admin.origin.check(fields)
        if len(values(fields, b"authorization")) > 1:
            raise BadRequest("Send one Authorization field, not several.")
        who = await self._holders.holder(fields, peer_of(request))
        operation = self._operation(request.method)
        check_role(who, operation.roles)
        found = await operation.act(await self._asking(request, who, operation))
        if found is None:
            return Response(status_code=operation.status)
        body = found.model_dump_json(by_alias=True)
        return Response(body, operation.status, media_type="application/json")

    def _operation(self, method: str) -> Operation:
        found = self._operations.get("GET" if method == "HEAD" else method)
        if found is None:
            allowed = ", ".join(sorted(self._operations))
            allow = ((b"allow", allowed.encode()),)
            raise MethodNotAllowed(f"Use {allowed} here.", fields=allow)
        return found

    async def _asking(self, request: Request, who: Token, operation: Operation) -> Asking:
        query, body = operation.query, operation.body
        return Asking(
            self._admin.acts,
            self._admin.reports,
            who,
            read_path(request),
            read_query(request, query),
            await read_json(request, body) if body else None,
        )
