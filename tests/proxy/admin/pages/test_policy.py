"""What every page is sent under, and that no page needs more."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from tests.proxy.admin.conftest import Office
from tests.proxy.admin.pages.test_in_browser import EVERYWHERE
from tests.support.caller import Answered, call
from tests.support.relay import running_relay

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
INLINE = re.compile(r"<style|\sstyle=|\son[a-z]+=|javascript:|<script(?![^>]*\ssrc=)|\shx-on")


def check(answer: Answered) -> None:
    """The fields of a page, and nothing inline in it."""
    assert (answer.header("content-type") or "").startswith("text/html")
    assert answer.header("content-security-policy") == POLICY
    assert answer.header("cache-control") == "no-store"
    assert answer.header("x-frame-options") == "DENY"
    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.header("referrer-policy") == "same-origin"
    assert INLINE.findall(answer.body.decode()) == []


async def test_every_page_is_under_one_strict_policy(office: Office) -> None:
    """Whoever asks: signed in, not signed in, refused."""
    cookie = await office.signed_in()
    await office.up.add_key("openai", key="sk-0123456789-abcdefghijkl")
    for path in EVERYWHERE:
        for fields in ((cookie,), ()):
            answer = await call(office.up.url, "GET", f"/admin{path}", *fields)
            assert answer.status == 200, path
            check(answer)
    check(await call(office.up.url, "GET", "/admin/tokens/limits?id=none", cookie))
    check(await office.submit("/admin/login", token="kr_wrong"))
    check(await office.submit("/admin/tokens/issue", ("Origin", "https://evil.example"), cookie))


async def test_a_part_of_a_page_leads_the_whole_of_it_to_the_sign_in(office: Office) -> None:
    """A dialog or figures that are asked for when the session is over."""
    part = ("HX-Request", "true")
    for path in ("/tokens/issue", "?range=1h&poll=1"):
        answer = await call(office.up.url, "GET", f"/admin{path}", part)
        assert (answer.status, answer.header("hx-redirect")) == (401, "/admin")
        check(answer)


async def test_an_old_cookie_is_told_apart_from_none(office: Office) -> None:
    """Whoever was signed in hears that it is over; whoever was not hears nothing."""
    cookie = await office.signed_in()
    await office.up.vault.revoke_token("default", "ada")
    for fields, said in (((cookie,), True), ((), False)):
        answer = await call(office.up.url, "GET", "/admin/keys", *fields)
        assert (b"Your session is over: sign in again." in answer.body) == said
    answer = await call(office.up.url, "GET", "/admin?begun=1")
    assert (answer.status, b"did not keep the cookie" in answer.body) == (401, True)


async def test_markup_that_is_typed_is_shown_as_text(office: Office) -> None:
    """In every form's every member: refused, and escaped where it is said again."""
    cookie = await office.signed_in()
    await office.up.add_key("openai", key="sk-0123456789-abcdefghijkl")
    page = await call(office.up.url, "GET", "/admin/tokens", cookie)
    [csrf] = set(re.findall(r'name="csrf" value="([^"]+)"', page.body.decode()))
    bad = "'\"><b>x</b>"
    for path, members in (
        ("keys/add", {"service": "openai", "alias": bad, "part:key": "sk-0123456789-abcdefghijkl"}),
        ("keys/add", {"service": bad, "alias": bad}),
        ("keys/rotate", {"service": "openai", "alias": bad}),
        ("keys/remove", {"service": bad, "alias": bad}),
        ("keys/default", {"service": "openai", "alias": bad}),
        ("tokens/issue", {"name": bad, "role": bad, "days": ""}),
        ("tokens/issue", {"name": "x", "days": bad}),
        ("tokens/issue", {"name": "x", "days": "", f"service:{bad}": "1"}),
        ("tokens/issue", {"name": "x", "days": "", "key:openai": bad}),
        ("tokens/revoke", {"id": bad}),
        ("backends/add", {"service": "openai", "url": bad}),
        ("backends/remove", {"service": bad, "url": bad}),
    ):
        own = ("Origin", "http://relay.test")
        answer = await office.submit(f"/admin/{path}", own, cookie, csrf=csrf, **members)
        assert answer.status in (400, 404, 422), path
        assert b"<b>x" not in answer.body
        check(answer)
    assert len(await office.up.vault.list_keys("default")) == 1
    assert len(await office.up.vault.list_tokens("default")) == 2


async def test_markup_in_what_is_kept_is_shown_as_text(office: Office) -> None:
    """A URL may hold it: in the list, in the log of changes, in the question before removal."""
    cookie = await office.signed_in()
    await office.up.add_backend("openai", "https://api.example.com/'\"><b>x</b>")
    listed = await call(office.up.url, "GET", "/admin/backends", cookie)
    [asking] = re.findall(r'href="(/admin/backends/remove[^"]+)"', listed.body.decode())
    for path in ("/admin/backends", "/admin/changes", html.unescape(asking)):
        answer = await call(office.up.url, "GET", path, cookie)
        assert (answer.status, b"<b>x" in answer.body) == (200, False)
        assert b"api.example.com" in answer.body
        check(answer)


@pytest.mark.parametrize("enabled", ["true", "false"])
async def test_without_usage_there_are_no_figures(tmp_path: Path, enabled: str) -> None:
    """The overview says how to switch it on; everything else is as ever."""
    settings = f"usage: {{enabled: {enabled}}}\n"
    async with running_relay(tmp_path / "data", settings=settings) as up:
        office = Office(up, await up.issue("ada", role="admin"))
        cookie = await office.signed_in()
        bearer = ("Authorization", f"Bearer {up.token}")
        assert (await call(up.url, "GET", "/proxy/openai/v1/models", bearer)).status == 403
        page = (await call(up.url, "GET", "/admin", cookie)).body
        assert (b"Usage is switched off: set usage.enabled" in page) == (enabled == "false")
        assert (b"data-chart" in page) == (enabled == "true")
        for path in ("/calls", "/keys", "/tokens", "/backends", "/changes"):
            answer = await call(up.url, "GET", f"/admin{path}", cookie)
            assert answer.status == 200
