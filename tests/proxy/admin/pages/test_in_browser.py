"""The page as people use it, in a real Chromium; whatever its console says fails a test."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser, Route

from tests.proxy.admin.pages.conftest import KEYS, visit
from tests.support.caller import call

pytestmark = pytest.mark.asyncio(loop_scope="session")  # the browser's

NARROW = {"viewport": {"width": 360, "height": 740}}
EVERYWHERE = (
    "",
    "/calls",
    "/keys",
    "/keys/add?service=openai",
    "/keys/rotate?service=openai&alias=default",
    "/keys/remove?service=openai&alias=default",
    "/tokens",
    "/tokens/issue",
    "/backends",
    "/backends/add",
    "/changes",
)


async def test_signing_in_by_keyboard_alone(browser: Browser, tmp_path: Path) -> None:
    """The field has the focus, Enter signs in; Tab reaches the skip link first, then the nav."""
    async with visit(browser, tmp_path / "data") as opened:
        await opened.open()
        await opened.page.keyboard.type(opened.admin)
        await opened.page.keyboard.press("Enter")
        await opened.page.wait_for_selector("h1:has-text('Overview')")
        assert opened.page.url == f"{opened.up.url}/admin"
        [cookie] = await opened.page.context.cookies()
        assert (cookie["name"], cookie["sameSite"]) == ("__Host-keyrelay", "Strict")
        assert cookie["httpOnly"] and cookie["secure"]
        assert await opened.page.evaluate("localStorage.length + sessionStorage.length") == 0
        await opened.page.keyboard.press("Tab")
        focused = "document.activeElement.textContent.trim()"
        assert await opened.page.evaluate(focused) == "Skip to the content"
        await opened.page.keyboard.press("Enter")
        assert await opened.page.evaluate("document.activeElement.id") == "main"


async def test_a_wrong_token_is_said_and_a_sign_out_ends_it(
    browser: Browser, tmp_path: Path
) -> None:
    """The page asks again; the token is in no URL and in no page."""
    async with visit(browser, tmp_path / "data") as opened:
        await opened.open()
        await opened.page.get_by_label("Admin token").fill("kr_wrong")
        await opened.page.get_by_role("button", name="Sign in").click()
        told = opened.page.get_by_role("alert")
        assert "No token like this is known" in (await told.text_content() or "")
        assert "kr_wrong" not in await opened.page.content()
        opened.mistakes.clear()  # the browser reports the status 401 there

        await opened.sign_in()
        assert opened.admin not in await opened.page.content() + opened.page.url
        await opened.page.get_by_role("button", name="Sign out").click()
        await opened.page.wait_for_selector("text=Admin token")
        await opened.open("/keys")
        assert await opened.page.get_by_label("Admin token").is_visible()


async def test_a_token_is_shown_once_then_calls_then_is_revoked(
    browser: Browser, tmp_path: Path
) -> None:
    """Issued in a dialog, shown on the answer alone, over after a confirmation."""
    async with visit(browser, tmp_path / "data") as opened:
        await opened.up.add_key("openai", key=KEYS["openai"])
        await opened.sign_in()
        page = opened.page
        await opened.go_to("Tokens")
        await page.get_by_role("link", name="Issue a token").click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("Name").fill("notebook")
        await dialog.get_by_label("openai", exact=True).check()
        await dialog.get_by_role("button", name="Issue").click()
        token = await page.text_content("#issued") or ""
        assert token.startswith("kr_")
        assert (await opened.call(token=token)).status == 200
        assert (await opened.call("anthropic", token=token)).status == 403

        await page.get_by_role("link", name="I have it").click()
        assert token not in await page.content()
        row = page.get_by_role("row").filter(has_text="notebook")
        assert "openai" in (await row.text_content() or "")
        await row.get_by_role("link", name="Revoke").click()
        await page.get_by_role("dialog").get_by_role("button", name="Revoke the token").click()
        assert await page.get_by_role("status").first.text_content()
        assert (await opened.call(token=token)).status == 401


async def test_a_form_that_is_sent_twice_is_sent_once(browser: Browser, tmp_path: Path) -> None:
    """A double click doesn't lose the token; and after going back the form can be sent again."""
    async with visit(browser, tmp_path / "data") as opened:
        page = opened.page
        await opened.sign_in()
        for name in ("first", "second"):
            await opened.open("/tokens/issue")
            await page.get_by_label("Name").fill(name)
            await page.get_by_role("button", name="Issue").dblclick()
            await page.locator("#issued").wait_for()
            assert (await opened.call(token=await page.text_content("#issued") or "")).status == 403
        await page.go_back()
        await page.get_by_label("Name").fill("third")
        await page.get_by_role("button", name="Issue").click()
        await page.locator("#issued").wait_for()
        assert len(await opened.up.vault.list_tokens("default")) == 5


