"""The admin API over real sockets: what it does, for whom, and what it never tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from proxy.admin.operations import OPERATIONS
from tests.proxy.admin.conftest import Office, bearer
from tests.support.caller import call
from tests.support.relay import running_relay

KEY = "sk-0123456789-abcdefghijkl"
SECOND = "sk-9876543210-zyxwvutsrqpo"


def filled(path: str) -> str:
    return path.format(service="openai", alias="default", id="0" * 12)


# Keys.


async def test_a_key_is_added_masked_rotated_and_removed(office: Office) -> None:
    """Its value goes in and never comes out; calls see each change at once."""
    added = await office.ask("POST", "/keys", {"service": "openai", "value": KEY})
    rotated = await office.ask("POST", "/keys/openai/default/rotate", {"value": SECOND})
    listed = await office.ask("GET", "/keys")
    assert (added.status, added.json()["masked"]) == (201, "…ijkl")
    assert (rotated.status, rotated.json()["version"]) == (200, 2)
    assert [one["masked"] for one in listed.json()["items"]] == ["…rqpo"]
    [ref] = (await office.up.vault.holdings("default")).keys["openai"]
    held = await office.up.vault.open_key(ref)
    assert held["key"].reveal() == SECOND.encode()
    assert (await office.ask("DELETE", "/keys/openai/default")).status == 204
    assert (await office.ask("GET", "/keys")).json() == {"items": [], "next": None}


async def test_one_of_several_keys_is_the_default(office: Office) -> None:
    """The first, until another is made it."""
    for alias, value in (("default", KEY), ("work", SECOND)):
        await office.ask("POST", "/keys", {"service": "openai", "alias": alias, "value": value})
    assert (await office.ask("POST", "/keys/openai/work/default")).status == 204
    listed = (await office.ask("GET", "/keys")).json()["items"]
    assert {one["alias"]: one["default"] for one in listed} == {"work": True, "default": False}


async def test_a_key_of_several_parts_comes_by_part(office: Office) -> None:
    """As many as the service asks for, no more and no fewer."""
    parts = (await office.ask("GET", "/services/twilio")).json()["parts"]
    values = {one["name"]: f"{one['name']}-0123456789abcdef" for one in parts}
    assert len(values) > 1
    good = await office.ask("POST", "/keys", {"service": "twilio", "values": values})
    bad = await office.ask("POST", "/keys", {"service": "twilio", "value": KEY, "alias": "b"})
    assert (good.status, bad.status) == (201, 422)
    assert "parts" in bad.json()["detail"]


# Tokens.


async def test_a_token_is_shown_once_and_opens_what_it_says(office: Office) -> None:
    """And no more from the moment it is revoked."""
    await office.ask("POST", "/keys", {"service": "openai", "value": KEY})
    wanted = {
        "name": "bob",
        "services": ["openai"],
        "keys": {"openai": "default"},
        "expires": "2099-01-01T00:00:00+02:00",
    }
    issued = await office.ask("POST", "/tokens", wanted)
    assert issued.status == 201
    assert issued.header("cache-control") == "no-store"
    text, token_id = issued.json()["token"], issued.json()["id"]
    token = await office.up.vault.verify_token(text.encode())
    assert token is not None
    assert (token.name, token.services) == ("bob", frozenset({"openai"}))
    assert dict(token.key_aliases) == {"openai": "default"}
    listed = await office.ask("GET", "/tokens")
    assert text not in listed.body.decode()
    [mine] = [one for one in listed.json()["items"] if one["id"] == token_id]
    assert (mine["state"], mine["expires"]) == ("good", "2098-12-31T22:00:00Z")
    revoked = await office.ask("DELETE", f"/tokens/{token_id}")
    assert (revoked.status, revoked.json()["state"]) == (200, "revoked")
    assert await office.up.vault.verify_token(text.encode()) is None


async def test_a_token_for_an_absent_key_is_not_issued(office: Office) -> None:
    """It would be of no use, and surprise when such a key is added."""
    wanted = {"name": "bob", "keys": {"openai": "work"}}
    answer = await office.ask("POST", "/tokens", wanted)
    assert (answer.status, answer.json()["detail"]) == (
        404,
        "There is no key openai/work yet; add it first.",
    )


async def test_a_tokens_limits_are_set_with_it_and_later(office: Office) -> None:
    """In canonical form; what is not named stays, null takes a budget away."""
    limits = ["60 per minute", "openai=9/day"]
    wanted = {"name": "bob", "limits": limits, "budget": 100, "calls": 9}
    issued = (await office.ask("POST", "/tokens", wanted)).json()
    assert (issued["limits"], issued["budget"]) == (["60/minute", "openai=9/day"], 100)
    path = f"/tokens/{issued['id']}"
    changed = await office.ask("PATCH", path, {"upstream_limits": ["5/hour"], "budget": None})
    assert changed.status == 200
    assert changed.json()["limits"] == ["60/minute", "openai=9/day"]
    assert (changed.json()["upstream_limits"], changed.json()["budget"]) == (["5/hour"], None)
    said = [issued["calls"], changed.json()["calls"]]
    for calls in (10, 10**15, None):
        said.append((await office.ask("PATCH", path, {"calls": calls})).json()["calls"])
    assert said == [9, 9, 10, 10**15, None]
    for bad in ({}, {"limits": ["often"]}, {"limits": ["1/day", "2/day"]}, {"budget": 0}):
        assert (await office.ask("PATCH", path, bad)).status == 422
    for calls in (0, -1, "5", 1.5, 10**15 + 1, 2**63, True):
        assert (await office.ask("PATCH", path, {"calls": calls})).status == 422
    unknown = await office.ask("PATCH", path, {"limits": ["none-such=1/day"]})
    assert unknown.status == 404


async def test_a_token_is_narrowed_with_it_and_later(office: Office) -> None:
    """To hosts, paths, methods, origins; an empty list opens it again."""
    bounds = {"hosts": ["API.openai.com"], "paths": ["/v1"], "methods": ["get"], "origins": []}
    issued = (await office.ask("POST", "/tokens", {"name": "bob", **bounds})).json()
    found = {name: issued[name] for name in bounds}
    assert found == {**bounds, "hosts": ["api.openai.com"], "methods": ["GET"]}
    path = f"/tokens/{issued['id']}"
    changed = (await office.ask("PATCH", path, {"paths": [], "origins": ["https://a.b"]})).json()
    assert (changed["paths"], changed["hosts"]) == ([], ["api.openai.com"])
    assert changed["origins"] == ["https://a.b"]
    for bad in ({"hosts": ["a/b"]}, {"paths": ["x"]}, {"methods": ["TRACE"]}, {"origins": ["*"]}):
        refused = await office.ask("PATCH", path, bad)
        assert refused.status == 422 and "xpected" in refused.json()["detail"]


async def test_a_narrowed_token_administers_nothing(office: Office) -> None:
    """It would hand out what it does not have; and none locks itself out."""
    [mine] = [one for one in await office.up.vault.list_tokens() if one.role == "admin"]
    refused = await office.ask("PATCH", f"/tokens/{mine.id}", {"hosts": ["a.example"]})
    assert refused.status == 409
    await office.up.vault.change_token("default", mine.id, {"methods": ("GET",)})
    refused = await office.ask("GET", "/tokens")
    assert refused.status == 403 and "narrowed" in refused.json()["detail"]


async def test_no_admin_saws_off_the_branch(office: Office) -> None:
    """The token that asks is revoked by another one only."""
    token = await office.up.vault.verify_token(office.admin.encode())
    assert token is not None
    assert (await office.ask("DELETE", f"/tokens/{token.id}")).status == 409


# Backends, services, cache, audit.


async def test_a_backend_is_registered_and_taken_back(office: Office) -> None:
    """In its canonical form; twice is once too often."""
    place = {"service": "openai", "url": "http://10.0.0.5:80/v1"}
    statuses = [(await office.ask("POST", "/backends", place)).status for _ in range(2)]
    [listed] = (await office.ask("GET", "/backends")).json()["items"]
    assert statuses == [201, 409]
    assert listed == {"service": "openai", "url": "http://10.0.0.5/v1", "owner": "vault"}
    gone = "/backends?service=openai&url=http%3A%2F%2F10.0.0.5%2Fv1"
    assert [(await office.ask("DELETE", gone)).status for _ in range(2)] == [204, 404]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://169.254.169.254/v1", "Nothing is ever sent to this address"),
        ("ftp://10.0.0.5/", "http"),
        ("http://user:word@10.0.0.5/", "user"),
    ],
)
async def test_what_is_no_place_is_refused(office: Office, url: str, said: str) -> None:
    """Judged as on the command line."""
    answer = await office.ask("POST", "/backends", {"service": "openai", "url": url})
    assert answer.status == 422
    assert said in answer.json()["detail"]


async def test_services_are_found_by_text_and_by_name(office: Office) -> None:
    """Aliases too; what is near is proposed."""
    found = await office.ask("GET", "/services?text=openai")
    assert "openai" in [one["name"] for one in found.json()["items"]]
    missing = await office.ask("GET", "/services/openay")
    assert missing.status == 404
    assert "did you mean openai" in missing.json()["detail"]


async def test_a_purge_is_counted_from_now(office: Office) -> None:
    """And is in the audit log, where whoever did it stands with the name of the token."""
    assert (await office.ask("GET", "/cache")).json() == {
        "answers": 0,
        "bytes": 0,
        "by_service": [],
    }
    purged = await office.ask("POST", "/cache/purge", {"service": "openai"})
    assert (purged.status, purged.json()["service"]) == (200, "openai")
    [last] = (await office.ask("GET", "/audit?limit=1")).json()["items"]
    assert (last["actor"], last["action"], last["subject"]) == (
        "token ada",
        "cache purge",
        "openai",
    )


async def test_usage_is_that_of_the_tenant(office: Office) -> None:
    """By service, day and token; other tenants' calls are none of it."""
    eve = await office.up.issue("eve", tenant="other")
    for token in (office.admin, eve):
        await call(office.up.url, "GET", "/proxy/openai/v1/models", bearer(token))
    used = (await office.ask("GET", "/usage")).json()
    assert (used["tenant"], used["total"]["calls"]) == ("default", 1)
    assert [one["token"] for one in used["tokens"]] == ["ada"]
    past = (await office.ask("GET", "/usage?from=2001-01-01&to=2001-01-31&service=openai")).json()
    assert (past["from"], past["to"], past["total"]["calls"]) == ("2001-01-01", "2001-01-31", 0)


