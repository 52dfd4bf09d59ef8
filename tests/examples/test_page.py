"""The example page in a real Chromium: contract section 2, "CORS is ours", as a page meets it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, Page

from tests.examples.doubles import ANSWER, COMPLETION, OPENAI_KEY
from tests.support.examples import serving_page
from tests.support.issuer import Issuer
from tests.support.origin import Origin, json_reply
from tests.support.relay import Running, running_relay

pytestmark = pytest.mark.asyncio(loop_scope="session")  # the browser's


@dataclass
class Shown:
    """What the page shows after a click."""

    status: str
    cache_status: str
    age: str
    request_id: str
    answer: str
    error: str


@dataclass
class Scene:
    """The page, open in a browser, with keyrelay and a double of OpenAI behind it."""

    page: Page
    relay: Running
    openai: Origin
    login: Issuer
    preflights: list[dict[str, Any]] = field(default_factory=list)

    async def fill(self, **values: str) -> None:
        """Writes into the fields of the form."""
        for name, text in values.items():
            await self.page.fill(f"#{name}", text)

    async def click(self) -> Shown:
        """Calls, and waits until the page has the outcome."""
        await self.page.click("button")
        await self.page.wait_for_selector("button:not([disabled])")
        ids = ("status", "cache-status", "age", "x-request-id", "answer", "error")
        return Shown(*[await self.page.text_content(f"#{one}") or "" for one in ids])


@contextlib.asynccontextmanager
async def scene(browser: Browser, data: Path, *, host: str = "127.0.0.1") -> AsyncIterator[Scene]:
    """The page, opened under `host`; keyrelay lists the origin under 127.0.0.1 alone."""
    async with (
        serving_page() as port,
        Origin(COMPLETION) as openai,
        Issuer(now=time.time()) as login,
        running_relay(
            data,
            {"openai": {"origin": f"{openai.url}/v1"}},
            f"server: {{cors_origins: ['http://127.0.0.1:{port}']}}\n"
            f"sign_in: [{{name: login, issuer: '{login.url}', audience: keyrelay}}]\n",
        ) as relay,
    ):
        await relay.add_key("openai", key=OPENAI_KEY)
        page = await browser.new_page()  # of a profile of its own
        opened = Scene(page, relay, openai, login)
        await _watch_preflights(opened)
        await page.goto(f"http://{host}:{port}/")
        server = f"{openai.url}/v1/chat/completions"
        await opened.fill(relay=relay.url, token=relay.token, server=server)
        yield opened
        await page.close()


async def _watch_preflights(opened: Scene) -> None:
    """Records what the browser sends ahead of a call: its header, names in lower case."""
    session = await opened.page.context.new_cdp_session(opened.page)

    def sent(event: dict[str, Any]) -> None:
        fields = {name.lower(): value for name, value in event["headers"].items()}
        if "access-control-request-method" in fields:
            opened.preflights.append(fields)

    session.on("Network.requestWillBeSentExtraInfo", sent)
    await session.send("Network.enable")


async def test_page_reads_the_answer_and_the_second_click_is_a_hit(
    browser: Browser, tmp_path: Path
) -> None:
    """A listed origin's page reads the answer and the exposed fields."""
    async with scene(browser, tmp_path / "data") as opened:
        first = await opened.click()
        assert (first.status, first.error) == ("200", "")
        assert ANSWER in first.answer
        assert first.cache_status.startswith("keyrelay") and "hit" not in first.cache_status
        assert first.request_id
        assert first.age == ""

        second = await opened.click()
        assert (second.status, second.answer) == ("200", first.answer)
        assert "hit" in second.cache_status
        assert second.age.isdigit()
        assert second.request_id not in ("", first.request_id)
        assert len(opened.openai.requests) == 1

        await opened.page.check("#refresh")
        third = await opened.click()
        assert third.status == "200" and "hit" not in third.cache_status
        assert len(opened.openai.requests) == 2


async def test_preflight_is_answered_without_a_token_and_never_forwarded(
    browser: Browser, tmp_path: Path
) -> None:
    """The browser asks first, without credentials; the upstream sees the call alone."""
    async with scene(browser, tmp_path / "data") as opened:
        assert (await opened.click()).status == "200"
        async with asyncio.timeout(10):
            while len(opened.preflights) < 2:
                await asyncio.sleep(0.01)
        for preflight in opened.preflights:  # of the exchange, then of the call
            assert "authorization" not in preflight
            assert preflight["access-control-request-headers"] == "authorization,content-type"
        assert [one.method for one in opened.openai.requests] == ["POST"]
        seen = opened.openai.last
        assert seen.header("origin") is None and seen.header("referer") is None
        assert [name for name, _ in seen.headers if name.lower().startswith("sec-")] == []


