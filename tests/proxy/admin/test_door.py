"""Signing in and out over real sockets: forms of our own page only, and sessions that end."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from urllib.parse import urlencode

import pytest

from proxy.admin.session import _csrf
from tests.proxy.admin.conftest import FORM, OWN, Office
from tests.support.caller import call
from tests.support.command import command
from tests.support.process import served

EVIL = ("Origin", "https://evil.example")


def csrf(cookie: tuple[str, str]) -> str:
    """What the page writes into its forms."""
    return _csrf(cookie[1].partition("=")[2])


async def lives(office: Office, cookie: tuple[str, str]) -> bool:
    """By a change without a CSRF token: 403 while the session lives, then 401."""
    status = (await office.submit("/admin/logout", OWN, cookie)).status
    assert status in (401, 403)
    return status == 403


async def test_a_token_opens_a_session_and_sign_out_ends_it(office: Office) -> None:
    """Both lead to the page; the token is in no URL."""
    cookie = await office.signed_in()
    form = {"csrf": csrf(cookie)}
    out = await office.submit("/admin/logout", OWN, cookie, **form)
    assert (out.status, out.header("location")) == (303, "/admin")
    assert "Max-Age=0" in (out.header("set-cookie") or "")
    assert not await lives(office, cookie)
    again = await office.submit("/admin/logout", OWN, cookie, **form)
    assert (again.status, b"sign in" in again.body) == (401, True)


async def test_signing_in_again_ends_the_session_before(office: Office) -> None:
    """The browser forgets its cookie then, and nobody else shall use it."""
    cookie = await office.signed_in()
    again = await office.submit("/admin/login", OWN, cookie, token=office.admin)
    assert again.status == 303
    assert not await lives(office, cookie)
    fresh = ("Cookie", (again.header("set-cookie") or "").partition(";")[0])
    assert await lives(office, fresh)


async def test_a_failed_sign_in_ends_no_session(office: Office) -> None:
    """Nothing has changed."""
    cookie = await office.signed_in()
    assert (await office.submit("/admin/login", OWN, cookie, token="kr_x")).status == 401
    assert await lives(office, cookie)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/version", "GET, HEAD"),
        ("/admin/login", "GET, HEAD, POST"),
        ("/admin/keys/add", "GET, HEAD, POST"),
        ("/admin/keys/default", "POST"),
    ],
)
async def test_another_method_is_told_which_there_are(
    office: Office, path: str, allowed: str
) -> None:
    """All of this path, forms and pages alike (RFC 9110 section 10.2.1)."""
    answer = await call(office.up.url, "PUT", path)
    assert (answer.status, answer.header("allow")) == (405, allowed)


@pytest.mark.parametrize("path", ["/admin/", "/admin/login", "/admin/logout"])
async def test_who_comes_to_the_door_by_its_address_is_led_in(office: Office, path: str) -> None:
    """By typing it, or by loading the refusal of a sign-in again."""
    answer = await call(office.up.url, "GET", path)
    assert (answer.status, answer.header("location")) == (303, "/admin")


@pytest.mark.parametrize("text", ["", "x", "kr_wrong", "kr_000000000000_" + "0" * 38])
async def test_a_wrong_token_is_told_in_one_way(
    office: Office, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One sentence for every reason; neither answer nor log holds what was typed."""
    caplog.set_level(logging.DEBUG)
    answer = await office.submit("/admin/login", token=text)
    assert answer.status == 401
    assert b"No token like this is known here, or it is over." in answer.body
    assert answer.header("set-cookie") is None
    assert len(text) < 3 or text not in caplog.text + answer.body.decode()


async def test_only_admins_come_in(office: Office) -> None:
    """A token that may read reads by the API."""
    reader = await office.up.issue("rita", role="read")
    answer = await office.submit("/admin/login", token=reader)
    assert (answer.status, answer.header("set-cookie")) == (403, None)


