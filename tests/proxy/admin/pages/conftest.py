"""The page in a real Chromium: a running server, an admin, and a browser that reports mistakes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, ConsoleMessage, Page

from tests.support.caller import Answered, call
from tests.support.origin import Origin, json_reply
from tests.support.relay import Running, running_relay

KEYS = {"openai": "sk-proj-" + "a1B2" * 10, "anthropic": "sk-ant-api03-" + "c3D4" * 10}
MODELS = json_reply({"object": "list", "data": []})


@dataclass
class Visit:
    """A browser's window before the page. `mistakes`: whatever its console complains of."""

    page: Page
    up: Running
    origin: Origin
    admin: str
    mistakes: list[str] = field(default_factory=list)

    async def open(self, path: str = "") -> None:
        """A page of the admin's."""
        await self.page.goto(f"{self.up.url}/admin{path}")

    async def sign_in(self) -> None:
        """By the form."""
        await self.open()
        await self.page.get_by_label("Admin token").fill(self.admin)
        await self.page.get_by_role("button", name="Sign in").click()
        await self.page.wait_for_selector("h1:has-text('Overview')")

    async def go_to(self, section: str) -> None:
        """By the navigation."""
        sections = self.page.get_by_role("navigation", name="Sections")
        await sections.get_by_role("link", name=section).click()

    async def call(self, service: str = "openai", *, token: str = "", query: str = "") -> Answered:
        """One call through the server."""
        bearer = ("Authorization", f"Bearer {token or self.up.token}")
        return await call(self.up.url, "GET", f"/proxy/{service}/v1/models{query}", bearer)

    async def wide(self) -> int:
        """How many pixels the page is wider than the window."""
        measure = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        found: int = await self.page.evaluate(measure)
        return found


@contextlib.asynccontextmanager
async def visit(
    browser: Browser, data: Path, settings: str | None = None, **context: Any
) -> AsyncIterator[Visit]:
    """A server whose services all live at one origin, and a window that nobody has signed in."""
    async with (
        Origin(MODELS) as origin,
        running_relay(
            data,
            {name: {"origin": origin.url} for name in ("openai", "anthropic", "tavily")},
            settings,
        ) as up,
    ):
        admin = await up.issue("ada", role="admin")
        opened = Visit(await window(browser, **context), up, origin, admin)
        _listen(opened)
        yield opened
        await opened.page.context.close()
    assert opened.mistakes == []


async def window(browser: Browser, **context: Any) -> Page:
    """A window of its own profile."""
    given = {"viewport": {"width": 1280, "height": 900}, "locale": "en-GB", **context}
    return await (await browser.new_context(**given)).new_page()


def _listen(opened: Visit) -> None:
    """A broken policy, a script that fails, a file that is not there: each is a mistake."""

    def heard(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            opened.mistakes.append(message.text)

    opened.page.on("console", heard)
    opened.page.on("pageerror", lambda error: opened.mistakes.append(str(error)))
