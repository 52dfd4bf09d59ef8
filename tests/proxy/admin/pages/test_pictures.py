"""The pictures of docs/admin-page.md: made where somebody asks for them (`make screenshots`)."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from proxy.clock import SystemClock
from proxy.destinations import parse_registration
from proxy.usage import CallRow, SqliteUsage
from proxy.usage.store import DAY
from tests.proxy.admin.pages.conftest import KEYS, Visit, visit
from tests.proxy.admin.pages.history import history
from tests.support.clock import FakeClock
from tests.support.origin import json_reply, reply
from vault import Backend, NewKey, NewToken, Secret, open_vault

HOME = Path(__file__).parents[4] / "docs" / "admin"
PRICES = "prices: {gpt-5-mini: {input: 0.25, output: 2}, claude: {input: 3, output: 15}}\n"
KEPT = {
    ("anthropic", "default", KEYS["anthropic"]): 211,
    ("openai", "default", KEYS["openai"]): 97,
    ("tavily", "default", "tvly-" + "e5F6" * 8): 41,
    ("deepl", "default", "0123abcd-" + "9" * 27 + ":fx"): 30,
    ("openai", "evaluation", "sk-proj-" + "b7Q9" * 10): 12,
}
"""Keys, and their age in days, the oldest first."""

HELD: Sequence[tuple[str, dict[str, Any]]] = (
    ("web-frontend", {"limits": ("600/minute",)}),
    ("support-bot", {"services": frozenset({"anthropic", "deepl"})}),
    ("nightly-report", {"services": frozenset({"openai"}), "budget": 20_000}),
    ("research", {"expires_at": 1_990_000_000.0}),
    ("auditor", {"role": "read"}),
)
COMPLETION = {"model": "gpt-5-mini", "usage": {"prompt_tokens": 900, "completion_tokens": 300}}


async def settle(data: Path) -> dict[str, str]:
    """A team's keys and tokens, some of them old, and a month of its calls; its tokens' texts."""
    data.mkdir(mode=0o700)
    now = SystemClock().now()
    past = FakeClock(now - 212 * DAY)
    async with contextlib.AsyncExitStack() as stack:
        vault = await open_vault(data, {}, past, create=True, actor="ada")
        stack.push_async_callback(vault.close)
        for (service, alias, key), days in KEPT.items():
            past.advance(now - days * DAY - past.now())
            await vault.put_key(NewKey("default", service, alias, {"key": Secret(key.encode())}))
        await vault.add_backend(
            Backend("default", "openai", parse_registration("https://api.example.com/v1"))
        )
        issued = []
        for name, more in HELD:
            past.advance(DAY)
            issued.append(await vault.issue_token(NewToken("default", name, **more)))
    ids = {token.name: token.id for token, _ in issued}
    await asyncio.to_thread(_write, data, history(now, ids))
    return {token.name: text for token, text in issued}


def _write(data: Path, rows: Iterable[CallRow]) -> None:
    store = SqliteUsage(data / "usage.db")
    try:
        store.write(list(rows))
    finally:
        store.close()


async def _call(opened: Visit, texts: Mapping[str, str]) -> None:
    """Real calls: new answers, kept ones, an error of the upstream's, one of ours."""
    opened.origin.answer_with(json_reply(COMPLETION))
    for query in ("?cache=4102444800", "?cache=4102444800", "?limit=20", "?cache=4102444800&a=1"):
        await opened.call(token=texts["web-frontend"], query=query)
        await opened.call("anthropic", token=texts["research"], query=query)
    await opened.call("elevenlabs", token=texts["web-frontend"])
    opened.origin.answer_with(reply(503, (), "overloaded"))
    for _ in range(3):
        await opened.call("tavily", token=texts["research"])
    opened.origin.answer_with(json_reply(COMPLETION))
    for name in ("support-bot", "web-frontend", "research"):
        await opened.call("anthropic", token=texts[name], query="?cache=4102444800&b=2")


@pytest.mark.asyncio(loop_scope="session")  # the browser's
async def test_a_lived_in_page_is_shown_in_light_and_dark_and_on_a_phone(
    browser: Browser, tmp_path: Path
) -> None:
    """Every section with a month of calls behind it, and no complaint of the browser's."""
    texts = await settle(tmp_path / "data")
    async with visit(browser, tmp_path / "data", PRICES) as opened:
        await _call(opened, texts)
        await opened.up.vault.revoke_token("default", "everything")
        page = opened.page
        await page.set_viewport_size({"width": 1280, "height": 860})
        await opened.open()
        await _take(page, "sign-in")
        await opened.sign_in()
        await _drawn(page)
        assert "Money" in (await page.text_content("main") or "")
        await _take(page, "overview-light")
        await page.evaluate("scrollTo(0, document.getElementById('by-service').offsetTop - 24)")
        await _take(page, "overview-more")
        await page.evaluate("scrollTo(0, 0)")
        await page.emulate_media(color_scheme="dark")
        await _drawn(page)
        await _take(page, "overview-dark")
        await opened.open("/calls")
        await page.get_by_text("live", exact=True).wait_for()
        await _take(page, "calls-dark")
        await page.emulate_media(color_scheme="light")
        for name in ("keys", "tokens"):
            await opened.open(f"/{name}")
            assert await page.get_by_role("row").count() > 4
            await _take(page, name)
        for name, words in (("issue", "Issue a token"), ("limits", "Limits of nightly-report")):
            await page.get_by_role("link", name=words).click()
            await page.get_by_role("dialog", name=words).wait_for()
            await _take(page, name)
            if name == "issue":
                await page.keyboard.press("Escape")
                await page.get_by_role("dialog").wait_for(state="hidden")
        await page.get_by_label("Calls that go upstream").fill("10/minute")
        await page.get_by_role("button", name="Set the limits").click()
        await page.get_by_text("10/minute upstream").wait_for()
        await opened.open("/changes")
        await page.get_by_role("cell", name="token ada").first.wait_for()
        await _take(page, "changes")
        await page.set_viewport_size({"width": 1280, "height": 420})
        await opened.open("/backends")
        await page.get_by_text("https://api.example.com/v1", exact=True).wait_for()
        await _take(page, "backends")
        await opened.open("/tokens")
        await page.set_viewport_size({"width": 390, "height": 844})
        await _take(page, "tokens-narrow")
        await opened.open("?range=7d")
        await _drawn(page)
        assert await opened.wide() <= 0
        await _take(page, "overview-narrow")


async def _drawn(page: Page) -> None:
    await page.locator(".plot canvas").last.wait_for()


async def _take(page: Page, name: str) -> None:
    """Only where they are wanted: they would differ with every run."""
    if os.environ.get("KEYRELAY_SCREENSHOTS"):
        HOME.mkdir(exist_ok=True)
        await page.screenshot(path=HOME / f"{name}.png")


@pytest.mark.parametrize("days", [1, 30])
def test_the_history_is_the_same_each_time(days: int) -> None:
    """Its pictures can be compared."""
    first, second = (list(history(1_800_000_000.0, {}, days)) for _ in range(2))
    assert first == second and len(first) > 100 * days
