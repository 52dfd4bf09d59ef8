"""What is told of health, to whom, over real sockets (issue: health)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy import __version__
from proxy.health.readiness import KEPT_SECONDS
from proxy.health.tally import IN_A_ROW
from proxy.health.watch import FAILURES
from tests.support.caller import Answered, call
from tests.support.clock import FakeClock
from tests.support.origin import Exchange, Origin, reply
from tests.support.relay import Running, running_relay

KEY = "sk-test-0123456789abcdefghij"


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with Origin(reply(200, [], b"answer")) as one:
        yield one


@pytest.fixture
async def up(tmp_path: Path, origin: Origin) -> AsyncIterator[Running]:
    settings = f"services: {{openai: {{origin: '{origin.url}'}}}}\n"
    async with running_relay(tmp_path / "data", settings=settings) as running:
        await running.add_key("openai", key=KEY)
        yield running


async def ask(up: Running, path: str, token: str | None = None) -> Answered:
    fields = () if token is None else (("Authorization", f"Bearer {token}"),)
    return await call(up.url, "GET", path, *fields)


async def use(up: Running, origin: Origin, times: int = 1, token: str | None = None) -> None:
    target = f"/proxy?server={origin.url}/v1/models&service=openai"
    for _ in range(times):
        await call(up.url, "GET", target, ("Authorization", f"Bearer {token or up.token}"))


async def test_without_a_token_there_is_little_to_know(up: Running) -> None:
    """Live, ready and the version; everything else is 401."""
    assert (await ask(up, "/health/live")).json() == {"status": "live"}
    ready = await ask(up, "/health/ready")
    assert (ready.status, ready.json()) == (200, {"status": "ready"})
    assert (await ask(up, "/version")).json() == {"version": __version__}
    for path in ("/health", "/health/openai", "/health/nothing", "/status"):
        assert (await ask(up, path)).status == 401


async def test_real_calls_decide(up: Running, origin: Origin) -> None:
    """Unknown, healthy, ill after several failures in a row, and healed by one success."""
    before = (await ask(up, "/health", up.token)).json()
    assert [one["state"] for one in before["services"]] == ["unknown"]
    assert (before["status"], before["version"]) == ("ok", __version__)
    await use(up, origin)
    assert (await ask(up, "/health/openai", up.token)).json()["healthy"] is True
    origin.answer_with(reply(503, [], b"no"))
    await use(up, origin, IN_A_ROW)
    ill = (await ask(up, "/health/openai", up.token)).json()
    assert (ill["state"], ill["healthy"], ill["consecutive_failures"]) == (
        "unhealthy",
        False,
        IN_A_ROW,
    )
    assert (ill["calls"], ill["errors"]) == (1 + IN_A_ROW, IN_A_ROW)
    assert (ill["places"][0]["kind"], ill["places"][0]["last_error"]) == ("provider", "503")
    assert (await ask(up, "/status", up.token)).json()["services_unhealthy"] == 1
    origin.answer_with(reply(200, [], b"yes"))
    await use(up, origin)
    assert (await ask(up, "/health/openai", up.token)).json()["state"] == "healthy"


async def test_a_refused_key_is_a_state_of_its_own(up: Running, origin: Origin) -> None:
    """The provider lives; the key does not."""
    origin.answer_with(reply(401, [], b"no"))
    await use(up, origin, IN_A_ROW)
    assert (await ask(up, "/health/openai", up.token)).json()["state"] == "key_refused"


async def test_an_upstream_that_hangs_up_is_a_failure(up: Running, origin: Origin) -> None:
    """There is no status, only our code."""

    async def hang_up(exchange: Exchange) -> None:
        exchange.abort()

    origin.answer_with(hang_up)
    await use(up, origin, IN_A_ROW)
    shown = (await ask(up, "/health/openai", up.token)).json()
    assert shown["state"] == "unhealthy"
    assert shown["places"][0]["last_error"] in FAILURES


async def test_who_asks_sees_its_own(up: Running, origin: Origin) -> None:
    """A caller what it may use, a reader its tenant, nobody another tenant's."""
    await up.add_key("anthropic", key="sk-ant-test-0123456789abcdef")
    await use(up, origin)
    narrow = await up.issue("narrow", services=frozenset({"anthropic"}))
    reader = await up.issue("reader", role="read", services=frozenset({"anthropic"}))
    stranger = await up.issue("stranger", tenant="other")
    seen = {
        name: [one["service"] for one in (await ask(up, "/health", token)).json()["services"]]
        for name, token in (("narrow", narrow), ("reader", reader), ("stranger", stranger))
    }
    assert seen == {"narrow": ["anthropic"], "reader": ["anthropic", "openai"], "stranger": []}
    hidden = await ask(up, "/health/openai", narrow)
    assert (hidden.status, hidden.json()["error"]["code"]) == (404, "unknown_service")


@pytest.mark.parametrize("path", ["/status", "/health"])
async def test_how_busy_all_are_is_told_in_the_tenant_of_whoever_runs_it(
    up: Running, path: str
) -> None:
    """The same tenant that may read the metrics: calls of others are nobody else's."""
    theirs = await up.issue("theirs", tenant="team", role="admin")
    assert (await ask(up, path, up.token)).json()["calls_in_flight"] == 0
    assert (await ask(up, path, theirs)).json()["calls_in_flight"] is None


async def test_what_fails_is_named_without_a_reason(tmp_path: Path) -> None:
    """503, the parts, and nothing of where they lie; it recovers by itself."""
    clock, data = FakeClock(), tmp_path / "data"
    async with running_relay(data, clock=clock) as up:
        seen = await ask(up, "/status", up.token)
        assert (seen.status, seen.json()["status"]) == (200, "ok")
        clock.advance(KEPT_SECONDS)
        data.rename(tmp_path / "elsewhere")
        failing = await ask(up, "/health/ready")
        assert (failing.status, failing.json()) == (
            503,
            {"status": "failing", "failing": ["vault", "storage"]},
        )
        assert (await ask(up, "/status", up.token)).json()["status"] == "failing"
        (tmp_path / "elsewhere").rename(data)
        clock.advance(KEPT_SECONDS)
        assert (await ask(up, "/health/ready")).status == 200


async def test_going_down_is_said_at_once(up: Running) -> None:
    """Before the listener is gone."""
    assert (await ask(up, "/health/ready")).status == 200
    up.relay.go_down()
    ready = await ask(up, "/health/ready")
    assert (ready.status, ready.json()) == (503, {"status": "stopping"})
    assert (await ask(up, "/health/live")).status == 200
