"""Platform tokens: issued once, listed without what opens them, revoked for good."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock

import pytest

from proxy.clock import SystemClock
from tests.proxy.cli.conftest import CANARY, Terminal
from tests.support.clock import FakeClock
from vault import StoreUnavailable, Token, open_vault
from vault.anchor import Anchor, Point


def verified(relay: Terminal, text: str) -> Token | None:
    async def verify() -> Token | None:
        vault = await open_vault(relay.data, {}, SystemClock())
        try:
            return await vault.verify_token(text.encode())
        finally:
            await vault.close()

    return asyncio.run(verify())


def test_a_token_is_one_line_on_standard_output(relay: Terminal) -> None:
    """`TOKEN=$(keyrelay token issue ann)`; what is said to people goes elsewhere."""
    said = relay.run("token", "issue", "ann")
    assert said.out.startswith("kr_")
    assert said.out.count("\n") == 1
    assert "only time" in said.err
    token = verified(relay, said.out.strip())
    assert token is not None
    assert (token.name, token.tenant, token.role, token.services) == (
        "ann",
        "default",
        "call",
        None,
    )


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), BrokenPipeError()])
def test_a_token_that_nobody_saw_is_over(
    relay: Terminal, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """`keyrelay token issue ann > /dev/full`: it is shown once, so this once must arrive."""

    def refuse(*_: object) -> None:
        raise error

    with monkeypatch.context() as full:
        full.setattr("proxy.cli.token.show_done", refuse)
        err = relay.run("token", "issue", "ann", code=1).err
    assert err.endswith("nobody can have read the token, so it is revoked: issue another one\n")
    assert [row["state"] for row in relay.run("token", "list").rows] == ["revoked"]
    relay.run("token", "issue", "ann")


def test_a_change_stands_that_the_anchor_does_not_know_of(
    relay: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said, and the token's text is shown: nobody gets it a second time."""
    advance, lost = Anchor.advance, StoreUnavailable("the anchor can't be used")

    def once(anchor: Anchor, point: Point, seal: bytes) -> None:
        monkeypatch.setattr(Anchor, "advance", Mock(side_effect=lost))
        advance(anchor, point, seal)

    monkeypatch.setattr(Anchor, "advance", once)
    said = relay.run("token", "issue", "ann")
    assert "keyrelay: what was changed stands, but the anchor can't be used\n" in said.err
    monkeypatch.undo()
    assert verified(relay, said.out.strip()) is not None


def test_a_leaked_token_is_revoked_whatever_is_wrong_with_the_configuration(
    relay: Terminal,
) -> None:
    """So are keys and backends removed; only what adds something waits for the mending."""
    text = relay.run("token", "issue", "ann").out.strip()
    (relay.data / "keys.yaml").write_text("server: {prot: 8000}\n")
    assert relay.run("token", "issue", "bob", code=1).out == ""
    assert [row["name"] for row in relay.run("token", "list").rows] == ["ann"]
    assert "keyrelay check" in relay.run("token", "revoke", "ann").err
    assert verified(relay, text) is None


def test_a_token_is_narrowed_when_it_is_issued(relay: Terminal) -> None:
    """To services (an alias means its service), to one key each, to a role, a tenant and a time."""
    relay.run("key", "add", "openai", "--alias", "work", "--tenant", "t", stdin=CANARY)
    words = ("--service", "openai", "--service", "gemini", "--key", "openai=work", "--tenant", "t")
    said = relay.run(
        "token", "issue", "bob", *words, "--role", "admin", "--expires", "30d", "--json"
    ).json
    assert said["services"] == ["google-gemini", "openai"]
    assert said["keys"] == ["openai=work"]
    token = verified(relay, said["token"])
    assert token is not None
    assert token.expires_at is not None
    assert token.expires_at - token.created_at == pytest.approx(30 * 86400, abs=60)


