"""The pictures of docs/admin-page.md: made where somebody asks for them (`make screenshots`)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from playwright.async_api import Page

from proxy.usage import SqliteUsage
from tests.proxy.admin.pages.conftest import KEYS, Visit, visit
from tests.proxy.admin.pages.history import history
from tests.support.origin import json_reply, reply

HOME = Path(__file__).parents[4] / "docs" / "admin"
PRICES = "prices: {gpt-5-mini: {input: 0.25, output: 2}, claude: {input: 3, output: 15}}\n"
TOKENS = ("web-frontend", "support-bot", "nightly-report", "research")
MORE_KEYS = {"tavily": "tvly-" + "e5F6" * 8, "deepl": "0123abcd-" + "9" * 27 + ":fx"}
COMPLETION = {"model": "gpt-5-mini", "usage": {"prompt_tokens": 900, "completion_tokens": 300}}


async def lived_in(opened: Visit) -> None:
    """A team's keys and tokens, a month of its calls, and some real ones."""
    up = opened.up
    for service, key in {**KEYS, **MORE_KEYS}.items():
        await up.add_key(service, key=key)
    await up.add_key("openai", alias="evaluation", key=KEYS["openai"] + "x9")
    await up.add_backend("openai", "https://api.example.com/v1")
    texts = {name: await up.issue(name) for name in TOKENS}
    ids = {one.name: one.id for one in await up.vault.list_tokens("default")}
    await asyncio.to_thread(_write, up.data, ids)
    await _call(opened, texts)


def _write(data: Path, ids: Mapping[str, str]) -> None:
    store = SqliteUsage(data / "usage.db")
    try:
        now = (data / "vault.db").stat().st_mtime
        store.write(list(history(now, ids)))
    finally:
        store.close()


async def _call(opened: Visit, texts: Mapping[str, str]) -> None:
    """Real calls: new answers, kept ones, an error of the upstream's, one of ours."""
    opened.origin.answer_with(json_reply(COMPLETION))
    for query in ("?cache=4102444800", "?cache=4102444800", "?limit=20", "?cache=4102444800&a=1"):
        await opened.call(token=texts["web-frontend"], query=query)
        await opened.call("anthropic", token=texts["research"], query=query)
    await opened.call("elevenlabs", token=texts["support-bot"])
    opened.origin.answer_with(reply(503, (), "overloaded"))
    for _ in range(3):
        await opened.call("tavily", token=texts["research"])
    opened.origin.answer_with(json_reply(COMPLETION))
    for name in ("support-bot", "web-frontend", "nightly-report"):
        await opened.call("anthropic", token=texts[name], query="?cache=4102444800&b=2")


async def test_a_lived_in_page_is_shown_in_light_and_dark_and_on_a_phone(tmp_path: Path) -> None:
    """Every section with a month of calls behind it, and no complaint of the browser's."""
    async with visit(tmp_path / "data", PRICES, device_scale_factor=1.5) as opened:
        await lived_in(opened)
        page = opened.page
        await opened.sign_in()
        await page.set_viewport_size({"width": 1280, "height": 800})
        await _drawn(page)
        assert "Money" in (await page.text_content("main") or "")
        await _take(page, "overview-light", whole=True)
        await page.emulate_media(color_scheme="dark")
        await _drawn(page)
        await _take(page, "overview-dark", whole=True)
        await opened.open("/calls")
        await page.get_by_text("live", exact=True).wait_for()
        await _take(page, "calls-dark")
        await page.emulate_media(color_scheme="light")
        for name in ("keys", "tokens"):
            await opened.open(f"/{name}")
            assert await page.get_by_role("row").count() > 4
            await _take(page, name)
        await page.set_viewport_size({"width": 390, "height": 844})
        await _take(page, "tokens-narrow")
        await opened.open("?range=7d")
        await _drawn(page)
        assert await opened.wide() <= 0
        await _take(page, "overview-narrow")


async def _drawn(page: Page) -> None:
    await page.locator(".plot canvas").last.wait_for()


async def _take(page: Page, name: str, *, whole: bool = False) -> None:
    """Only where they are wanted: they would differ with every run."""
    if os.environ.get("KEYRELAY_SCREENSHOTS"):
        HOME.mkdir(exist_ok=True)
        await page.screenshot(path=HOME / f"{name}.png", full_page=whole)


@pytest.mark.parametrize("days", [1, 30])
def test_the_history_is_the_same_each_time(days: int) -> None:
    """Its pictures can be compared."""
    first, second = (list(history(1_800_000_000.0, {}, days)) for _ in range(2))
    assert first == second and len(first) > 100 * days
