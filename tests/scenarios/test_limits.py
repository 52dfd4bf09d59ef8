"""Limits and budgets over real sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from proxy.app import REFRESH_SECONDS
from tests.support.caller import Answered, Caller, call
from tests.support.clock import FakeClock
from tests.support.origin import Exchange, Origin, reply
from tests.support.relay import Running, running_relay
from tests.support.resolver import FakeResolver
from vault import NewToken, open_vault

KEY = "sk-canary-0123456789abcdefghij"
OTHER = "sk-canary-fedcba9876543210abcd"
CACHED = "&cache=4102444800"
QUOTAS = """
limits:
  quotas:
    - {token: key:openai/default, upstream_calls: 2/hour}
    - {tenant: small, calls: 3/hour}
"""


async def ask(up: Running, origin: Origin, token: str, more: str = "", path: str = "x") -> Answered:
    target = f"/proxy?server={origin.url}/v1/{path}&service=openai{more}"
    return await call(up.url, "GET", target, ("Authorization", f"Bearer {token}"))


def relay(data: Path, origin: Origin, settings: str | None = None, **more: Any) -> Any:
    return running_relay(data, {"openai": {"origin": origin.url}}, settings, **more)


async def waiting(up: Running, reader: str, calls: int) -> None:
    """Until so many calls wait for a slot, as the metrics have it."""
    told, bearer = b"", ("Authorization", f"Bearer {reader}")
    async with asyncio.timeout(20):
        while b"\nkeyrelay_queued %.1f\n" % calls not in told:
            told = (await call(up.url, "GET", "/metrics", bearer)).body


def fields(answer: Answered) -> dict[str, str]:
    found = {name.lower(): text for name, text in answer.headers if "ratelimit" in name.lower()}
    assert len(found) == len([name for name, _ in answer.headers if "ratelimit" in name.lower()])
    return found


async def test_a_limited_answer_tells_how_it_stands(tmp_path: Path) -> None:
    """Ours replace those of the upstream, which speak of another limit; errors have them too."""
    theirs = [("X-RateLimit-Limit", "9000"), ("RateLimit", '"x";r=1'), ("X-RateLimit-Used", "7")]
    clock = FakeClock()
    async with (
        Origin(reply(200, theirs, b"a")) as origin,
        relay(tmp_path / "data", origin, clock=clock) as up,
    ):
        await up.add_key("openai", key=KEY)
        token = await up.issue("ann", limits=("2/minute",))
        first = await ask(up, origin, token)
        assert first.status == 200
        assert fields(first) == {
            "ratelimit-policy": '"token-minute";q=2;w=60',
            "ratelimit": '"token-minute";r=1;t=60',
            "x-ratelimit-limit": "2",
            "x-ratelimit-remaining": "1",
            "x-ratelimit-reset": "1800000060",
            "x-ratelimit-used": "7",
        }
        await ask(up, origin, token)
        refused = await ask(up, origin, token)
        assert fields(refused)["ratelimit"] == '"token-minute";r=0;t=60'
        assert (refused.status, refused.header("retry-after")) == (429, "60")
        assert len(origin.requests) == 2
        unlimited = await ask(up, origin, up.token)
        assert fields(unlimited) == {
            "x-ratelimit-limit": "9000",
            "ratelimit": '"x";r=1',
            "x-ratelimit-used": "7",
        }


async def test_a_refusal_is_a_problem_that_sdks_read(tmp_path: Path) -> None:
    """RFC 9457, with the member `error`; `Retry-After` is never above 60."""
    async with (
        Origin(reply(200)) as origin,
        relay(tmp_path / "data", origin, clock=FakeClock()) as up,
    ):
        await up.add_key("openai", key=KEY)
        token = await up.issue("ann", limits=("openai=1/day",))
        assert (await ask(up, origin, token)).status == 200
        refused = await ask(up, origin, token)
    assert refused.status == 429
    assert (refused.header("retry-after"), refused.header("x-should-retry")) == ("60", "false")
    assert refused.header("proxy-status") == "keyrelay; error=http_request_denied"
    document = refused.json()
    assert document["type"] == "/errors/rate_limited"
    detail = "This token may make 1 call per day to openai; try again in 57600 seconds."
    assert document["error"] == {
        "message": detail,
        "type": "rate_limit_error",
        "code": "rate_limited",
        "param": None,
    }


async def test_exactly_as_many_calls_pass_at_once_as_there_are_slots(tmp_path: Path) -> None:
    """Forty on forty connections; ten go through."""
    async with (
        Origin(reply(200)) as origin,
        relay(tmp_path / "data", origin, clock=FakeClock()) as up,
    ):
        await up.add_key("openai", key=KEY)
        token = await up.issue("ann", limits=("10/minute", "12/hour"))
        answers = await asyncio.gather(*(ask(up, origin, token) for _ in range(40)))
    assert sorted(answer.status for answer in answers) == [200] * 10 + [429] * 30
    assert len(origin.requests) == 10


async def test_hits_and_followers_are_no_upstream_calls(tmp_path: Path) -> None:
    """One call goes out; everybody who gets its answer pays nothing; the next miss is refused."""
    arrived, go = asyncio.Event(), asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        arrived.set()
        await go.wait()
        await exchange.send(reply(200, [], b"answer"))

    async with Origin(slow) as origin, relay(tmp_path / "data", origin, clock=FakeClock()) as up:
        await up.add_key("openai", key=KEY)
        token = await up.issue("ann", upstream_limits=("1/hour",), budget=5)
        calls = [asyncio.create_task(ask(up, origin, token, CACHED)) for _ in range(8)]
        await arrived.wait()
        go.set()
        answers = [*await asyncio.gather(*calls), await ask(up, origin, token, CACHED)]
        assert {answer.status for answer in answers} == {200}
        assert "hit" in (answers[-1].header("cache-status") or "")
        assert fields(answers[-1])["ratelimit"].startswith(
            '"token-upstream-hour";r=0;t=3600, "budget";r=4;t='
        )
        refused = await ask(up, origin, token, CACHED, "other")
        assert (refused.status, refused.json()["error"]["code"]) == (429, "rate_limited")
        assert "upstream call per hour" in refused.json()["detail"]
        assert len(origin.requests) == 1


async def test_a_follower_of_a_refused_leader_leads(tmp_path: Path) -> None:
    """A leader without budget takes nobody with it."""
    async with (
        Origin(reply(200, [], b"answer")) as origin,
        relay(tmp_path / "data", origin, clock=FakeClock()) as up,
    ):
        await up.add_key("openai", key=KEY)
        poor = await up.issue("poor", budget=0)
        rich = await up.issue("rich", budget=3)
        answers = await asyncio.gather(
            ask(up, origin, poor, CACHED), ask(up, origin, rich, CACHED), ask(up, origin, up.token)
        )
        assert {answer.status for answer in answers[1:]} == {200}
        assert answers[0].status in (200, 429)  # a hit, if the other was first
        assert (await ask(up, origin, poor, CACHED)).status == 200
        assert (await ask(up, origin, poor)).json()["error"]["code"] == "budget_spent"


async def test_a_budget_outlives_the_relay_and_ends_with_the_month(tmp_path: Path) -> None:
    """Two calls, a restart, one more, and on the first of February all over."""
    clock, data = FakeClock(), tmp_path / "data"  # 15 January 2027
    async with Origin(reply(200)) as origin:
        async with relay(data, origin, clock=clock) as up:
            await up.add_key("openai", key=KEY)
            token = await up.issue("ann", budget=3)
            for left in (2, 1):
                answer = await ask(up, origin, token)
                assert fields(answer)["ratelimit"].startswith(f'"budget";r={left};t=')
                assert fields(answer)["ratelimit-policy"] == '"budget";q=3'
        vault = await open_vault(data, {}, clock)
        await vault.revoke_token("default", "everything")
        await vault.close()
        async with relay(data, origin, clock=clock) as up:
            assert (await ask(up, origin, token)).status == 200
            refused = await ask(up, origin, token)
            assert (refused.status, refused.header("x-should-retry")) == (429, "false")
            assert refused.json()["error"]["code"] == "budget_spent"
            assert "the next begins on 2027-02-01 (UTC)" in refused.json()["detail"]
            clock.advance(17 * 86_400)
            assert (await ask(up, origin, token)).status == 200
        assert len(origin.requests) == 4


async def test_a_token_for_so_many_calls_outlives_nothing_of_them(tmp_path: Path) -> None:
    """Hits, followers and failures are calls too, what was refused before is none; a restart and
    another year give none back, and the admin gives the difference."""
    clock, data = FakeClock(), tmp_path / "data"
    async with Origin(reply(200, [], b"answer")) as origin:
        async with relay(data, origin, clock=clock) as up:
            await up.add_key("openai", key=KEY)
            token = await up.issue("ann", calls=6)
            answers = await asyncio.gather(*(ask(up, origin, token, CACHED) for _ in range(3)))
            assert {answer.status for answer in answers} == {200}
            bearer = ("Authorization", f"Bearer {token}")
            for path in ("/proxy?server=https://evil.example/v1", "/proxy/openai/../x"):
                assert (await call(up.url, "GET", path, bearer)).status in (400, 403)
            origin.answer_with(b"no answer", reply(200, [], b"answer"))
            failed = await ask(up, origin, token)
            assert (failed.status, fields(failed)["ratelimit"]) == (502, '"calls";r=2')
            await up.vault.revoke_token("default", "everything")
        clock.advance(400 * 86_400)
        async with relay(data, origin, clock=clock) as up:
            answers = await asyncio.gather(*(ask(up, origin, token) for _ in range(52)))
            assert sorted(answer.status for answer in answers) == [200] * 2 + [429] * 50
            refused = await ask(up, origin, token)
            assert refused.header("x-should-retry") == "false"
            assert refused.json()["error"]["code"] == "calls_spent"
            assert "keyrelay token set NAME --calls N" in refused.json()["detail"]
            assert (await ask(up, origin, token, CACHED)).status == 429
            await up.vault.change_token("default", "ann", {"calls": 7})
            answers = await asyncio.gather(*(ask(up, origin, token) for _ in range(9)))
            assert sorted(answer.status for answer in answers) == [200] + [429] * 8
            await up.vault.change_token("default", "ann", {"calls": None})
            assert fields(await ask(up, origin, token)) == {}


async def test_a_call_that_was_never_sent_costs_nothing(tmp_path: Path) -> None:
    """No room in the queue: the slot and the budget are whole."""
    inside, go = asyncio.Event(), asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        inside.set()
        await go.wait()
        await exchange.send(reply(200))

    settings = "limits: {concurrency: {total: 1}, queue_length: 0}\n"
    async with (
        Origin(slow) as origin,
        relay(tmp_path / "data", origin, settings, clock=FakeClock()) as up,
    ):
        await up.add_key("openai", key=KEY)
        token = await up.issue("ann", upstream_limits=("2/hour",), budget=2)
        busy = asyncio.create_task(ask(up, origin, token))
        await inside.wait()
        for _ in range(3):
            full = await ask(up, origin, token)
            assert full.status == 503
            assert fields(full)["ratelimit"].startswith(
                '"token-upstream-hour";r=1;t=3600, "budget";r=1'
            )
        go.set()
        assert (await busy).status == 200
        assert (await ask(up, origin, token)).status == 200
        assert (await ask(up, origin, token)).status == 429


async def test_a_caller_who_hangs_up_in_the_queue_has_made_no_upstream_call(tmp_path: Path) -> None:
    """Nor one whose own time was over there."""
    inside, go = asyncio.Event(), asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        inside.set()
        await go.wait()
        await exchange.send(reply(200))

    settings = "limits: {concurrency: {total: 1}}\n"
    async with (
        Origin(slow) as origin,
        relay(tmp_path / "data", origin, settings, clock=FakeClock()) as up,
    ):
        await up.add_key("openai", key=KEY)
        token = await up.issue("ann", upstream_limits=("3/hour",), budget=3)
        reader = await up.issue("reader", role="read")
        busy = asyncio.create_task(ask(up, origin, up.token))
        await inside.wait()
        bearer = ("Authorization", f"Bearer {token}")
        target = f"/proxy?server={origin.url}/v1/x&service=openai"
        async with await Caller.connect(up.url) as caller:
            await caller.request("GET", target, bearer)
            await waiting(up, reader, 1)
        await waiting(up, reader, 0)
        late = await call(up.url, "GET", target, bearer, ("X-Relay-Timeout", "0.05"))
        assert (late.status, late.json()["error"]["code"]) == (504, "call_timeout")
        assert fields(late)["ratelimit"].startswith(
            '"token-upstream-hour";r=3;t=3600, "budget";r=3'
        )
        go.set()
        assert (await busy).status == 200
        answer = await ask(up, origin, token)
        assert fields(answer)["ratelimit"].startswith(
            '"token-upstream-hour";r=2;t=3600, "budget";r=2'
        )


async def test_a_call_to_an_address_that_is_not_permitted_costs_nothing(tmp_path: Path) -> None:
    """It was refused here, when its name was looked up."""
    resolver = FakeResolver({"api.openai.com": ["10.0.0.1"]})
    async with running_relay(tmp_path / "data", resolver=resolver, clock=FakeClock()) as up:
        await up.add_key("openai", key=KEY)
        token = await up.issue("ann", upstream_limits=("3/hour",), budget=3)
        target = "/proxy/openai/v1/models"
        answer = await call(up.url, "GET", target, ("Authorization", f"Bearer {token}"))
        assert (answer.status, answer.json()["error"]["code"]) == (403, "destination_ip_prohibited")
        assert fields(answer)["ratelimit"].startswith(
            '"token-upstream-hour";r=3;t=3600, "budget";r=3'
        )


async def test_a_tenant_and_a_handed_out_key_have_limits_of_their_own(tmp_path: Path) -> None:
    """A tenant's tokens share one; the key that a backend shows counts as a caller by itself."""
    async with (
        Origin(reply(200)) as origin,
        relay(tmp_path / "data", origin, QUOTAS, clock=FakeClock()) as up,
    ):
        for tenant, key in (("default", KEY), ("small", OTHER)):
            await up.add_key("openai", tenant=tenant, key=key)
        await up.add_backend("openai", "http://127.0.0.1:9/")
        tokens = [await up.issue(name, "small") for name in ("ann", "bob")]
        statuses = [(await ask(up, origin, tokens[n % 2])).status for n in range(4)]
        assert statuses == [200, 200, 200, 429]
        refused = await ask(up, origin, tokens[0])
        assert refused.json()["detail"].startswith("This tenant may make 3 calls per hour; ")
        statuses = [(await ask(up, origin, KEY)).status for _ in range(3)]
        assert statuses == [200, 200, 429]
        refused = await ask(up, origin, KEY)
        assert refused.json()["detail"].startswith("This key may make 2 upstream calls per hour; ")
        assert fields(refused)["ratelimit-policy"] == '"key-upstream-hour";q=2;w=3600'
        assert (await ask(up, origin, up.token)).status == 200


