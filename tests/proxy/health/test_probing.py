"""Probes: only where nobody calls, as a caller's would be sent (issue: health)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.authorization import Authorizer
from proxy.call import Call
from proxy.errors import DestinationRefused, RelayError, Unavailable, UpstreamUnreachable
from proxy.grant import Grant
from proxy.health.probing import Prober, Rounds, errand
from proxy.health.tally import IN_A_ROW
from proxy.health.watch import Health
from proxy.messages import RequestBody, Response
from proxy.services import CurrentServices, load_services
from tests.support.clock import FakeClock
from tests.support.vaults import begin
from vault import KeyRef, NewKey, Secret, Vault, open_vault

SERVICES = CurrentServices(load_services())


async def nothing() -> AsyncIterator[bytes]:
    return
    yield b""


class Provider:
    """An upstream that notes what is sent, and answers as the test says."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str]] = []
        self.answer: int | Exception = 200

    @asynccontextmanager
    async def send(self, call: Call, grant: Grant, body: RequestBody) -> AsyncIterator[Response]:
        assert [chunk async for chunk in body] == []
        self.sent.append((grant.tenant, call.method, grant.target.url))
        if isinstance(self.answer, Exception):
            raise self.answer
        yield Response(self.answer, (), nothing())


@pytest.fixture
async def vault(tmp_path: Path) -> AsyncIterator[Vault]:
    begin(tmp_path / "data")
    vault = await open_vault(tmp_path / "data", {}, FakeClock(), actor="test")
    for service in ("openai", "deepl"):
        key = {"key": Secret(b"sk-test-0123456789abcdef")}
        await vault.put_key(NewKey("default", service, "default", key))
    yield vault
    await vault.close()


async def test_a_service_that_nobody_calls_is_asked_once_an_interval(vault: Vault) -> None:
    """By the call that the service names, with the tenant's own key."""
    clock, health, provider = FakeClock(), Health(SERVICES), Provider()
    rounds = Rounds(health, Prober(Authorizer(SERVICES), provider), vault, SERVICES, clock)
    await rounds.go(300.0)
    refs = [KeyRef("default", name, "default", 1) for name in ("openai", "deepl")]
    probed = [errand(SERVICES.get(ref.service), ref) for ref in refs]
    assert sorted(url for _, _, url in provider.sent) == sorted(one.url for one in probed if one)
    assert health.standing("default", "openai").state == "healthy"
    clock.advance(299.0)
    count = len(provider.sent)
    await rounds.go(300.0)
    assert len(provider.sent) == count
    clock.advance(1.0)
    await rounds.go(300.0)
    assert len(provider.sent) == 2 * count


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (503, "unhealthy"),
        (UpstreamUnreachable("No."), "unhealthy"),
        (401, "key_refused"),
        (429, "unknown"),
        (Unavailable("No."), "unknown"),
        (DestinationRefused("No."), "unknown"),
    ],
)
async def test_what_a_probe_finds(vault: Vault, answer: int | RelayError, state: str) -> None:
    """As a caller's answer would tell; what is ours to blame says nothing of the provider."""
    clock, health, provider = FakeClock(), Health(SERVICES), Provider()
    provider.answer = answer
    rounds = Rounds(health, Prober(Authorizer(SERVICES), provider), vault, SERVICES, clock)
    for _ in range(IN_A_ROW):
        await rounds.go(60.0)
        clock.advance(60.0)
    assert health.standing("default", "openai").state == state


async def test_an_error_that_nobody_expected_ends_no_round(
    vault: Vault, caplog: pytest.LogCaptureFixture
) -> None:
    """The others are asked, and it says nothing of the provider."""
    health, provider = Health(SERVICES), Provider()
    key = {"key": Secret(b"sk-test-0123456789abcdef")}
    await vault.put_key(NewKey("default", "groq", "default", key))
    provider.answer = ZeroDivisionError("CANARY")
    rounds = Rounds(health, Prober(Authorizer(SERVICES), provider), vault, SERVICES, FakeClock())
    await rounds.go(60)
    assert len(provider.sent) == 2
    assert health.standing("default", "openai").state == "unknown"
    assert caplog.text.count("unexpected ZeroDivisionError") == 2
    assert "CANARY" not in caplog.text


async def test_no_round_is_made_unless_an_interval_is_set(vault: Vault) -> None:
    """A probe uses the admin's key and quota."""
    provider = Provider()
    rounds = Rounds(
        Health(SERVICES), Prober(Authorizer(SERVICES), provider), vault, SERVICES, FakeClock()
    )
    await rounds.start()
    await rounds.stop()
    assert provider.sent == []


def test_a_service_without_a_harmless_call_is_never_asked() -> None:
    """Nor one that is unknown."""
    silent = next(service for service in SERVICES.all if service.probe is None)
    assert errand(silent, KeyRef("default", silent.name, "default", 1)) is None
    assert errand(None, KeyRef("default", "gone", "default", 1)) is None
