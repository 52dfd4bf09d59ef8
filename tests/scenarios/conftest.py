"""A running keyrelay with OpenAI's place taken by a recording origin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.caller import Answered, call
from tests.support.origin import Origin
from tests.support.relay import Running, running_relay

KEY = "sk-canary-0123456789abcdefghij"


@dataclass
class Scene:
    """The server, the provider's double, and a caller with a token."""

    up: Running
    origin: Origin

    @property
    def token(self) -> tuple[str, str]:
        return ("Authorization", f"Bearer {self.up.token}")

    def target(self, path: str = "/v1/x", options: str = "") -> str:
        return f"/proxy?server={self.origin.url}{path}&service=openai{options}"

    async def call(
        self,
        path: str = "/v1/x",
        *headers: tuple[str, str],
        method: str = "GET",
        options: str = "",
        body: bytes | None = None,
    ) -> Answered:
        target = self.target(path, options)
        return await call(self.up.url, method, target, self.token, *headers, body=body)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with Origin() as origin:
        services = {"openai": {"origin": origin.url}}
        settings = "server: {cors_origins: ['https://app.example']}\n"
        async with running_relay(tmp_path / "data", services, settings) as up:
            await up.add_key("openai", key=KEY)
            yield Scene(up, origin)
