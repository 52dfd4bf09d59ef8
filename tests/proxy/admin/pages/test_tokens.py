"""The forms that issue, limit and revoke tokens: over real sockets, as a browser sends them."""

from __future__ import annotations

import asyncio
import html
import re
from pathlib import Path

import pytest

from proxy.admin.pages.limits import Limits
from proxy.errors import Unacceptable
from tests.proxy.admin.conftest import OWN, Office
from tests.support.caller import Answered, call
from tests.support.origin import Origin, json_reply
from tests.support.relay import running_relay
from vault import EVERY_CALL, Narrowing, Token

ISSUE = {"name": "bot", "role": "call", "days": ""}
KEY = "sk-0123456789-abcdefghijkl"


async def shown(office: Office, cookie: tuple[str, str], path: str) -> str:
    """A page of the admin's."""
    answer = await call(office.up.url, "GET", f"/admin{path}", cookie)
    return answer.body.decode()


async def sent(
    office: Office, cookie: tuple[str, str], path: str, csrf: str | None = None, **members: str
) -> Answered:
    """A form of the page that is open, with what stands hidden in it."""
    [own] = set(re.findall(r'name="csrf" value="([^"]+)"', await shown(office, cookie, "/tokens")))
    members = {**members, "csrf": own if csrf is None else csrf}
    return await office.submit(f"/admin/tokens/{path}", OWN, cookie, **members)


async def held(office: Office, name: str = "bot") -> Token:
    """A token as it is kept."""
    [found] = [one for one in await office.up.vault.list_tokens("default") if one.name == name]
    return found


async def test_a_token_is_issued_with_limits_and_a_budget(office: Office) -> None:
    """As people write them; kept, and shown in the list, in their canonical form."""
    cookie = await office.signed_in()
    said = {"limits": "1000 per day,60/minute", "upstream_limits": "openai=5/hours"}
    answer = await sent(office, cookie, "issue", **ISSUE, **said, budget="20000", calls="1500")
    assert (answer.status, answer.header("cache-control")) == (200, "no-store")
    kept = await held(office)
    assert kept.limits == ("60/minute", "1000/day")
    assert (kept.upstream_limits, kept.budget) == (("openai=5/hour",), 20_000)
    assert kept.calls == 1500
    page = await shown(office, cookie, "/tokens")
    for words in ("60/minute", "openai=5/hour upstream", "20,000 upstream calls a month"):
        assert words in page
    assert "1,500 calls in all" in page
    form = await shown(office, cookie, f"/tokens/limits?id={kept.id}")
    assert 'value="60/minute, 1000/day"' in form and 'value="20000"' in form
    assert 'value="1500"' in form
    await sent(office, cookie, "limits", id=kept.id, calls="7")
    assert (await held(office)).calls == 7


async def test_limits_are_changed_and_what_is_as_it_was_is_no_change(office: Office) -> None:
    """One entry of the audit log for each change, and none for a form sent as it was."""
    await office.up.issue("bot", limits=("60/minute",), budget=7)
    cookie, token = await office.signed_in(), await held(office)

    async def set_to(**members: str) -> tuple[tuple[str, ...], tuple[str, ...], int | None]:
        answer = await sent(office, cookie, "limits", id=token.id, **members)
        where = f"/admin/tokens?done=limits&id={token.id}"
        assert (answer.status, answer.header("location")) == (303, where)
        now = await held(office)
        return now.limits, now.upstream_limits, now.budget

    same = {"limits": "60/minute", "upstream_limits": "", "budget": "7"}
    assert await set_to(**same) == (("60/minute",), (), 7)
    other = await set_to(**{**same, "upstream_limits": "9/hour; 2/minute"})
    assert other == (("60/minute",), ("2/minute", "9/hour"), 7)
    assert await set_to(limits="", upstream_limits="", budget="") == ((), (), None)
    done = [one.action for one in await office.up.vault.audit(10, tenant="default")]
    assert done.count("token set") == 2
    bounds = {"hosts": "API.openai.com", "paths": "/v1/chat, /v1/models", "methods": "post"}
    await set_to(**bounds, origins="https://app.example.com")
    only = Narrowing(
        ("api.openai.com",), ("/v1/chat", "/v1/models"), ("POST",), ("https://app.example.com",)
    )
    assert (await held(office)).narrowing == only
    page = await shown(office, cookie, "/tokens")
    assert "only /v1/chat, /v1/models" in page
    await set_to(hosts="", paths="", methods="", origins="")
    assert (await held(office)).narrowing == EVERY_CALL
    assert "Limits and bounds are set" in await shown(office, cookie, "/tokens?done=limits")


