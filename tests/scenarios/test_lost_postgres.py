"""A vault on a server that is shared, stopped, killed and paused under running instances."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.clock import SystemClock
from tests.support.caller import Answered, call
from tests.support.command import command
from tests.support.engines import postgres_running
from tests.support.origin import Origin, reply
from tests.support.process import served
from tests.support.relay import Running, running_relay
from vault import Secret, StoreUnavailable, open_vault

KEY = "sk-canary-0123456789abcdefghij"
PASSWORD = "sk-canary-password-0123456789"


async def asked(up: Running, token: str, path: str = "/proxy/openai/v1/x") -> Answered:
    return await call(up.url, "GET", path, ("Authorization", f"Bearer {token}"))


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Waits for what must come to be by itself."""
    async with asyncio.timeout(50):
        while not await holds():
            await asyncio.sleep(0.05)


def settings(url: str) -> str:
    return f"vault: {{url: '{url.replace('keyrelay@', f'keyrelay:{PASSWORD}@')}'}}\n"


def openai(origin: Origin) -> dict[str, Any]:
    return {"openai": {"origin": origin.url}}


async def test_a_change_on_one_instance_reaches_the_other(
    tmp_path: Path, postgres: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A key, a token, its end; nothing shows the password."""
    said = settings(postgres.another())
    async with (
        Origin(reply(200, body=b"yes")) as origin,
        running_relay(tmp_path / "a", openai(origin), said) as one,
    ):
        key = (tmp_path / "a" / "master.key").read_bytes()
        (tmp_path / "b").mkdir(mode=0o700)
        (tmp_path / "b" / "master.key").touch(0o600)
        (tmp_path / "b" / "master.key").write_bytes(key)
        async with running_relay(tmp_path / "b", openai(origin), said, name="b") as two:
            await one.add_key("openai", key=KEY)
            token = await one.issue("ann")

            async def is_served() -> bool:
                return (await asked(two, token)).status == 200

            async def is_refused() -> bool:
                return (await asked(two, token)).status == 401

            await until(is_served)
            await one.vault.revoke_token("default", "ann")
            await until(is_refused)
            reader = await one.issue("reader", role="read")
            for path in ("/health", "/metrics"):
                assert PASSWORD not in (await asked(two, reader, path)).body.decode()
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize("how", ["killed", "paused"])
async def test_who_was_seen_goes_on_while_the_server_is_gone(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Everybody else is told 503 with Retry-After, never 401; all is well again by itself."""
    with postgres_running() as server:
        async with (
            Origin(reply(200, body=b"yes")) as origin,
            running_relay(tmp_path / "data", openai(origin), settings(server.url)) as up,
        ):
            await up.add_key("openai", key=KEY)
            seen, unseen = await up.issue("seen"), await up.issue("unseen")
            await up.vault.refresh()
            await up.relay._parts.changes.look()
            assert (await asked(up, seen)).body == b"yes"
            server.kill() if how == "killed" else server.pause()

            async def is_noticed() -> bool:
                return "the vault can't be read" in caplog.text

            await until(is_noticed)
            for _ in range(20):
                assert (await asked(up, seen)).body == b"yes"
            refused = [await asked(up, unseen) for _ in range(3)]
            assert {(one.status, one.header("retry-after")) for one in refused} == {(503, "5")}
            server.start_again() if how == "killed" else server.go_on()

            async def is_back() -> bool:
                answer = await asked(up, unseen)
                assert answer.status in (200, 503)
                return answer.status == 200

            await until(is_back)
            await until_read(up)
            await up.issue("later")
    assert "the vault is read again" in caplog.text
    assert PASSWORD not in caplog.text


async def test_a_vault_that_moves_under_a_server_is_outlived_as_a_lost_one(
    tmp_path: Path, postgres: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is told 401, and nothing is changed in what was left; the new one is complete."""
    data, url = tmp_path / "data", postgres.another()
    async with (
        Origin(reply(200, body=b"yes")) as origin,
        running_relay(data, openai(origin)) as up,
    ):
        await up.add_key("openai", key=KEY)
        seen, unseen = await up.issue("seen"), await up.issue("unseen")
        await up.relay._parts.changes.look()
        assert (await asked(up, seen)).status == 200
        mover = await open_vault(data, {}, SystemClock())
        await mover.move(url)
        await mover.close()

        async def is_noticed() -> bool:
            return "the vault can't be read" in caplog.text

        await until(is_noticed)
        assert [(await asked(up, token)).status for token in (seen, unseen)] == [200, 503]
        with pytest.raises(StoreUnavailable, match="moved"):
            await up.issue("later")
    (data / "keys.yaml").write_text(settings(url))
    async with (
        Origin(reply(200, body=b"yes")) as origin,
        running_relay(data, openai(origin), settings(url), name="again") as up,
    ):
        for token in (seen, unseen):
            assert (await asked(up, token)).status == 200


async def test_the_server_is_given_nothing_that_is_secret(tmp_path: Path, postgres: Any) -> None:
    """No key, token or master key, as octets or as its dump writes octets."""
    url = postgres.another()
    async with (
        Origin(reply(200, body=b"yes")) as origin,
        running_relay(tmp_path / "data", openai(origin), settings(url)) as up,
    ):
        await up.add_key("openai", key=KEY)
        token = await up.issue("ann")
        assert (await asked(up, token)).status == 200
        await up.vault.rotate_key("default", "openai", "default", {"key": Secret(KEY.encode())})
    master = (tmp_path / "data" / "master.key").read_text().split()[-1]
    secrets = [KEY.encode(), token[16:48].encode(), master.encode(), PASSWORD.encode()]
    dump = postgres.dump(url)
    assert b"key_versions" in dump
    for secret in secrets:
        assert secret not in dump
        assert secret.hex().encode() not in dump


async def test_a_demo_is_apart_from_the_vault_of_the_configuration(
    tmp_path: Path, postgres: Any
) -> None:
    """Its key, backend and token are nobody else's."""
    url = postgres.another()
    (tmp_path / "keys.yaml").write_text(settings(url))
    environ = {"KEYRELAY_CONFIG": str(tmp_path / "keys.yaml")}
    async with served(tmp_path / "data", "--demo", **environ):
        assert (tmp_path / "data/demo/vault.db").exists()
    assert (
        postgres.say("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", name_of(url))
        == "0"
    )


async def test_every_worker_has_the_vault_of_the_server(tmp_path: Path, postgres: Any) -> None:
    """What the command line revokes ends in each of them, without a restart."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "keys.yaml").write_text(settings(postgres.another()) + "server: {workers: 2}\n")
    async with served(data) as up:
        issued = await command(data, "token", "issue", "ann", "--role", "read", "--json")
        token = json.loads(issued.out)["token"]

        async def all_say(status: int) -> bool:
            bearer = ("Authorization", f"Bearer {token}")
            said = [await call(up.url, "GET", "/usage", bearer) for _ in range(8)]
            return {one.status for one in said} == {status}

        await until(lambda: all_say(200))
        await command(data, "token", "revoke", "ann")
        await until(lambda: all_say(401))
    assert PASSWORD not in "".join(up.said)


def name_of(url: str) -> str:
    return url.rpartition("/")[2]


async def until_read(up: Running) -> None:
    async def is_read() -> bool:
        reader = await asked(up, up.token, "/health")
        return reader.status == 200 and reader.json()["vault_unread_seconds"] == 0

    await until(is_read)