@pytest.mark.parametrize("said", ["from=x", "from=2001-02-30", "to=0001-01-01", "from=9000-01-01"])
async def test_days_are_dates_in_order(office: Office, said: str) -> None:
    """From one that is not behind the other."""
    answer = await office.ask("GET", f"/usage?{said}")
    assert answer.status == 422


async def test_where_nothing_is_counted_there_is_no_usage(tmp_path: Path) -> None:
    """Said with the setting that does it."""
    async with running_relay(tmp_path / "data", settings="usage: {enabled: false}\n") as up:
        office = Office(up, await up.issue("ada", role="admin"))
        answer = await office.ask("GET", "/usage")
    assert (answer.status, "usage.enabled" in answer.json()["detail"]) == (404, True)


async def test_health_is_that_of_the_tenants_services(office: Office) -> None:
    """Those with a key; nothing is known of what nobody has called."""
    await office.ask("POST", "/keys", {"service": "openai", "value": KEY})
    [one] = (await office.ask("GET", "/health")).json()["services"]
    assert (one["service"], one["healthy"], one["places"]) == ("openai", None, [])


# Lists.


async def parts(office: Office, path: str) -> list[list[dict[str, Any]]]:
    found, after = [], ""
    while True:
        page = (await office.ask("GET", f"{path}?limit=2{after}")).json()
        found.append(page["items"])
        if page["next"] is None:
            return found
        after = f"&after={page['next']}"


