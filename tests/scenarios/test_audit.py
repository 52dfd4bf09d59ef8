"""What happens to a running server stands in its audit log, and the log stays one chain."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

from tests.support.caller import call
from tests.support.clock import FakeClock
from tests.support.relay import Running, running_relay
from tests.support.resolver import FakeResolver
from vault import open_vault

FORM = ("Content-Type", "application/x-www-form-urlencoded")


async def ask(up: Running, server: str, token: str) -> int:
    answer = await call(
        up.url, "GET", f"/proxy?server={server}&service=openai", ("X-Relay-Token", token)
    )
    return answer.status


async def sign_in(up: Running, token: str) -> int:
    own = ("Origin", "http://relay.test")
    body = urlencode({"token": token}).encode()
    return (await call(up.url, "POST", "/admin/login", FORM, own, body=body)).status


async def test_refused_destinations_and_sign_ins_are_written_down(tmp_path: Path) -> None:
    """Those of known callers, with their token's name; all are there once it has stopped."""
    resolver = FakeResolver({"api.openai.com": ["10.0.0.1"]})
    async with running_relay(tmp_path / "data", resolver=resolver) as up:
        await up.add_key("openai", key="sk-0123456789abcdef")
        admin = await up.issue("ada", role="admin")
        statuses = [
            await ask(up, "http://169.254.169.254/latest/meta-data/", up.token),
            await ask(up, "https://user@api.openai.com/v1", up.token),
            await ask(up, "https://api.openai.com/v1/models", up.token),
            await ask(up, "http://169.254.169.254/", "kr_nobody"),
            await sign_in(up, admin),
            await sign_in(up, up.token),
            await sign_in(up, "kr_nobody"),
        ]
        assert statuses == [403, 400, 403, 401, 303, 403, 401]
    vault = await open_vault(tmp_path / "data", {}, FakeClock())
    found = [(one.actor, one.action, one.tenant, one.subject) for one in await vault.audit(6)]
    refused = ("token everything", "destination refused", "default")
    assert list(reversed(found)) == [
        (*refused, "http://169.254.169.254:80 destination_refused"),
        (*refused, "bad_destination"),
        (*refused, "api.openai.com destination_ip_prohibited"),
        ("token ada", "page sign-in", "default", "ada"),
        ("serve", "page sign-in refused", "default", "everything, a token that may not"),
        ("serve", "page sign-in refused", "", "a token with a typo or a piece missing"),
    ]
    assert (await vault.verify_audit()).faults == ()
    await vault.close()
