"""The description of the admin API and of POST /tokens (OpenAPI 3.1), made from their models."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Final, NamedTuple

import orjson
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from proxy import __version__
from proxy.admin import exchange
from proxy.admin.api import ROOT
from proxy.admin.asked import Asked, ShortLivedAsked
from proxy.admin.given import Problem, ShortLivedGiven
from proxy.admin.operations import OPERATIONS
from proxy.admin.reading import PATTERNS

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"

REFUSALS: Final = {
    400: "The request is malformed.",
    401: "There is no good token.",
    403: "This token may not do this, or a page of another origin asks.",
    404: "What the path or the body names is not there.",
    408: "The body did not come in time.",
    409: "What is there already, or is declared in the configuration file, stands in the way.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "A value is not what is expected.",
    429: "Too many wrong tokens came from this address.",
    431: "The URL or the header is too large.",
    500: "keyrelay failed; its log has the cause under the request's id.",
    503: "A store does not answer now.",
}


class Described(NamedTuple):
    """One operation, as far as callers see it."""

    method: str
    path: str
    name: str
    does: str
    gives: type[BaseModel] | None
    query: type[Asked]
    body: type[Asked] | None
    status: int


ALL: Final = (
    *(
        Described(
            one.method,
            ROOT + one.path,
            one.name,
            one.does,
            one.gives,
            one.query,
            one.body,
            one.status,
        )
        for one in OPERATIONS
    ),
    Described(
        method="POST",
        path=exchange.PATH,
        name="makeShortLivedToken",
        does="a narrower token for a page, good for minutes; with the role call or admin",
        gives=ShortLivedGiven,
        query=Asked,
        body=ShortLivedAsked,
        status=201,
    ),
)


@cache
def document() -> bytes:
    """The whole description, as JSON."""
    return orjson.dumps(_description())


def _description() -> dict[str, Any]:
    _, found = models_json_schema(list(_models()), ref_template="#/components/schemas/{model}")
    schemas = found["$defs"]
    paths: dict[str, dict[str, Any]] = {}
    for one in ALL:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, schemas)
    asked = {one.query.__name__ for one in ALL}
    said = {one.body.__name__ for one in ALL if one.body}
    for name in asked - said:  # its members stand among the parameters
        del schemas[name]
    token = {"type": "http", "scheme": "bearer", "description": "a platform token"}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "keyrelay admin API",
            "version": __version__,
            "description": "Tokens with the role admin; read may GET. In the token's tenant only. "
            "POST /tokens is where calls are answered.",
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {str(status): _refusal(text) for status, text in REFUSALS.items()},
            "securitySchemes": {"token": token},
        },
    }


def _models() -> Iterator[tuple[type[BaseModel], JsonSchemaMode]]:
    for one in ALL:
        for asked in (one.query, one.body):
            if asked is not None:
                yield asked, "validation"
        if one.gives is not None:
            yield one.gives, "serialization"
    yield Problem, "serialization"


def _operation(one: Described, schemas: dict[str, Any]) -> dict[str, Any]:
    names = re.findall(r"\{(\w+)\}", one.path)
    parameters = [_parameter("path", name, _text(name), True) for name in names]
    schema = schemas[one.query.__name__]
    for name, member in schema["properties"].items():
        needed = name in schema.get("required", ())
        parameters.append(_parameter("query", name, member, needed))
    said: dict[str, Any] = {"operationId": one.name, "summary": one.does}
    if parameters:
        said["parameters"] = parameters
    if one.body is not None:
        said["requestBody"] = {"required": True, "content": {JSON: _ref(one.body)}}
    return {**said, "responses": _responses(one)}


def _responses(one: Described) -> dict[str, Any]:
    good: dict[str, Any] = {"description": one.does}
    if one.gives is not None:
        good["content"] = {JSON: _ref(one.gives)}
    refused = {400, 401, 403, 404, 422, 429, 431, 500, 503}
    if one.method != "GET":
        refused |= {409}
    if one.body is not None:
        refused |= {408, 413, 415}
    refs = {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(refused)}
    return {str(one.status): good} | refs


def _refusal(text: str) -> dict[str, Any]:
    return {"description": text, "content": {PROBLEM: _ref(Problem)}}


def _parameter(place: str, name: str, schema: dict[str, Any], needed: bool) -> dict[str, Any]:
    if any(one.get("type") == "null" for one in schema.get("anyOf", ())):  # absent, never null
        [schema] = [one for one in schema["anyOf"] if one["type"] != "null"]
    return {"name": name, "in": place, "required": needed, "schema": schema}


def _text(name: str) -> dict[str, Any]:
    return {"type": "string", "pattern": PATTERNS[name]}


def _ref(model: type[BaseModel]) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}