@pytest.mark.parametrize("path", ["/tokens", "/audit"])
async def test_a_list_comes_in_parts(office: Office, path: str) -> None:
    """Each row once, in one order, to the end."""
    for name in ("a", "b", "c"):
        await office.up.issue(name)
    whole = (await office.ask("GET", path)).json()["items"]
    pages = await parts(office, path)
    assert [one for page in pages for one in page] == whole
    assert {len(page) for page in pages[:-1]} == {2}


async def test_changes_are_found_by_who_made_them_when_and_what(office: Office) -> None:
    """All that is named must hold; nothing else is a filter, and no other tenant's is seen."""
    for body in ({"name": "one"}, {"name": "two"}):
        assert (await office.ask("POST", "/tokens", body)).status == 201
    whole = (await office.ask("GET", "/audit")).json()["items"]
    [actor] = {one["actor"] for one in whole[:2]}
    for query, wanted in (
        (f"actor={quote(actor)}&action=token", whole[:2]),
        ("action=token+issue&limit=1", whole[:1]),
        ("actor=nobody", []),
        ("action=tok", []),
        ("since=2999-01-01T00:00:00Z", []),
        ("since=1999-01-01T00:00:00Z&limit=500", whole),
    ):
        answer = await office.ask("GET", f"/audit?{query}")
        assert answer.json()["items"] == wanted
    for query in ("tenant=other", "since=1999-01-01T00:00:00", "action=%27", "actor="):
        assert (await office.ask("GET", f"/audit?{query}")).status == 422