async def test_a_dialog_that_can_not_be_asked_for_is_a_page(
    browser: Browser, tmp_path: Path
) -> None:
    """Where a script gets no answer the link is followed: the browser says what is wrong."""

    async def cut(route: Route) -> None:
        if "hx-request" in route.request.headers:
            await route.abort()
        else:
            await route.continue_()

    async with visit(browser, tmp_path / "data") as opened:
        await opened.sign_in()
        await opened.go_to("Tokens")
        await opened.page.route("**/admin/tokens/issue", cut)
        await opened.page.get_by_role("link", name="Issue a token").click()
        await opened.page.wait_for_url("**/admin/tokens/issue")
        assert await opened.page.get_by_label("Name").is_visible()
        opened.mistakes.clear()  # the browser reports what was cut


async def test_a_key_is_added_rotated_preferred_and_removed(
    browser: Browser, tmp_path: Path
) -> None:
    """The fields follow the service; a key goes to the server once and comes back masked only."""
    async with visit(browser, tmp_path / "data") as opened:
        await opened.sign_in()
        page = opened.page
        await opened.go_to("Keys")
        await page.get_by_text("keyrelay key add openai").wait_for()
        for alias in ("default", "second"):
            await page.get_by_role("link", name="Add a key").click()
            dialog = page.get_by_role("dialog")
            await dialog.get_by_label("Service").select_option("openai")
            await dialog.get_by_label("API key").fill(KEYS["openai"] + alias)
            await dialog.get_by_label("Alias").fill(alias)
            await dialog.get_by_role("button", name="Seal the key").click()
            await page.get_by_text("The key is sealed.").wait_for()
            assert KEYS["openai"] not in await page.content()
        second = page.get_by_role("row").filter(has_text="second")
        await second.get_by_role("link", name="Rotate").click()
        await page.get_by_role("dialog").get_by_label("API key").fill("sk-other-" + "z9" * 20)
        await page.get_by_role("dialog").get_by_role("button", name="Rotate").click()
        await second.get_by_text("version 2").wait_for()
        await second.get_by_role("button", name="Make default").click()
        await page.get_by_text("Calls use this key from now on").wait_for()
        assert (await opened.call()).status == 200
        assert "sk-other-" in str(opened.origin.last.header("authorization"))

        await second.get_by_role("link", name="Remove").click()
        await page.get_by_role("dialog").get_by_role("button", name="Remove the key").wait_for()
        await page.keyboard.press("Escape")  # nothing has happened yet
        await page.get_by_role("dialog").wait_for(state="hidden")
        await second.get_by_role("link", name="Remove").click()
        await page.get_by_role("dialog").get_by_role("button", name="Remove the key").click()
        await page.get_by_text("The key is gone").wait_for()
        assert await second.count() == 0


async def test_a_backend_is_added_and_taken_back(browser: Browser, tmp_path: Path) -> None:
    """What is wrong with it is said above the form, which keeps what was typed."""
    async with visit(browser, tmp_path / "data") as opened:
        await opened.sign_in()
        page = opened.page
        await opened.go_to("Backends")
        for url in ("https://169.254.169.254/v1", "https://api.example.com/v1"):
            if url.endswith("169.254/v1"):
                await page.get_by_role("link", name="Add a backend").click()
            await page.get_by_label("Service").select_option("openai")
            await page.get_by_label("URL").fill(url)
            await page.get_by_role("button", name="Add", exact=True).click()
            if url.endswith("169.254/v1"):
                await page.get_by_role("alert").wait_for()
                assert await page.get_by_label("URL").input_value() == url
                opened.mistakes.clear()  # the browser reports the status 422 there
        row = page.get_by_role("row").filter(has_text="api.example.com")
        await row.get_by_role("link", name="Remove").click()
        await page.get_by_role("dialog").get_by_role("button", name="Remove the backend").click()
        await page.get_by_text("Taken back").wait_for()
        assert await row.count() == 0


