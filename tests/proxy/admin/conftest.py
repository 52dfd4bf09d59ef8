"""A running server and an admin who asks its API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support.caller import Answered, call
from tests.support.relay import Running, running_relay

OWN = ("Origin", "http://relay.test")
FORM = ("Content-Type", "application/x-www-form-urlencoded")
JSON = ("Content-Type", "application/json")


def bearer(token: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {token}")


@dataclass
class Office:
    """The server, with an admin's token for the API and the door."""

    up: Running
    admin: str

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *headers: tuple[str, str],
        token: str | None = None,
    ) -> Answered:
        """One request to the API; `body` as JSON, octets as they are."""
        said = [bearer(self.admin if token is None else token), *headers]
        octets = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        if octets is not None and not any(name == "Content-Type" for name, _ in headers):
            said.append(JSON)
        return await call(self.up.url, method, f"/admin/api/v1{path}", *said, body=octets)

    async def submit(self, path: str, *headers: tuple[str, str], **members: str) -> Answered:
        """One form of a page of ours."""
        body = urlencode(members).encode()
        return await call(self.up.url, "POST", path, FORM, *(headers or (OWN,)), body=body)

    async def signed_in(self) -> tuple[str, str]:
        """The Cookie field of a new session."""
        answer = await self.submit("/admin/login", token=self.admin)
        assert answer.status == 303, answer.body
        return ("Cookie", (answer.header("set-cookie") or "").partition(";")[0])


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with running_relay(tmp_path / "data") as up:
        yield Office(up, await up.issue("ada", role="admin"))