async def test_a_part_behind_what_is_gone_is_refused(office: Office) -> None:
    """Rather than to begin anew, silently."""
    answer = await office.ask("GET", f"/tokens?after={'0' * 16}")
    assert answer.status == 422
    assert "begin the list again" in answer.json()["detail"]


# Who may.


async def refused(office: Office, token: str, *headers: tuple[str, str]) -> dict[str, int]:
    """The status of each operation, with a body that would be refused too."""
    return {
        f"{one.method} {one.path}": (
            await office.ask(one.method, filled(one.path), b"{", *headers, token=token)
        ).status
        for one in OPERATIONS
    }


@pytest.mark.parametrize("token", ["", "kr_x", "kr_000000000000_" + "0" * 38])
async def test_without_a_good_token_nothing_is_done(office: Office, token: str) -> None:
    """One 401, before everything else."""
    assert set((await refused(office, token)).values()) == {401}


async def test_callers_and_admins_of_some_services_may_nothing(office: Office) -> None:
    """What the second could issue would be more than it has."""
    caller = await office.up.issue("carl", role="call")
    some = await office.up.issue("sam", role="admin", services=frozenset({"openai"}))
    assert set((await refused(office, caller)).values()) == {403}
    assert set((await refused(office, some)).values()) == {403}


async def test_readers_may_get(office: Office) -> None:
    """And nothing else."""
    statuses = await refused(office, await office.up.issue("rita", role="read"))
    assert {name for name, status in statuses.items() if status == 403} == {
        f"{one.method} {one.path}" for one in OPERATIONS if one.method != "GET"
    }


async def test_pages_of_other_origins_are_refused(office: Office) -> None:
    """Whatever token they hold, and without a CORS field that would let them read the refusal."""
    foreign = ("Origin", "https://evil.example")
    assert set((await refused(office, office.admin, foreign)).values()) == {403}
    answer = await office.ask("GET", "/keys", None, foreign)
    assert not [name for name, _ in answer.headers if name.lower().startswith("access-control")]


