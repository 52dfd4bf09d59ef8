"""The vault's database is lost under a running server."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from proxy.clock import SystemClock
from tests.support.caller import Answered, call
from tests.support.clock import FakeClock
from tests.support.origin import Origin, reply
from tests.support.process import served
from tests.support.relay import Running, running_relay
from vault import NewKey, NewToken, Secret, open_vault

KEY = "sk-canary-0123456789abcdefghij"
SETTINGS = "server: {vault_grace: 2m}\n"


async def asked(up: Running, token: str, path: str = "/proxy/openai/v1/x") -> Answered:
    return await call(up.url, "GET", path, ("Authorization", f"Bearer {token}"))


async def looked(up: Running) -> None:
    """What the following task does four times a second."""
    changes: Any = up.relay._parts.changes
    with pytest.raises(Exception, match="can't be used now"):
        await changes.look()
    for _ in range(2):
        await changes._outage.look()


def openai(origin: Origin) -> dict[str, Any]:
    return {"openai": {"origin": origin.url}}


async def test_who_was_seen_goes_on_for_a_bounded_visible_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Then 503 with Retry-After for all, never 401; and as before once it is back."""
    clock, data = FakeClock(), tmp_path / "data"
    async with (
        Origin(reply(200, body=b"yes")) as origin,
        running_relay(data, openai(origin), SETTINGS, clock=clock) as up,
    ):
        await up.add_key("openai", key=KEY)
        seen, unseen = await up.issue("seen"), await up.issue("unseen")
        reader = await up.issue("reader", role="read")
        await up.relay._parts.changes.look()
        assert (await asked(up, seen)).body == b"yes"
        assert (await asked(up, reader, "/health")).json()["vault_unread_seconds"] == 0
        (data / "vault.db").rename(tmp_path / "away")
        await looked(up)
        clock.advance(119)
        await looked(up)
        assert (await asked(up, seen)).body == b"yes"
        refused = await asked(up, unseen)
        assert (refused.status, refused.header("retry-after")) == (503, "5")
        health = (await asked(up, reader, "/health")).json()
        assert (health["vault_unread_seconds"], health["vault_grace_left_seconds"]) == (119, 1)
        metrics = (await asked(up, reader, "/metrics")).body.decode()
        assert "keyrelay_vault_unread_seconds 119.0" in metrics
        assert "keyrelay_vault_grace_left_seconds 1.0" in metrics
        clock.advance(1)
        await looked(up)
        for token in (seen, unseen, reader):
            for path in ("/proxy/openai/v1/x", "/proxy/openai/v1/y", "/health"):
                answer = await asked(up, token, path)
                assert (answer.status, answer.header("retry-after")) == (503, "5")
        (tmp_path / "away").rename(data / "vault.db")
        await up.relay._parts.changes.look()
        for token in (seen, unseen):
            assert (await asked(up, token)).body == b"yes"
    words = caplog.text
    assert "the vault can't be read; who and what was seen is served for 120 s more" in words
    assert "nothing is served until it is" in words
    assert "the vault is read again, after 120.0 s" in words


async def test_a_row_that_does_not_open_is_named_in_the_log(tmp_path: Path) -> None:
    """Fails closed, for those alone that need it; the caller hears no name."""
    data = tmp_path / "data"
    async with Origin(reply(200, body=b"yes")) as origin:
        vault = await open_vault(data, {}, SystemClock(), create=True)
        for service in ("openai", "groq"):
            await vault.put_key(NewKey("default", service, "main", {"key": Secret(KEY.encode())}))
        _, token = await vault.issue_token(NewToken("default", "ann"))
        await vault.close()
        with closing(sqlite3.connect(data / "vault.db")) as database, database:
            query = "UPDATE key_versions SET sealed = substr(sealed, 1, 40) WHERE service = ?"
            database.execute(query, ("openai",))
        (data / "keys.yaml").write_text(
            f"services: {{openai: {{origin: '{origin.url}'}}, groq: {{origin: '{origin.url}'}}}}\n"
        )
        bearer = ("Authorization", f"Bearer {token}")
        async with served(data) as up:
            answer = await call(up.url, "GET", "/proxy/openai/v1/x", bearer)
            assert (answer.status, answer.header("retry-after")) == (503, "5")
            assert b"main" not in answer.body
            assert (await call(up.url, "GET", "/proxy/groq/v1/x", bearer)).body == b"yes"
        assert "key openai/main of tenant default, version 1, does not open" in "".join(up.said)
