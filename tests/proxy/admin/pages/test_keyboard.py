"""The page without a pointer, and for eyes that need contrast: in a real Chromium."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from tests.proxy.admin.pages.conftest import KEYS, Visit, visit
from tests.proxy.admin.pages.test_in_browser import EVERYWHERE

pytestmark = pytest.mark.asyncio(loop_scope="session")  # the browser's

CONTROLS = "a[href], button, input:not([type=hidden]), select, summary, pre[tabindex], .scroll"
PLACES = f"""() => [...document.querySelectorAll('{CONTROLS}')]
  .filter((one) => one.checkVisibility() && (one.type !== 'radio' || one.checked))
  .map((one) => one.outerHTML.slice(0, 200))"""
NAMELESS = f"""() => [...document.querySelectorAll('{CONTROLS}')]
  .filter((one) => one.checkVisibility() && !(
    one.ariaLabel || one.getAttribute('aria-labelledby') || one.labels?.length
    || one.textContent.trim()))
  .map((one) => one.outerHTML.slice(0, 200))"""
FOCUS = """() => {
  const one = document.activeElement;
  if (!one || one === document.body) return null;
  const style = getComputedStyle(one);
  const seen = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;
  return { place: one.outerHTML.slice(0, 200), words: (one.labels?.[0] ?? one).textContent.trim(),
           seen, begun: one.dataset.begun === 'yes', mark: void (one.dataset.begun = 'yes') };
}"""
FAINT = """() => {
  const context = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const solid = (colour, under) => {
    context.fillStyle = under;
    context.fillRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b] = context.getImageData(0, 0, 1, 1).data;
    return `rgb(${r}, ${g}, ${b})`;
  };
  const light = (colour) => {
    const [r, g, b] = colour.match(/\\d+/g).map((part) => part / 255)
      .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (one) => one
    ? solid(getComputedStyle(one).backgroundColor, ground(one.parentElement)) : '#ffffff';
  const found = [];
  for (const one of document.querySelectorAll('body *')) {
    const own = [...one.childNodes].some((part) => part.nodeType === 3 && part.data.trim());
    if (!own || !one.checkVisibility() || one.closest('svg, option, .unseen, .skip')) continue;
    const under = ground(one);
    const pair = [light(solid(getComputedStyle(one).color, under)), light(under)];
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${one.outerHTML.slice(0, 120)}`);
  }
  return found;
}"""


async def tab_to(page: Page, words: str) -> None:
    """Tab until what has the focus is called so; the focus is seen at each stop."""
    for _ in range(60):
        await page.keyboard.press("Tab")
        found: dict[str, Any] | None = await page.evaluate(FOCUS)
        if found is None:
            continue
        assert found["seen"], found["place"]
        if found["words"] == words:
            return
    raise AssertionError(f"no Tab leads to {words}")


async def full(opened: Visit) -> None:
    """Something of everything."""
    for alias in ("default", "second"):
        await opened.up.add_key("openai", alias=alias, key=KEYS["openai"] + alias)
    await opened.up.add_backend("openai", "https://api.example.com/v1")
    await opened.up.issue("limited", limits=("60/minute",), upstream_limits=("5/hour",), budget=9)
    await opened.call(query="?cache=4102444800")
    await opened.call(query="?cache=4102444800")
    await opened.call("anthropic")  # no key: 403
    await opened.sign_in()


async def test_a_token_is_issued_limited_and_revoked_by_keyboard_alone(
    browser: Browser, tmp_path: Path
) -> None:
    """Tab, Enter, typing; the focus goes into each dialog."""
    async with visit(browser, tmp_path / "data") as opened:
        page = opened.page
        await opened.open()
        await page.keyboard.type(opened.admin)
        await page.keyboard.press("Enter")
        await page.wait_for_selector("h1:has-text('Overview')")
        await tab_to(page, "Tokens")
        await page.keyboard.press("Enter")
        await page.wait_for_selector("h1:has-text('Platform tokens')")
        await tab_to(page, "Issue a token")
        await page.keyboard.press("Enter")
        await page.get_by_role("dialog", name="Issue a token").wait_for()
        await page.keyboard.type("typed")
        await tab_to(page, "All calls")
        await page.keyboard.type("60/minute")
        await page.keyboard.press("Enter")
        text = await page.text_content("#issued") or ""
        assert text.startswith("kr_")

        await tab_to(page, "I have it")
        await page.keyboard.press("Enter")
        await page.wait_for_selector("h1:has-text('Platform tokens')")
        await tab_to(page, "Limits of typed")
        await page.keyboard.press("Enter")
        await page.get_by_role("dialog", name="Limits of typed").wait_for()
        await tab_to(page, "Upstream calls in a calendar month")
        await page.keyboard.type("12")
        await page.keyboard.press("Enter")
        await page.get_by_text("12 upstream calls a month").wait_for()

        await tab_to(page, "Revoke typed")
        await page.keyboard.press("Enter")
        await page.get_by_role("dialog", name="Revoke typed?").wait_for()
        await tab_to(page, "Revoke the token")
        await page.keyboard.press("Enter")
        await page.get_by_text("The token is over, from now on.").wait_for()
        assert (await opened.call(token=text)).status == 401


async def test_a_dialog_ends_with_escape_and_gives_the_focus_back(
    browser: Browser, tmp_path: Path
) -> None:
    """Whatever it asks; nothing has changed, and Tab stays within it while it is open."""
    async with visit(browser, tmp_path / "data") as opened:
        await full(opened)
        page = opened.page
        for path, words in (
            ("/keys", "Add a key"),
            ("/tokens", "Issue a token"),
            ("/tokens", "Limits of limited"),
            ("/tokens", "Revoke limited"),
            ("/backends", "Add a backend"),
        ):
            await opened.open(path)
            await page.get_by_role("link", name=words).focus()
            await page.keyboard.press("Enter")
            await page.get_by_role("dialog").wait_for()
            inside = "!!document.activeElement.closest('dialog')"
            assert await page.evaluate(inside), words
            await page.keyboard.press("Escape")
            await page.get_by_role("dialog").wait_for(state="hidden")
            focused = "document.activeElement.textContent"
            assert await page.evaluate(focused) == words
        assert len(await opened.up.vault.list_tokens("default")) == 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_control_is_reached_named_and_every_word_stands_out(
    browser: Browser, tmp_path: Path, scheme: str
) -> None:
    """By Tab alone, with a focus that is seen; text has a contrast of 4.5 at least."""
    async with visit(browser, tmp_path / "data", color_scheme=scheme) as opened:
        await opened.open()
        assert await opened.page.evaluate(FAINT) == []
        await full(opened)
        [token] = [t for t in await opened.up.vault.list_tokens("default") if t.name == "limited"]
        more = (f"/tokens/limits?id={token.id}", f"/tokens/revoke?id={token.id}")
        for path in (*EVERYWHERE, *more):
            await opened.open(path)
            assert await opened.page.evaluate(FAINT) == [], path
            assert await opened.page.evaluate(NAMELESS) == [], path
            if scheme == "light":
                await _reach(opened.page, path)


async def _reach(page: Page, path: str) -> None:
    """Each control once by Tab, until the first comes again."""
    wanted = await page.evaluate(PLACES)
    await page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(len(wanted) + 20):
        await page.keyboard.press("Tab")
        found = await page.evaluate(FOCUS)
        if found and found["begun"]:
            break
        if found:
            assert found["seen"], (path, found["place"])
            reached.append(found["place"].replace(' data-begun="yes"', ""))
    missing = [one for one in wanted if one not in reached]
    assert missing == [], path