async def test_our_own_origin_and_every_token_slot_are_taken(office: Office) -> None:
    """The contract's section 3, without the slots of providers."""
    own = ("Origin", "http://relay.test")
    assert (await office.ask("GET", "/tenant", None, own)).status == 200
    path = "/admin/api/v1/tenant"
    for slot in (
        ("X-Relay-Token", office.admin),
        ("Proxy-Authorization", f"Bearer {office.admin}"),
    ):
        assert (await call(office.up.url, "GET", path, slot)).status == 200
    two = (bearer(office.admin), bearer(office.admin))
    assert (await call(office.up.url, "GET", path, *two)).status == 400
    assert (await call(office.up.url, "GET", path, ("x-api-key", office.admin))).status == 401


async def test_a_tenant_sees_and_changes_its_own_only(office: Office) -> None:
    """Nothing crosses: neither by name, nor by id, nor by a parameter."""
    other = await office.up.issue("eve", tenant="other", role="admin")
    await office.up.add_key("openai", tenant="other", key=KEY)
    await office.up.add_backend("openai", "http://10.0.0.9/", tenant="other")
    victim = await office.up.vault.verify_token((await office.up.issue("victim")).encode())
    assert victim is not None
    assert (await office.ask("GET", "/keys")).json()["items"] == []
    assert (await office.ask("GET", "/backends")).json()["items"] == []
    assert (await office.ask("DELETE", "/keys/openai/default")).status == 404
    assert (await office.ask("DELETE", f"/tokens/{victim.id}", token=other)).status == 404
    assert (await office.ask("GET", "/tenant", token=other)).json() == {
        "name": "other",
        "keys": 1,
        "tokens": 1,
        "backends": 1,
    }
    changes = (await office.ask("GET", "/audit", token=other)).json()["items"]
    assert [one["action"] for one in changes] == ["backend add", "key add", "token issue"]
    named = await office.ask("GET", "/keys?tenant=other")
    assert (named.status, "limit, after" in named.json()["detail"]) == (422, True)


# What is sent.


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "The body is not JSON"),
        (b"[]", "object"),
        (b'{"value": "x"}', "service: field required."),
        (b'{"service": "openai"}', "Expected either value, or values by part."),
        (b'{"service": "openai", "value": null}', "value: expected"),
        (b'{"service": 5, "value": "x"}', "service: "),
        (b'{"service": "open ai", "value": "x"}', "service: "),
        (b'{"service": "openai", "value": " x"}', "white space"),
        (b'{"service": "openai", "alias": "a", "value": "x", "hosts": ["a.example"]}', "hosts"),
        (b'{"service": "openai", "values": {"sk-CANARY": 1}}', "values: "),
        (b'{"service": "openai", "sk-CANARY": "x"}', "known are: value"),
        (b'{"service": "sk-CANARY", "value": "x"}', "service: "),
    ],
)
async def test_a_mistake_is_one_sentence_without_values(
    office: Office, body: bytes, said: str
) -> None:
    """It names the member, says what is expected, and repeats nothing of what was sent."""
    answer = await office.ask("POST", "/keys", body)
    problem = answer.json()
    assert answer.status == 422
    assert answer.header("content-type") == "application/problem+json"
    assert said in problem["detail"]
    assert problem["detail"] == problem["error"]["message"]
    assert "CANARY" not in answer.body.decode()


async def test_a_token_is_no_name(office: Office) -> None:
    """Names stand in lists and logs."""
    answer = await office.ask("POST", "/tokens", {"name": office.admin})
    assert answer.status == 422
    assert office.admin not in answer.body.decode()


@pytest.mark.parametrize(
    ("expires", "status"),
    [
        ("2099-01-01T00:00:00Z", 201),
        ("2099-01-01T00:00:00", 422),
        ("2001-01-01T00:00:00Z", 422),
        ("9999-12-31T23:59:59-12:00", 422),
        ("0001-01-01T00:00:00+14:00", 422),
        (1893456000, 422),
    ],
)
async def test_an_expiry_is_an_instant_ahead(office: Office, expires: Any, status: int) -> None:
    """RFC 3339, with its offset."""
    answer = await office.ask("POST", "/tokens", {"name": "bob", "expires": expires})
    assert answer.status == status


