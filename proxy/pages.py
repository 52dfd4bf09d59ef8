"""The few routes beside `/proxy`: what this is, whether it lives, and the catalogue of errors."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Match, Route

from proxy import __version__
from proxy.catalogue import entry, given
from proxy.errors import MethodNotAllowed, NotFound, RelayError
from proxy.header import request_id
from proxy.problems import problem

INDEX = f"""keyrelay {__version__}: any API with one platform token; the provider's keys stay here.

    curl '/proxy?server=<URL>&service=<name>&cache=<unix seconds>&invalidate' \\
      -H 'Authorization: Bearer <platform token>'

or, as the base URL of an SDK:  /proxy/<service>/<path>

/health/live   whether this process answers
/health/ready  whether it can do its work
/health        how the services fare (with a token)
/tokens        for a token a narrower one of minutes, to be given to a page (POST)
/usage         what a token has used (with that token)
/metrics       for Prometheus (with a token that may read)
/admin         for people: calls, keys, tokens, backends (with an admin's token)
/errors        every error that it can give, and what to do
"""


async def index(_: Request) -> Response:
    """What this is, in one page of text."""
    return PlainTextResponse(INDEX)


async def live(_: Request) -> Response:
    """Alive, asking nobody else."""
    return JSONResponse({"status": "live"})


async def errors(_: Request) -> Response:
    """The whole catalogue."""
    return JSONResponse({"errors": [entry(kind) for kind in given()]})


async def error(request: Request) -> Response:
    """One entry: where the `type` of a problem leads."""
    code = request.path_params["code"]
    found = next((kind for kind in given() if kind.code == code), None)
    return JSONResponse(entry(found)) if found else await not_found(request, None)


async def not_found(request: Request, _: Exception | None) -> Response:
    """Everything else."""
    error = NotFound(
        "Calls go to /proxy, see / for how; an SDK that sent this dropped the path of its base_url."
    )
    return _refused(request, error)


async def not_allowed(request: Request, _: Exception | None) -> Response:
    """Another method than what is served on this path takes."""
    found = (route for route in request.app.routes if isinstance(route, Route))
    here = [route for route in found if route.matches(request.scope)[0] is not Match.NONE]
    allowed = ", ".join(sorted({method for route in here for method in route.methods or ()}))
    allow = ((b"allow", allowed.encode()),)
    return _refused(request, MethodNotAllowed(f"Use {allowed} here.", fields=allow))


def _refused(request: Request, error: RelayError) -> Response:
    name = request_id(tuple(request.scope["headers"]))
    answer = problem(error, name, None)
    fields = {field.decode(): value.decode() for field, value in answer.fields}
    return Response(answer.body, answer.status, {**fields, "X-Request-ID": name})


REFUSALS = {404: not_found, 405: not_allowed}

ROUTES = (
    Route("/", index),
    Route("/health/live", live),
    Route("/errors", errors),
    Route("/errors/{code}", error),
)
