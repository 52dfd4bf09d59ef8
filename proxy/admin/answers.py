"""What the admin's routes read and answer: bounded bodies in, errors out as problems."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from proxy.causes import frames, lineage
from proxy.errors import (
    BadRequest,
    BodyTooLarge,
    InternalError,
    RelayError,
    Unavailable,
    UnsupportedContent,
)
from proxy.header import request_id
from proxy.messages import Fields
from proxy.problems import problem

Handler = Callable[[Request], Awaitable[Response]]
Refuse = Callable[[RelayError, str], Response]
"""An error, and the id of the request, as an answer."""

MOST_OCTETS = 64 * 1024
OWN_FIELDS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

_log = logging.getLogger("keyrelay.admin")


def fields_of(request: Request) -> Fields:
    """The header fields, as every other room reads them."""
    return tuple(request.scope["headers"])


def peer_of(request: Request) -> str:
    """The address that a request comes from, or empty."""
    return request.client.host if request.client else ""


def answering(handler: Handler, refuse: Refuse | None = None) -> Handler:
    """The handler with every error as a problem, or as `refuse` has it; the request's id on all."""
    refusing = refuse or refusal

    async def answer(request: Request) -> Response:
        call_id = request_id(fields_of(request))
        try:
            response = await handler(request)
        except RelayError as error:
            if error.status >= 500:
                cause = lineage(error.__cause__)
                _log.warning("%s: %s", error.code, cause, extra={"id": call_id})
            response = refusing(error, call_id)
        except ClientDisconnect:
            response = refusing(BadRequest("Send the whole body."), call_id)
        except asyncio.CancelledError:  # only the end of the server cancels a request
            stopping = Unavailable("keyrelay is stopping; try again.", retry_after=1)
            response = refusing(stopping, call_id)
        except Exception as error:
            more = {"id": call_id, "at": frames(error)}
            _log.error("unexpected %s", lineage(error), extra=more)
            text = f"keyrelay failed; the admin finds the cause under the id {call_id}."
            response = refusing(InternalError(text), call_id)
        response.headers["X-Request-ID"] = call_id
        for name, value in OWN_FIELDS.items():
            response.headers.setdefault(name, value)
        return response

    return answer


def refusal(error: RelayError, call_id: str) -> Response:
    """An error as a problem (RFC 9457)."""
    answer = problem(error, call_id)
    fields = {name.decode(): value.decode() for name, value in answer.fields}
    return Response(answer.body, answer.status, fields)


async def read_body(request: Request, kind: str) -> bytes:
    """A whole body of one media type; raises UnsupportedContent, BodyTooLarge."""
    said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if said != kind:
        raise UnsupportedContent(f"Send the body with Content-Type: {kind}.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_OCTETS:
            raise BodyTooLarge(f"Keep the body below {MOST_OCTETS} octets.")
    return bytes(body)


async def read_form(request: Request) -> dict[str, str]:
    """The members of a form of ours, the last of each name."""
    body = await read_body(request, "application/x-www-form-urlencoded")
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=100))
    except ValueError as error:
        raise BadRequest("Send a form as a browser writes it.") from error