async def test_only_json_is_read_and_not_too_much(office: Office) -> None:
    """A form can't be a change; 64 KiB are enough for all there is."""
    form = ("Content-Type", "text/plain")
    assert (await office.ask("POST", "/cache/purge", b"{}", form)).status == 415
    assert (await office.ask("POST", "/cache/purge", b" " * 65536 + b"{}")).status == 413
    charset = ("Content-Type", "Application/JSON; charset=utf-8")
    assert (await office.ask("POST", "/cache/purge", b"{}", charset)).status == 200


async def test_each_parameter_comes_once(office: Office) -> None:
    """Two readers could take each another one."""
    assert (await office.ask("GET", "/keys?limit=1&limit=2")).status == 422


@pytest.mark.parametrize("limit", ["0", "501", "1.0", "1_0", "+1", "x", ""])
async def test_a_limit_is_a_plain_number(office: Office, limit: str) -> None:
    """1 to 500."""
    assert (await office.ask("GET", f"/keys?limit={limit}")).status == 422


@pytest.mark.parametrize("method", ["PUT", "PATCH", "TRACE", "OPTIONS", "QUERY"])
async def test_other_methods_are_told_which_there_are(office: Office, method: str) -> None:
    """RFC 9110 section 15.5.6."""
    answer = await office.ask(method, "/keys")
    assert (answer.status, answer.header("allow")) == (405, "GET, POST")


async def test_head_is_get_without_a_body(office: Office) -> None:
    """RFC 9110 section 9.3.2."""
    path = "/admin/api/v1/tenant"
    answer = await call(office.up.url, "HEAD", path, bearer(office.admin))
    assert (answer.status, answer.header("content-type")) == (200, "application/json")


@pytest.mark.parametrize(
    "path", ["/", "/none", "/keys/", "/keys/openai", "/tokens/x", "/keys/Open/a", "/services/a%2Fb"]
)
async def test_what_is_not_there_is_not_found(office: Office, path: str) -> None:
    """As a problem, like every other error."""
    answer = await office.ask("DELETE", path)
    assert answer.status in (404, 405)
    assert answer.header("content-type") == "application/problem+json"


async def test_an_answer_has_the_id_of_its_request(office: Office) -> None:
    """A well-formed one of the caller is kept; an error has it in its body too."""
    mine = ("X-Request-ID", "mine-1")
    good = await office.ask("GET", "/tenant", None, mine)
    bad = await office.ask("GET", "/keys?x=1", None, mine)
    assert (good.header("x-request-id"), bad.header("x-request-id")) == ("mine-1", "mine-1")
    assert bad.json()["request_id"] == "mine-1"


async def test_what_fails_inside_stays_inside(
    office: Office, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A clean 500 with an id; the log has the place, and no value."""

    async def fail(*_: Any) -> None:
        raise RuntimeError("sk-CANARY")

    monkeypatch.setattr("proxy.admin.acts.Acts.keys", fail)
    answer = await office.ask("GET", "/keys")
    assert (answer.status, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "CANARY" not in answer.body.decode() + caplog.text
    [told] = [one for one in caplog.records if one.levelname == "ERROR"]
    assert told.__dict__["id"] == answer.json()["request_id"]
    assert "RuntimeError" in told.getMessage()
    assert "operations.py" in told.__dict__["at"]


async def test_the_configuration_file_keeps_what_is_its_own(office: Office) -> None:
    """What it declares is listed as the file's, and changed there."""
    from proxy.config import make_key  # noqa: PLC0415
    from vault import Secret  # noqa: PLC0415

    openai = office.up.services.get("openai")
    assert openai is not None
    key = make_key(openai, ("default", "default"), {"key": Secret(KEY.encode())})
    await office.up.vault.declare([key], [])
    [listed] = (await office.ask("GET", "/keys")).json()["items"]
    assert listed["owner"] == "file"
    answer = await office.ask("DELETE", "/keys/openai/default")
    assert (answer.status, "configuration file" in answer.json()["detail"]) == (409, True)