@pytest.mark.parametrize(
    "headers",
    [
        (("Accept", "*/*"),),
        (EVIL,),
        (("Origin", "null"),),
        (OWN, ("Sec-Fetch-Site", "cross-site")),
        (OWN, EVIL),
        (OWN, ("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site")),
    ],
)
async def test_no_other_page_signs_in_or_out(
    office: Office, headers: tuple[tuple[str, str], ...]
) -> None:
    """By Origin and Sec-Fetch-Site, also with everything else right."""
    cookie = await office.signed_in()
    secret = csrf(cookie)
    assert (await office.submit("/admin/login", *headers, token=office.admin)).status == 403
    out = await office.submit("/admin/logout", *headers, cookie, csrf=secret)
    assert out.status == 403
    assert await lives(office, cookie)


async def test_a_change_needs_the_csrf_token_of_its_session(office: Office) -> None:
    """In the form or in a field; that of another session is none."""
    mine, other = await office.signed_in(), await office.signed_in()
    foreign = csrf(other)
    for members in ({}, {"csrf": ""}, {"csrf": "x"}, {"csrf": foreign}):
        assert (await office.submit("/admin/logout", OWN, mine, **members)).status == 403
    assert await lives(office, mine)
    field = ("X-CSRF-Token", csrf(mine))
    assert (await office.submit("/admin/logout", OWN, mine, field)).status == 303


async def test_forms_are_bounded_and_nothing_else_is_read(office: Office) -> None:
    """64 KiB, 100 members, one media type."""
    path = "/admin/login"
    large = urlencode({"token": "x" * 65536}).encode()
    many = urlencode([("a", "b")] * 101).encode()
    kinds = [(FORM, large), (FORM, many), (FORM, b"token=\xff"), (("Content-Type", "text/x"), b"")]
    answers = [await call(office.up.url, "POST", path, OWN, kind, body=b) for kind, b in kinds]
    assert [one.status for one in answers] == [413, 400, 400, 415]


async def test_the_cookie_opens_no_api(office: Office) -> None:
    """Only a page of ours, which has the CSRF token, changes something by it."""
    cookie = await office.signed_in()
    path = "/admin/api/v1/tenant"
    assert (await call(office.up.url, "GET", path, cookie)).status == 401


async def test_a_revoked_token_ends_its_sessions_within_a_second(tmp_path: Path) -> None:
    """Revoked by the command line, while the server runs."""
    data = tmp_path / "data"
    await command(data, "init")
    token = (await command(data, "token", "issue", "ada", "--role", "admin")).out.strip()
    async with served(data) as up:
        body = urlencode({"token": token}).encode()
        own = ("Origin", "http://relay.test")
        signed = await call(up.url, "POST", "/admin/login", FORM, own, body=body)
        cookie = ("Cookie", (signed.header("set-cookie") or "").partition(";")[0])

        async def leave() -> int:
            """403 while the session lives (there is no CSRF token), then 401."""
            return (await call(up.url, "POST", "/admin/logout", FORM, own, cookie, body=b"")).status

        assert (signed.status, await leave()) == (303, 403)
        assert (await command(data, "token", "revoke", "ada")).code == 0
        async with asyncio.timeout(20):  # a busy machine; the rule is a second
            while await leave() != 401:
                await asyncio.sleep(0.02)
    assert token not in "".join(up.said)


async def test_with_a_listener_of_its_own_administration_is_there_only(tmp_path: Path) -> None:
    """`server.admin_listen`: nothing of it on the usual port, and no calls on this one."""
    data = tmp_path / "data"
    await command(data, "init")
    (data / "keys.yaml").write_text("server: {admin_listen: '127.0.0.1:0'}\n")
    token = (await command(data, "token", "issue", "ada", "--role", "admin")).out.strip()
    bearer = ("Authorization", f"Bearer {token}")
    async with served(data) as up:
        [line] = [one for one in up.said if "admin on " in one]
        apart = line.partition("admin on ")[2].partition("/admin")[0]
        for path in ("/admin/api/v1/tenant", "/openapi.json"):
            assert (await call(up.url, "GET", path, bearer)).status == 404
            assert (await call(apart, "GET", path, bearer)).status == 200
        assert (await call(up.url, "POST", "/admin/login", bearer)).status == 404
        assert (await call(apart, "GET", "/proxy/openai/v1/models", bearer)).status == 404
        # our own listener is no place for a key
        target = f"/proxy?server={apart}/admin/api/v1/tenant&service=openai"
        assert (await call(up.url, "GET", target, bearer)).status == 403
