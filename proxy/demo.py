"""The example of `serve --demo`: a small backend, its service, a made-up key, a fresh token."""

from __future__ import annotations

import itertools
import secrets
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from proxy.destinations import parse_registration
from vault import Backend, NewKey, NewToken, Secret, Vault

SERVICE = "demo"
TENANT = "default"
TOKEN_NAME = "demo"  # noqa: S105 - a name
POLLS_UNTIL_DONE = 3

DEFINITION: dict[str, object] = {
    "category": "demo",
    "hosts": ["demo.invalid"],  # a name that never resolves (RFC 6761 section 6.4)
    "in": "header",
    "key_name": "Authorization",
    "prefix": "Bearer ",
    "note": "the example backend of `keyrelay serve --demo`",
}


def backend() -> Starlette:
    """An API that wants a key: `/v1/answer` for a question, `/v1/jobs/NAME` for a long job."""
    calls = itertools.count(1)
    jobs: dict[str, int] = {}

    async def answer(request: Request) -> JSONResponse:
        question = (await request.body()).decode("utf-8", "replace")
        return JSONResponse({**_seen(request), "call": next(calls), "question": question})

    async def job(request: Request) -> JSONResponse:
        name = request.path_params["name"]
        polls = jobs[name] = jobs.get(name, 0) + 1
        done = polls >= POLLS_UNTIL_DONE
        state = {"job": name, "status": "done" if done else "running", "poll": polls}
        return JSONResponse({**state, **_seen(request)})

    routes = [
        Route("/v1/answer", answer, methods=["GET", "POST"]),
        Route("/v1/jobs/{name}", job, methods=["GET", "POST"]),
    ]
    return Starlette(routes=routes)


def _seen(request: Request) -> dict[str, str]:
    """What the backend received as its key, masked: an answer must never contain a key."""
    key = request.headers.get("authorization", "")
    return {"key_received": f"{key[:12]}…{key[-4:]}" if len(key) > 20 else "none"}


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demo needs to be pasted."""

    token: str
    backend_url: str


async def prepare(vault: Vault, port: int) -> Demo:
    """Registers the backend at this port, keeps or makes the key, and issues this start's token."""
    url = f"http://127.0.0.1:{port}/v1"
    wanted = Backend(TENANT, SERVICE, parse_registration(url))
    registered = [one for one in await vault.list_backends(TENANT) if one.service == SERVICE]
    for other in registered:
        if other.binding != wanted.binding:
            await vault.remove_backend(other)
    if wanted.binding not in [one.binding for one in registered]:
        await vault.add_backend(wanted)
    if SERVICE not in (await vault.holdings(TENANT)).keys:
        key = Secret(b"demo-key-" + secrets.token_hex(16).encode())
        await vault.put_key(NewKey(TENANT, SERVICE, "default", {"key": key}))
    return Demo(await _fresh_token(vault), url)


async def registered_port(vault: Vault) -> int | None:
    """The port of the last start, so that kept answers stay reachable."""
    for one in await vault.list_backends(TENANT):
        if one.service == SERVICE:
            return one.binding.port
    return None


async def _fresh_token(vault: Vault) -> str:
    for old in await vault.list_tokens(TENANT):
        if old.name == TOKEN_NAME and old.revoked_at is None:
            await vault.revoke_token(TENANT, old.id)
    _, text = await vault.issue_token(NewToken(TENANT, TOKEN_NAME, services=frozenset({SERVICE})))
    return text


def commands(demo: Demo, relay_url: str, now: float) -> str:
    """Three commands to paste: a call, the same call kept, and a poll that renews what is kept."""
    until = int(now) + 3600
    ask = f"{relay_url}/proxy?server={demo.backend_url}/answer&service={SERVICE}&cache={until}"
    poll = f"{relay_url}/proxy?server={demo.backend_url}/jobs/one&service={SERVICE}&cache={until}"
    auth = f"-H 'Authorization: Bearer {demo.token}'"
    first = f"curl -i {auth} '{ask}' -d 'What is a relay?'"
    return "\n".join(
        [
            "1. a first call: the backend gets its key, you get the answer",
            "",
            f"   {first}",
            "",
            "2. the same call again: no call to the backend, `Cache-Status: keyrelay; hit`",
            "",
            f"   {first}",
            "",
            "3. poll a long job: `invalidate` asks the backend again and keeps the newest answer",
            "",
            f"   curl -i {auth} '{poll}&invalidate'",
        ]
    )
