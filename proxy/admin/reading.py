"""A request to the API as its models: one clear sentence for what is wrong, and never a value."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from starlette.requests import Request

from proxy.admin import asked
from proxy.admin.answers import read_body
from proxy.errors import NotFound, Unacceptable

PATTERNS: Final[Mapping[str, str]] = {
    "service": asked.NAME_PATTERN,
    "alias": asked.NAME_PATTERN,
    "id": asked.TOKEN_ID_PATTERN,
}
"""What stands between braces in a path."""

_A = TypeVar("_A", bound=asked.Asked)


def read_path(request: Request) -> dict[str, str]:
    """The names in the path; raises NotFound for what can't be one."""
    for name, text in request.path_params.items():
        if not re.fullmatch(PATTERNS[name].strip("^$"), text, re.ASCII):
            raise NotFound(f"There is nothing here: the {name} in the path can't be one.")
    return dict(request.path_params)


def read_query(request: Request, model: type[_A]) -> _A:
    """The parameters; raises Unacceptable."""
    pairs = request.query_params.multi_items()
    if len(pairs) != len(request.query_params):
        raise Unacceptable("Send each parameter once.")
    try:
        return model.model_validate(dict(pairs), strict=False)
    except ValidationError as error:
        raise Unacceptable(_sentence(error, model, "parameters")) from None


async def read_json(request: Request, model: type[_A]) -> _A:
    """The body; raises UnsupportedContent, BodyTooLarge, Unacceptable."""
    body = await read_body(request, "application/json")
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise Unacceptable(_sentence(error, model, "members")) from None


def _sentence(error: ValidationError, model: type[asked.Asked], what: str) -> str:
    """The first mistake, by names of ours only: what a caller made up may be a key."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    known = [field.alias or name for name, field in model.model_fields.items()]
    if first["type"] == "extra_forbidden":
        names = ", ".join(known) or "none"
        return f"There is an unknown one among the {what}; known are: {names}."
    if first["type"] == "json_invalid":
        return "The body is not JSON: send one JSON object in UTF-8."
    place = _place(first["loc"], known)
    said = first["msg"].removeprefix("Value error, ")
    return f"{place}: {said[:1].lower()}{said[1:]}."[:500] if place else _capital(said)


def _place(location: Sequence[Any], known: Collection[str]) -> str:
    return ".".join(str(one) for one in location if isinstance(one, int) or one in known)


def _capital(said: str) -> str:
    return f"{said[:1].upper()}{said[1:].rstrip('.')}."