async def test_calls_appear_as_they_end(browser: Browser, tmp_path: Path) -> None:
    """By server-sent events; filtered, paused, and of the admin's own tenant only."""
    async with visit(browser, tmp_path / "data") as opened:
        for tenant in ("default", "other"):
            await opened.up.add_key("openai", tenant=tenant, key=KEYS["openai"])
        foreign = await opened.up.issue("stranger", tenant="other")
        await opened.call()
        await opened.sign_in()
        page = opened.page
        await opened.go_to("Calls")
        await page.get_by_text("live", exact=True).wait_for()
        rows = page.locator("#tail tbody tr")
        assert await rows.count() == 1
        assert (await opened.call(token=foreign)).status == 200
        await opened.call("anthropic")  # no key: 403
        await page.locator("#tail tbody tr >> nth=1").wait_for()
        assert "403" in (await rows.first.text_content() or "")
        assert "stranger" not in await page.content()

        await page.get_by_role("button", name="Pause").click()
        await opened.call()
        await page.get_by_role("button", name="Go on").click()
        await page.locator("#tail tbody tr >> nth=2").wait_for()

        await page.get_by_label("Status").select_option("every error")
        await page.get_by_role("button", name="Show").click()
        await page.get_by_text("live", exact=True).wait_for()
        assert await rows.count() == 1
        await opened.call()
        await opened.call("anthropic")
        await page.locator("#tail tbody tr >> nth=1").wait_for()
        assert await rows.count() == 2


async def test_the_overview_draws_what_was_called(browser: Browser, tmp_path: Path) -> None:
    """Charts and the same numbers as tables; every range; the page asks for no other server."""
    async with visit(browser, tmp_path / "data") as opened:
        asked: list[str] = []
        opened.page.on("request", lambda request: asked.append(request.url))
        await opened.up.add_key("openai", key=KEYS["openai"])
        await opened.sign_in()
        await opened.page.get_by_text("No calls in the last 24 hours").wait_for()
        for _ in range(3):
            await opened.call(query="?cache=4102444800")
        for span in ("1h", "24h", "7d", "30d"):
            await opened.page.goto(f"{opened.up.url}/admin?range={span}")
            await opened.page.locator(".plot canvas").first.wait_for()
            tiles = await opened.page.locator(".tiles").text_content() or ""
            assert "Calls3" in tiles and "66.7%" in tiles
        await opened.page.get_by_text("As a table").first.click()
        assert await opened.page.locator("details[open] tbody tr").count() == 1
        assert {url.partition("/admin")[0] for url in asked} == {opened.up.url}


async def test_the_overview_renews_itself_and_says_when_it_can_not(
    browser: Browser, tmp_path: Path
) -> None:
    """Figures are replaced in place; a session that has ended leads to the sign-in."""
    async with visit(browser, tmp_path / "data") as opened:
        await opened.up.add_key("openai", key=KEYS["openai"])
        await opened.sign_in()
        await opened.call()
        renew = "htmx.ajax('GET', document.getElementById('overview').getAttribute('hx-get'), "
        renew += "{source: '#overview', target: '#figures', select: '#figures', swap: 'outerHTML'})"
        await opened.page.evaluate(renew)
        await opened.page.locator(".plot canvas").first.wait_for()
        await opened.up.vault.revoke_token("default", "ada")
        await opened.page.evaluate(renew)
        await opened.page.get_by_label("Admin token").wait_for()
        opened.mistakes.clear()  # the browser reports the status 401 there


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_no_page_is_wider_than_its_screen(
    browser: Browser, tmp_path: Path, scheme: str
) -> None:
    """From 360 pixels on, empty and with the longest names, in light and dark, which differ."""
    async with visit(browser, tmp_path / "data", color_scheme=scheme, **NARROW) as opened:
        await opened.open()
        assert await opened.wide() <= 0
        await opened.sign_in()
        ground = "getComputedStyle(document.body).backgroundColor"
        light = await opened.page.evaluate(ground) == "rgb(245, 246, 244)"
        assert light == (scheme == "light")
        await opened.up.add_key("openai", key=KEYS["openai"])
        await opened.up.add_key("openai", alias="a" * 64, key=KEYS["openai"])
        await opened.up.add_backend("openai", f"https://{'very-' * 9}long.example.com/{'x' * 80}")
        limits = ("openai=1000000000/minute", "60/minute")
        more = {"limits": limits, "budget": 2**31 - 1, "key_aliases": {"openai": "a" * 64}}
        await opened.call(token=await opened.up.issue("n" * 64, **more))
        for width in (360, 740, 1110, 1130):
            await opened.page.set_viewport_size({"width": width, "height": 740})
            for path in EVERYWHERE if width == 360 else ("", "/calls", "/keys", "/tokens"):
                await opened.open(path)
                assert await opened.wide() <= 0, (width, path)


