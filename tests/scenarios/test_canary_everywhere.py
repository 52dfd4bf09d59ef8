"""Keys and tokens in every place of every route, right and wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from starlette.routing import Mount, Route

from proxy.admin.operations import OPERATIONS, Operation
from tests.proxy.admin.conftest import FORM, JSON, OWN, bearer
from tests.support.caller import Answered, call
from tests.support.canaries import files, holds
from tests.support.origin import Origin, reply
from tests.support.relay import Running, running_relay

KEY = "sk-CANARY/0123456789+abcdefghijklmnop-0123456789"
STREAM = "/admin/calls/stream"  # ends with its reader only


def paths(routes: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of everything that is served beside calls."""
    for route in routes:
        if isinstance(route, Mount):
            yield from paths(route.routes or (), before + route.path)
        elif isinstance(route, Route):
            yield from ((method, before + route.path) for method in route.methods or ())


def filled(path: str, text: str) -> str:
    return re.sub(r"{[^}]*}", quote(text, safe=""), path)


SECRET = "key value username password secret token csrf unknown"
PLAIN = "service alias name id url hosts role days budget limits upstream_limits tenant status"
MORE = "calls after from to expires window by action"


def members(text: str, names: str = f"{SECRET} {PLAIN} {MORE}") -> dict[str, str]:
    """One and the same text in every field that any form or query has."""
    return dict.fromkeys(names.split(), text)


class Visitor:
    """Asks everything, and keeps what it was told."""

    def __init__(self, up: Running, admin: str) -> None:
        self.up = up
        self.admin = admin
        self.answers: list[tuple[str, Answered]] = []
        self.cookie = ("Cookie", "")
        self.csrf = ""

    async def ask(
        self, method: str, target: str, *fields: tuple[str, str], body: Any = None
    ) -> Any:
        answer = await call(self.up.url, method, target, *fields, body=body)
        self.answers.append((f"{method} {target.partition('?')[0][:60]}", answer))
        return answer

    async def sign_in(self) -> None:
        body = urlencode({"token": self.admin}).encode()
        answer = await self.ask("POST", "/admin/login", FORM, OWN, body=body)
        assert answer.status == 303
        self.cookie = ("Cookie", (answer.header("set-cookie") or "").partition(";")[0])
        page = await self.ask("GET", "/admin/tokens", self.cookie)
        self.csrf = re.findall(r'name="csrf" value="([^"]+)"', page.body.decode())[0]

    async def everywhere(self, method: str, path: str, text: str) -> None:
        """As a stranger, by token and by session; in the path, the query, fields and the body."""
        target = filled(path, text)
        for who in ((), (bearer(self.admin),), (self.cookie, OWN)):
            # A form shows what was typed into a plain field once more, to whoever typed it.
            given = members(text, SECRET) if self.cookie in who else members(text)
            fields = (*who, ("X-Request-ID", text))
            await self.ask(method, f"{target}?{urlencode(given)}", *fields)
            if method != "GET":
                form = urlencode({**given, "csrf": self.csrf}).encode()
                octets = json.dumps(given).encode()
                await self.ask(method, target, *fields, FORM, body=form)
                await self.ask(method, target, *fields, JSON, body=octets)
                await self.ask(method, target, *fields, JSON, body=octets[:-1])


async def operate(visitor: Visitor, operation: Operation, text: str) -> None:
    """One operation of the API with each of its members wrong in turn."""
    target = "/admin/api/v1" + filled(operation.path, text)
    names = [field.alias or name for name, field in operation.query.model_fields.items()]
    for name in names:
        query = urlencode({name: text})
        await visitor.ask(operation.method, f"{target}?{query}", bearer(visitor.admin))
    for name in operation.body.model_fields if operation.body else ():
        for wrong in (text, [text], {text: text}, {"key": text, "x": [text]}):
            body = json.dumps({name: wrong}).encode()
            await visitor.ask(operation.method, target, bearer(visitor.admin), JSON, body=body)


async def test_no_route_repeats_a_key_or_a_token(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is asked, wherever the secret stands in it, and whoever asks."""
    data = tmp_path / "data"
    async with Origin(reply(200, [], b"fine")) as origin:
        async with running_relay(data, {"openai": {"origin": origin.url}}) as up:
            await up.add_key("openai", key=KEY)
            token, admin = up.token, await up.issue("ada", role="admin")
            visitor = Visitor(up, admin)
            await visitor.sign_in()
            found = set(paths(up.relay._pages.routes))
            assert len(found) > 40
            for text in (KEY, token):
                for operation in OPERATIONS:
                    await operate(visitor, operation, text)
                for method, path in sorted(found - {("GET", STREAM), ("HEAD", STREAM)}):
                    if method != "HEAD" and path not in ("/admin/logout",):
                        await visitor.everywhere(method, path, text)
            leaks = [
                where
                for where, answer in visitor.answers
                if holds(repr((answer.headers, answer.body)).encode(), KEY, token, admin)
            ]
            assert sorted(set(leaks)) == []
            statuses = {answer.status for _, answer in visitor.answers}
            assert {200, 400, 401, 403, 404} <= statuses
            assert max(statuses) < 500
        for path, octets in files(data):
            assert (path.name, holds(octets, KEY, token, admin)) == (path.name, [])
    assert holds(caplog.text.encode(), KEY, token, admin) == []