async def test_other_limits_hold_within_a_second(tmp_path: Path) -> None:
    """Set by another process, as the command line does, while equal calls are remembered."""
    clock, data = FakeClock(), tmp_path / "data"
    async with Origin(reply(200)) as origin, relay(data, origin, clock=clock) as up:
        await up.add_key("openai", key=KEY)
        _, token = await up.vault.issue_token(NewToken("default", "ann"))
        assert fields(await ask(up, origin, token)) == {}
        other = await open_vault(data, {}, clock)
        await other.change_token("default", "ann", {"limits": ("1/hour",)})
        async with asyncio.timeout(20):
            while not fields(await ask(up, origin, token)):
                await asyncio.sleep(0.02)
        assert (await ask(up, origin, token)).status == 429
        await other.change_token("default", "ann", {"limits": ()})
        async with asyncio.timeout(20):
            while (await ask(up, origin, token)).status != 200:
                await asyncio.sleep(0.02)
        await other.close()
    assert REFRESH_SECONDS <= 0.5


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_broken_usage_database_stops_no_call(tmp_path: Path, method: str) -> None:
    """The budget still counts, in memory."""
    data = tmp_path / "data"
    async with Origin(reply(200)) as origin, relay(data, origin, clock=FakeClock()) as up:
        await up.add_key("openai", key=KEY)
        token = await up.issue("ann", budget=1)
        (data / "usage.db").unlink(missing_ok=True)
        (data / "usage.db").mkdir()
        target = f"/proxy?server={origin.url}/v1&service=openai"
        bearer = ("Authorization", f"Bearer {token}")
        assert (await call(up.url, method, target, bearer)).status == 200
        assert (await call(up.url, method, target, bearer)).status == 429