async def test_page_calls_with_a_token_of_minutes(browser: Browser, tmp_path: Path) -> None:
    """For its own origin, this host, path and method; asked for once, not the platform token."""
    async with scene(browser, tmp_path / "data") as opened:
        bearers: list[tuple[str, str]] = []
        opened.page.on(
            "request",
            lambda one: bearers.append((one.url, one.headers.get("authorization", ""))),
        )
        assert (await opened.click()).status == "200"
        assert (await opened.click()).status == "200"
        exchange, *calls = bearers
        assert exchange == (f"{opened.relay.url}/tokens", f"Bearer {opened.relay.token}")
        assert len(calls) == 2
        [bearer] = {bearer for _, bearer in calls}
        short = bearer.removeprefix("Bearer ")
        assert short.startswith("kr_") and short != opened.relay.token
        async with httpx.AsyncClient() as client:
            asked = {"server": f"{opened.openai.url}/v1/chat/completions", "service": "openai"}
            elsewhere = await client.post(
                f"{opened.relay.url}/proxy",
                params=asked,
                headers={"Authorization": bearer, "Origin": "https://evil.example"},
            )
            assert elsewhere.status_code == 403


async def test_page_calls_with_the_token_of_its_own_login(browser: Browser, tmp_path: Path) -> None:
    """A sign-in token goes as it is: nothing is exchanged, and the provider never sees it."""
    async with scene(browser, tmp_path / "data") as opened:
        text = opened.login.token()
        asked: list[str] = []
        opened.page.on("request", lambda one: asked.append(one.url.partition("?")[0]))
        await opened.fill(token=text)
        shown = await opened.click()
        assert (shown.status, shown.error) == ("200", "")
        assert asked == [f"{opened.relay.url}/proxy"]
        assert text not in str(opened.openai.last.headers)


async def test_page_reads_our_errors(browser: Browser, tmp_path: Path) -> None:
    """Contract section 2: our errors carry the CORS fields too, so a page can say what to do."""
    async with scene(browser, tmp_path / "data") as opened:
        await opened.fill(token="")
        nobody = await opened.click()
        assert nobody.status == "401"
        assert "Send a valid platform token" in nobody.error

        await opened.fill(token=opened.relay.token, server="https://example.com/v1")
        elsewhere = await opened.click()
        assert elsewhere.status == "403"
        assert elsewhere.error and elsewhere.request_id

        await opened.fill(server="https://example.com/v1/../v2", service="")
        unreadable = await opened.click()
        assert unreadable.status == "400"
        assert opened.openai.requests == []


async def test_page_tells_the_upstreams_error_from_ours(browser: Browser, tmp_path: Path) -> None:
    """Proxy-Status is exposed, and only our errors carry it."""
    async with scene(browser, tmp_path / "data") as opened:
        opened.openai.answer_with(json_reply({"error": {"message": "slow down"}}, 429))
        refused = await opened.click()
        assert refused.status == "429"
        assert refused.error.startswith("The upstream says: ") and "slow down" in refused.error


async def test_page_of_an_unlisted_origin_reads_nothing(browser: Browser, tmp_path: Path) -> None:
    """`localhost` is another origin than `127.0.0.1`: its page gets no answer, makes no call."""
    async with scene(browser, tmp_path / "data", host="localhost") as opened:
        refused = await opened.click()
        assert (refused.status, refused.answer, refused.request_id) == ("", "", "")
        assert "server.cors_origins" in refused.error and "http://localhost:" in refused.error
        assert opened.openai.requests == [], "the preflight was refused, so nothing was called"


async def test_page_of_an_unlisted_origin_can_not_read_errors_either(
    browser: Browser, tmp_path: Path
) -> None:
    """A simple request needs no preflight; its answer stays closed to the page all the same."""
    async with scene(browser, tmp_path / "data", host="localhost") as opened:
        await opened.fill(token="", body="")
        refused = await opened.click()
        assert refused.status == "" and "server.cors_origins" in refused.error


async def test_preflight_from_a_listed_origin_over_the_wire(tmp_path: Path) -> None:
    """What Chromium relied on above, read by a plain client: names echoed, no credentials, Vary."""
    origin = "http://127.0.0.1:8080"
    settings = f"server: {{cors_origins: ['{origin}']}}\n"
    async with (
        running_relay(tmp_path / "data", None, settings) as relay,
        httpx.AsyncClient() as client,
    ):
        asked = {
            "Origin": origin,
            "Access-Control-Request-Method": "PATCH",
            "Access-Control-Request-Headers": "authorization,x-anything",
        }
        answer = await client.options(f"{relay.url}/proxy?server=x", headers=asked)
        assert answer.is_success
        assert answer.headers.get_list("access-control-allow-origin") == [origin]
        assert answer.headers["access-control-allow-headers"] == "authorization,x-anything"
        assert "PATCH" in answer.headers["access-control-allow-methods"]
        assert "access-control-allow-credentials" not in answer.headers
        assert "Origin" in answer.headers["vary"]