def test_a_token_for_a_key_that_is_not_there_names_the_remedy(relay: Terminal) -> None:
    """A mistyped alias would show only when somebody calls."""
    err = relay.run("token", "issue", "bob", "--key", "openai=work", code=1).err
    assert err.endswith("keyrelay key add openai --alias work\n")
    words = ("token", "issue", "bob", "--key", "openai=work", "--tenant", "lab")
    assert relay.run(*words, code=1).err.endswith("--alias work --tenant lab\n")
    assert relay.run("token", "list").rows == []


def test_a_list_never_holds_what_opens(relay: Terminal) -> None:
    """Ids and names only."""
    text = relay.run("token", "issue", "ann").out.strip()
    said = relay.run("token", "list", "--json")
    assert text not in said.out
    assert text.rpartition("_")[2] not in said.out
    [row] = said.json
    assert (row["name"], row["state"], row["services"]) == ("ann", "good", "all")


@pytest.mark.parametrize("by", ["name", "id"])
def test_a_token_is_revoked_by_name_or_id(relay: Terminal, by: str) -> None:
    """It stays in the list, and opens nothing."""
    text = relay.run("token", "issue", "ann").out.strip()
    [row] = relay.run("token", "list", "--json").json
    relay.run("token", "revoke", row[by])
    assert relay.run("token", "list").rows[0]["state"] == "revoked"
    assert verified(relay, text) is None
    relay.run("token", "revoke", "nobody", code=1)


@pytest.mark.parametrize(
    "when", ["2001-01-01", "tomorrow", "0d", "-5d", "9" * 15 + "d", "2030-13-01"]
)
def test_an_expiry_lies_ahead(relay: Terminal, when: str) -> None:
    """Durations from now, or dates."""
    err = relay.run("token", "issue", "ann", f"--expires={when}", code=2).err
    assert "--expires: expected" in err


def test_an_expiry_can_be_a_date(relay: Terminal) -> None:
    """In UTC, unless the text says otherwise."""
    for name, when, shown in (
        ("a", "2099-01-31", "2099-01-31T00:00:00Z"),
        ("b", "2099-01-31T12:00:00+02:00", "2099-01-31T10:00:00Z"),
    ):
        said = relay.run("token", "issue", name, "--expires", when, "--json").json
        assert said["expires"] == shown


def test_an_expired_token_is_listed_as_such(relay: Terminal) -> None:
    """State is what a caller would meet."""
    relay.clock = clock = FakeClock()
    relay.run("token", "issue", "ann", "--expires", "30d")
    clock.advance(30 * 86400 - 1)
    assert relay.run("token", "list").rows[0]["state"] == "good"
    clock.advance(1)
    assert relay.run("token", "list").rows[0]["state"] == "expired"


LIMITED = ("--limit", "1000 per day", "--limit", "60/minute", "--upstream-limit", "gemini=5/hour")


def test_a_token_is_issued_with_limits(relay: Terminal) -> None:
    """In the order of their periods, a service by its own name; in the list and as JSON."""
    said = relay.run("token", "issue", "ann", *LIMITED, "--budget", "5000", "--json").json
    assert said["limits"] == ["60/minute", "1000/day"]
    assert said["upstream_limits"] == ["google-gemini=5/hour"]
    assert said["budget"] == 5000
    token = verified(relay, said["token"])
    assert token is not None
    assert (token.limits, token.budget) == (("60/minute", "1000/day"), 5000)
    [row] = relay.run("token", "list").rows
    assert (row["limits"], row["upstream limits"]) == (
        "60/minute, 1000/day",
        "google-gemini=5/hour",
    )
    assert row["budget"] == "5000"


def test_a_token_is_issued_for_so_many_calls(relay: Terminal) -> None:
    """In all; shown in the list, changed later, and taken away."""
    said = relay.run("token", "issue", "ann", "--calls", 3, "--json").json
    token = verified(relay, said["token"])
    assert token is not None
    assert (said["calls"], token.calls) == (3, 3)
    [row] = relay.run("token", "list").rows
    assert row["calls"] == "3"
    said = relay.run("token", "set", "ann", "--calls", 10**15)
    assert said.out.endswith("of tenant default: calls 1000000000000000\n")
    row = relay.run("token", "set", "ann", "--calls", "none", "--json").json
    assert row["calls"] is None
    relay.run("token", "issue", "bob", "--calls", "none")
    assert [one["calls"] for one in relay.run("token", "list").rows] == ["-", "-"]