async def test_everything_but_the_tail_works_without_scripts(
    browser: Browser, tmp_path: Path
) -> None:
    """Dialogs become pages, charts become tables."""
    async with visit(browser, tmp_path / "data", java_script_enabled=False) as opened:
        page = opened.page
        await opened.sign_in()
        await opened.open("/keys/add")
        await page.get_by_label("Service").select_option("twilio")
        await page.get_by_role("button", name="Go on").click()
        await page.get_by_label("Account SID").fill("AC" + "0" * 32)
        await page.get_by_label("Auth token").fill("0123456789abcdef" * 2)
        await page.get_by_role("button", name="Seal the key").click()
        await page.get_by_role("row").filter(has_text="twilio").wait_for()
        await page.get_by_role("link", name="Remove").click()
        await page.get_by_role("button", name="Remove the key").click()
        await page.get_by_text("The key is gone").wait_for()
        await opened.call("openai")
        await opened.open("/calls")
        assert await page.locator("#tail tbody tr").count() == 1


async def test_a_token_lives_and_ends_without_scripts(browser: Browser, tmp_path: Path) -> None:
    """Issued, limited, revoked, signed out: links lead to pages that have the same forms."""
    async with visit(browser, tmp_path / "data", java_script_enabled=False) as opened:
        page = opened.page
        await opened.up.add_key("openai", key=KEYS["openai"])
        await opened.sign_in()
        await opened.go_to("Tokens")
        await page.get_by_role("link", name="Issue a token").click()
        await page.get_by_label("Name").fill("plain")
        await page.get_by_label("All calls", exact=True).fill("often")
        await page.get_by_role("button", name="Issue").click()
        await page.get_by_role("alert").filter(has_text="Expected a limit such as").wait_for()
        opened.mistakes.clear()  # the browser reports the status 422 there
        await page.get_by_label("All calls", exact=True).fill("1 per month")
        await page.get_by_role("button", name="Issue").click()
        token = await page.text_content("#issued") or ""
        assert [(await opened.call(token=token)).status for _ in range(2)] == [200, 429]

        await page.get_by_role("link", name="I have it").click()
        await page.get_by_role("link", name="Limits of plain").click()
        assert await page.get_by_label("All calls", exact=True).input_value() == "1/month"
        await page.get_by_label("All calls", exact=True).fill("")
        await page.get_by_role("button", name="Set the limits").click()
        row = page.get_by_role("row").filter(has_text="plain")
        await row.get_by_text("none of its own").wait_for()
        await row.get_by_role("link", name="Revoke").click()
        await page.get_by_role("button", name="Revoke the token").click()
        await page.get_by_text("The token is over, from now on.").wait_for()
        assert (await opened.call(token=token)).status == 401
        await page.get_by_role("button", name="Sign out").click()
        await page.get_by_label("Admin token").wait_for()


async def test_whoever_is_signed_out_meanwhile_is_asked_to_sign_in(
    browser: Browser, tmp_path: Path
) -> None:
    """By a link, by a dialog and by a form; each says why, and what follows works again."""
    async with visit(browser, tmp_path / "data") as opened:
        page = opened.page
        for number, way in enumerate(("link", "dialog", "form")):
            name = f"admin-{number}"
            opened.admin = await opened.up.issue(name, role="admin")
            await opened.sign_in()
            await opened.go_to("Tokens")
            if way == "form":
                await page.get_by_role("link", name="Issue a token").click()
                await page.get_by_label("Name").fill("never")
            await opened.up.vault.revoke_token("default", name)
            if way == "link":
                await opened.go_to("Keys")
            elif way == "dialog":
                await page.get_by_role("link", name="Issue a token").click()
            else:
                await page.get_by_role("button", name="Issue").click()
            await page.get_by_label("Admin token").wait_for()
            told = await page.get_by_role("alert").text_content() or ""
            assert "sign in" in told, way
            assert await page.get_by_role("dialog").count() == 0
        names = [one.name for one in await opened.up.vault.list_tokens("default")]
        assert "never" not in names
        opened.mistakes.clear()  # the browser reports the status 401 there


async def test_what_a_caller_chooses_is_text_on_the_page(browser: Browser, tmp_path: Path) -> None:
    """Methods and hosts come from outside: they are shown, never run."""
    async with visit(browser, tmp_path / "data") as opened:
        await opened.up.add_key("openai", key=KEYS["openai"])
        await opened.sign_in()
        await opened.open("/calls?service=%22%3E%3Cscript%3Ealert(1)%3C/script%3E")
        await opened.page.get_by_text("live", exact=True).wait_for()
        assert await opened.page.locator("script").count() == 4
        bearer = ("Authorization", f"Bearer {opened.up.token}")
        await call(opened.up.url, "GET", "/proxy?server=https://%3Cimg%20src=x%3E/", bearer)
        await opened.open("/calls")
        assert await opened.page.locator("#tail img").count() == 0