async def test_a_limit_that_is_set_holds_within_a_second(tmp_path: Path) -> None:
    """And one that is taken away holds no more; the answer of a call tells."""
    async with (
        Origin(json_reply({})) as origin,
        running_relay(tmp_path / "data", {"openai": {"origin": origin.url}}) as up,
    ):
        await up.add_key("openai", key=KEY)
        text = await up.issue("bot", limits=("50/minute",))
        office = Office(up, await up.issue("ada", role="admin"))
        cookie, token = await office.signed_in(), await held(office)

        async def policy() -> str | None:
            path, bearer = "/proxy/openai/v1/models", ("Authorization", f"Bearer {text}")
            return (await call(up.url, "GET", path, bearer)).header("ratelimit-policy")

        assert "q=50" in (await policy() or "")
        for limits, said in (("70/minute", '"token-minute";q=70;w=60'), ("", None)):
            assert (await sent(office, cookie, "limits", id=token.id, limits=limits)).status == 303
            async with asyncio.timeout(20):  # a busy machine; the rule is a second
                while await policy() != said:
                    await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("member", "typed", "words"),
    [
        ("limits", "often", "Expected a limit such as 60/minute"),
        ("limits", "1/minute, 2/minute", "Expected one limit for each period"),
        ("upstream_limits", "openia=1/minute", "No service has this name"),
        ("limits", "9" * 200, "Write limits such as 60/minute"),
        ("limits", ",".join(f"{n}/{n} minutes" for n in range(1, 70)), "at most 64"),
        ("budget", "lots", "Write the budget as a number"),
        ("budget", "٣", "Write the budget as a number"),
        ("budget", "9" * 16, "A budget is a number of calls"),
        ("calls", "-1", "Write the calls as a number"),
        ("calls", "0", "A token is for a number of calls in all from 1"),
        ("calls", "9" * 16, "A token is for a number of calls in all from 1"),
    ],
)
async def test_what_is_no_limit_is_said_above_the_form(
    office: Office, member: str, typed: str, words: str
) -> None:
    """Both forms keep what was typed, and nothing is issued or changed."""
    cookie, ada = await office.signed_in(), await held(office, "ada")
    for path, form in (("issue", ISSUE), ("limits", {"id": ada.id})):
        answer = await sent(office, cookie, path, **form, **{member: typed})
        page = html.unescape(answer.body.decode())
        assert (words in page, typed in page) == (True, True)
        assert answer.status == (404 if member == "upstream_limits" else 422)
    assert await held(office, "ada") == ada
    assert len(await office.up.vault.list_tokens("default")) == 2


async def test_a_token_says_which_of_several_keys_it_uses(office: Office) -> None:
    """Asked only where there are several; nothing chosen means the default."""
    for alias in ("default", "work"):
        await office.up.add_key("openai", alias=alias, key=KEY + alias)
    await office.up.add_key("anthropic", key=KEY)
    cookie = await office.signed_in()
    page = await shown(office, cookie, "/tokens/issue")
    assert re.findall(r'name="(key:[^"]+)"', page) == ["key:openai"]
    await sent(office, cookie, "issue", **ISSUE, **{"key:openai": "work"})
    await sent(office, cookie, "issue", **{**ISSUE, "name": "other"}, **{"key:openai": ""})
    assert (await held(office)).key_aliases == {"openai": "work"}
    assert (await held(office, "other")).key_aliases == {}