def test_limits_can_be_set_later(relay: Terminal) -> None:
    """What is not named stays; `none` takes away."""
    relay.run("token", "issue", "ann", *LIMITED)
    said = relay.run("token", "set", "ann", "--limit", "9/second", "--budget", 7)
    assert said.out.endswith(
        "of tenant default: 9/second, upstream google-gemini=5/hour, budget 7\n"
    )
    words = ("--limit", "none", "--upstream-limit", "none", "--budget", "none")
    said = relay.run("token", "set", "ann", *words)
    assert said.out.endswith(": no limits of its own\n")
    row = relay.run("token", "set", "ann", "--budget", 0, "--json").json
    assert (row["limits"], row["upstream_limits"], row["budget"]) == ([], [], 0)
    err = relay.run("token", "set", "bob", "--budget", 1, code=1).err
    assert err.endswith("keyrelay token list\n")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--limit", "60"], "expected a limit such as 60/minute"),
        (["--limit", "60/fortnight"], "a unit is one of second, minute, hour, day, week, month"),
        (["--upstream-limit", "Open AI=1/day"], "openai=60/minute for one service"),
        (["--limit", "1/minute", "--limit", "2/minute"], "expected one limit for each period"),
        (["--limit", "1/minute", "--limit", "none"], "leave it out to set others"),
        (["--budget", "-1"], "expected a number of calls such as 5000, or none"),
        (["--budget", "9" * 17], "expected a number of calls such as 5000, or none"),
        (["--budget", str(2**31)], "expected a number of calls such as 5000, or none"),
        *(
            (["--calls", number], "expected a number of calls such as 5000, or none")
            for number in ("0", "-1", "1e6", "1.5", "٣", "", str(2**63), str(10**15 + 1))
        ),
        ([], "say what changes: --limit, --upstream-limit, --budget, --calls, --host, --path"),
        (["--host", "https://a.example"], "expected a host such as api.openai.com"),
        (["--path", "/a/../b"], "expected a path such as /v1/chat"),
        (["--method", "CONNECT"], "expected a method such as GET or POST"),
        (["--origin", "*"], "expected exact origins"),
        (["--path", "/a", "--path", "none"], "--path none takes all away"),
    ],
)
def test_a_limit_that_is_none_is_refused(relay: Terminal, words: list[str], expected: str) -> None:
    """With what was expected, and nothing is changed."""
    relay.run("token", "issue", "ann")
    assert expected in relay.run("token", "set", "ann", *words, code=2).err
    assert relay.run("token", "list").rows[0]["limits"] == "-"


def test_a_limit_for_no_service_is_refused(relay: Terminal) -> None:
    """It would never count anything."""
    relay.run("token", "issue", "ann")
    assert "nosuch" not in relay.run("token", "list").out
    relay.run("token", "set", "ann", "--limit", "nosuch=1/day", code=1)


def test_a_token_is_narrowed_and_opened_again(relay: Terminal) -> None:
    """To hosts, paths, methods and origins; in canonical form, and shown in the list."""
    bounds = ("--host", "API.openai.com", "--path", "/v1/chat", "--method", "post")
    page = "https://app.example.com"
    issued = relay.run("token", "issue", "ann", *bounds, "--origin", page, "--json").json
    shown = ["host api.openai.com", "path /v1/chat", "method POST", f"origin {page}"]
    assert issued["only"] == shown
    assert relay.run("token", "list", "--json").json[0]["only"] == shown
    said = relay.run("token", "set", "ann", "--path", "/v1/models", "--origin", "none").out
    assert "host api.openai.com, path /v1/models, method POST" in said
    all_of_them = ("--host", "none", "--path", "none", "--method", "none")
    assert relay.run("token", "set", "ann", *all_of_them, "--json").json["only"] == []