@pytest.mark.parametrize("name", ['"><script>alert(1)</script>', "<b>x</b>", "a b", ""])
async def test_a_name_with_markup_is_refused_and_shown_as_text(office: Office, name: str) -> None:
    """In the sentence and in the field that keeps it."""
    cookie = await office.signed_in()
    answer = await sent(office, cookie, "issue", **{**ISSUE, "name": name})
    page = answer.body.decode()
    assert (answer.status, page.count("<script"), "<b>x" in page) == (422, 4, False)
    assert f'name="name" value="{html.escape(name)}"' in page.replace("&#34;", "&quot;")


async def test_a_token_is_no_name(office: Office) -> None:
    """It would stand in every list and in the log."""
    cookie = await office.signed_in()
    answer = await sent(office, cookie, "issue", **{**ISSUE, "name": office.admin})
    assert (answer.status, b"not a token" in answer.body) == (422, True)
    assert [one.name for one in await office.up.vault.list_tokens("default")] == [
        "everything",
        "ada",
    ]


async def test_a_token_that_is_over_or_somebody_elses_has_no_forms(office: Office) -> None:
    """One page for each reason, and nothing is changed."""
    await office.up.issue("bot")
    await office.up.issue("stranger", tenant="other")
    gone = await office.up.vault.revoke_token("default", "bot")
    [foreign] = await office.up.vault.list_tokens("other")
    cookie = await office.signed_in()
    for one in (gone.id, foreign.id, "", "x"):
        for path in ("limits", "revoke"):
            answer = await call(office.up.url, "GET", f"/admin/tokens/{path}?id={one}", cookie)
            assert (answer.status, b"no such token any more" in answer.body) == (404, True)
            assert (await sent(office, cookie, path, id=one, limits="1/day")).status == 404
    assert (await office.up.vault.list_tokens("other")) == [foreign]


@pytest.mark.parametrize("csrf", ["", "x", "0" * 64])
async def test_a_form_that_is_not_of_this_session_is_refused_clearly(
    office: Office, csrf: str
) -> None:
    """403, with what to do; nothing is issued, limited or revoked."""
    await office.up.issue("bot")
    cookie, token = await office.signed_in(), await held(office)
    forms = {"issue": {**ISSUE, "name": "new"}, "limits": {"limits": "1/day"}, "revoke": {}}
    for path, members in forms.items():
        answer = await sent(office, cookie, path, csrf, id=token.id, **members)
        page = answer.body.decode()
        assert (answer.status, "The page is out of date: load it again" in page) == (403, True)
    assert await held(office) == token
    assert len(await office.up.vault.list_tokens("default")) == 3


async def test_of_very_many_tokens_the_newest_are_listed(office: Office) -> None:
    """The others are found by a part of the name, in any case of letters; revoked ones apart."""
    cookie = await office.signed_in()
    assert 'name="name"' not in await shown(office, cookie, "/tokens")
    for number in range(203):
        await office.up.issue(f"robot-{number}")
    await office.up.vault.revoke_token("default", "robot-202")
    page = await shown(office, cookie, "/tokens")
    assert "The newest 200 of 205." in page and "1 revoked or expired" in page
    assert page.count('scope="row"') == 200 and "everything" not in page
    page = await shown(office, cookie, "/tokens?name=Every")
    assert page.count('scope="row"') == 1 and "everything" in page
    page = await shown(office, cookie, "/tokens?name=%22%3E%3Cb%3Ex")
    assert "No token that can be used has this in its name." in page and "<b>x" not in page


def test_limits_in_words() -> None:
    """One line each; nothing where there is none."""
    assert Limits((), (), None, None, EVERY_CALL).words == ()
    only = Narrowing(methods=("GET", "PUT"))
    assert Limits(("1/day",), ("openai=2/day",), 1, 1, only).words == (
        "1/day",
        "openai=2/day upstream",
        "1 upstream call a month",
        "1 call in all",
        "only GET, PUT",
    )
    assert Limits((), (), 0, None, EVERY_CALL).words == ("0 upstream calls a month",)
    with pytest.raises(Unacceptable):
        Limits.said({"budget": "-1"})
