"""A server in a process of its own: changes while it runs, restarts, being killed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from proxy.app import REFRESH_SECONDS
from tests.support.caller import Answered, call
from tests.support.command import command
from tests.support.origin import Exchange, Origin, reply
from tests.support.process import Served, keyrelay, served

KEY = "sk-canary-0123456789abcdefghij"
CACHED = "&cache=4102444800"


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with Origin(reply(200, [], b"answer")) as one:
        yield one


@pytest.fixture
def data(tmp_path: Path, origin: Origin) -> Path:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "keys.yaml").write_text(f"services: {{openai: {{origin: '{origin.url}'}}}}\n")
    return data


async def issue(data: Path, name: str = "caller", *options: str) -> str:
    ended = await command(data, "token", "issue", name, *options)
    assert ended.code == 0, ended.err
    return ended.out.strip()


async def add_key(data: Path, *options: str) -> None:
    ended = await command(data, "key", "add", "openai", *options, stdin=KEY + "\n")
    assert ended.code == 0, ended.err


async def ask(server: Served, origin: Origin, token: str, options: str = "") -> Answered:
    target = f"/proxy?server={origin.url}/v1&service=openai{options}"
    return await call(server.url, "GET", target, ("Authorization", f"Bearer {token}"))


async def until(
    status: int, asked: Callable[[], Awaitable[Answered]], seconds: float = 20.0
) -> None:
    """Asks until the answer has this status. The promise is a second; machines may be busy."""
    async with asyncio.timeout(seconds):
        while (await asked()).status != status:
            await asyncio.sleep(0.05)


def test_a_running_server_looks_often_enough() -> None:
    """Within one second."""
    assert REFRESH_SECONDS <= 0.5


async def test_every_change_reaches_a_running_server(data: Path, origin: Origin) -> None:
    """Token, key, removal, backend, revocation; no restart."""
    async with served(data) as server:
        assert (await ask(server, origin, "kr_nothing")).status == 401
        token = await issue(data)
        await until(403, lambda: ask(server, origin, token))
        await add_key(data)
        await until(200, lambda: ask(server, origin, token))
        assert origin.last.header("authorization") == f"Bearer {KEY}"
        rotated = await command(data, "key", "rotate", "openai", stdin="sk-canary-second-0123456\n")
        assert rotated.code == 0
        async with asyncio.timeout(20):
            while origin.last.header("authorization") != "Bearer sk-canary-second-0123456":
                await ask(server, origin, token)
        assert (await command(data, "key", "remove", "openai", "--yes")).code == 0
        await until(403, lambda: ask(server, origin, token))
        assert (await command(data, "token", "revoke", "caller")).code == 0
        await until(401, lambda: ask(server, origin, token))


async def test_a_backend_is_registered_and_removed_while_it_runs(
    data: Path, origin: Origin
) -> None:
    """Where else a key may go."""
    async with Origin(reply(200)) as backend, served(data) as server:
        token = await issue(data)
        await add_key(data)
        place = f"{backend.url}/b"
        target = f"/proxy?server={place}/x&service=openai"

        async def asked() -> Answered:
            return await call(server.url, "GET", target, ("X-Relay-Token", token))

        await until(403, asked)
        add = await command(data, "backend", "add", place, "--service", "openai")
        assert add.code == 0, add.err
        await until(200, asked)
        gone = await command(data, "backend", "remove", place, "--service", "openai", "--yes")
        assert gone.code == 0, gone.err
        await until(403, asked)


async def test_kept_answers_survive_a_restart_and_a_kill(data: Path, origin: Origin) -> None:
    """A hit afterwards, by the same token, without the upstream."""
    async with served(data) as server:
        token = await issue(data)
        await add_key(data)
        await until(200, lambda: ask(server, origin, token, CACHED))
        await until(200, lambda: ask(server, origin, token, CACHED))
    before = len(origin.requests)
    async with served(data) as server:
        answer = await ask(server, origin, token, CACHED)
        assert (answer.header("cache-status") or "").startswith("keyrelay; hit")
        server.kill()
        await server.process.wait()
    async with served(data) as server:
        answer = await ask(server, origin, token, CACHED)
        assert (answer.header("cache-status") or "").startswith("keyrelay; hit")
    assert len(origin.requests) == before


async def test_a_purge_by_the_command_line_ends_kept_answers(data: Path, origin: Origin) -> None:
    """Only the server writes the cache's file; the purge goes through the vault."""
    async with served(data) as server:
        token = await issue(data)
        await add_key(data)
        await until(200, lambda: ask(server, origin, token, CACHED))
        hit = await ask(server, origin, token, CACHED)
        assert (hit.header("cache-status") or "").startswith("keyrelay; hit")
        before = len(origin.requests)
        assert (await command(data, "cache", "purge", "--service", "openai")).code == 0
        async with asyncio.timeout(20):
            while len(origin.requests) == before:
                await ask(server, origin, token, CACHED)


async def test_an_imported_service_reaches_a_running_server(
    data: Path, origin: Origin, tmp_path: Path
) -> None:
    """Its definition, its key and its backend, from one file."""
    file = tmp_path / "more.yaml"
    file.write_text(
        f"""
services:
  newcomer: {{category: test, hosts: [newcomer.test], in: header, key_name: X-New-Key}}
keys: {{newcomer: a-new-key-0123456789}}
backends: [{{service: newcomer, url: '{origin.url}/new'}}]
"""
    )
    async with served(data) as server:
        token = await issue(data)
        target = f"/proxy?server={origin.url}/new/x&service=newcomer"

        async def asked() -> Answered:
            return await call(server.url, "GET", target, ("Authorization", f"Bearer {token}"))

        await until(404, asked)
        ended = await command(data, "import", str(file))
        assert ended.code == 0, ended.err
        await until(200, asked)
        assert origin.last.header("x-new-key") == "a-new-key-0123456789"
        sent = ("X-New-Key", token)
        assert (await call(server.url, "GET", target, sent)).status == 200


async def test_removing_a_tenant_takes_everything_it_had(data: Path, origin: Origin) -> None:
    """Keys, tokens, backends, answers; another tenant's stay."""
    async with served(data) as server:
        mine = await issue(data)
        theirs = await issue(data, "caller", "--tenant", "team")
        await add_key(data)
        await add_key(data, "--tenant", "team")
        await until(200, lambda: ask(server, origin, theirs, CACHED))
        await until(200, lambda: ask(server, origin, mine, CACHED))
        gone = await command(data, "tenant", "remove", "team", "--yes")
        assert gone.code == 0, gone.err
        await until(401, lambda: ask(server, origin, theirs, CACHED))
        answer = await ask(server, origin, mine, CACHED)
        assert (answer.header("cache-status") or "").startswith("keyrelay; hit")


async def test_the_master_key_is_rotated_under_a_running_server(data: Path, origin: Origin) -> None:
    """Tokens, keys and cache survive; re-sealing too."""
    async with served(data) as server:
        token = await issue(data)
        await add_key(data)
        await until(200, lambda: ask(server, origin, token, CACHED))
        for options in ((), ("--reseal",)):
            ended = await command(data, "master", "rotate", *options)
            assert ended.code == 0, ended.err
        await add_key(data, "--alias", "second")
        other = await issue(data, "other", "--key", "openai=second")
        await until(200, lambda: ask(server, origin, other))
        assert (await ask(server, origin, token)).status == 200
    async with served(data) as server:
        answer = await ask(server, origin, token, CACHED)
        assert (answer.header("cache-status") or "").startswith("keyrelay; hit")


@pytest.mark.parametrize("keep", ["master.key", "vault.db"])
async def test_one_of_key_and_database_without_the_other_stops(
    data: Path, tmp_path: Path, keep: str
) -> None:
    """Naming both paths; nothing is made anew over what may be restored."""
    async with served(data):
        pass
    for name in {"master.key", "vault.db"} - {keep}:
        (data / name).rename(tmp_path / name)
    ended = await keyrelay(data, "serve", "--port", "0")
    assert ended.code == 1
    assert "master.key" in ended.err
    assert "vault.db" in ended.err
    assert len(ended.err.splitlines()) == 1


async def test_a_taken_port_is_one_sentence(data: Path) -> None:
    """With the remedy."""
    async with served(data) as server:
        port = server.url.rpartition(":")[2]
        ended = await keyrelay(data, "serve", "--port", port)
    assert ended.code == 1
    assert "--port" in ended.err
    assert len(ended.err.splitlines()) == 1


async def test_a_second_server_on_the_same_data_is_told(data: Path) -> None:
    """One process writes the cache's file."""
    async with served(data), served(data) as second:
        assert (await call(second.url, "GET", "/health/live")).status == 200


async def test_a_second_demo_on_the_same_data_is_refused(tmp_path: Path) -> None:
    """It would make the token of the first one useless."""
    data = tmp_path / "data"
    async with served(data, "--demo"):
        second = await keyrelay(data, "serve", "--demo", "--port", "0")
    assert second.code == 1
    assert "a demo runs" in second.err


async def test_calls_in_flight_are_told_when_it_must_end(data: Path, origin: Origin) -> None:
    """The first signal waits for them, the second doesn't; no traceback either way."""
    asked = asyncio.Event()

    async def never(exchange: Exchange) -> None:
        asked.set()
        await exchange.hung_up()

    await command(data, "init")
    token = await issue(data)
    await add_key(data)
    async with served(data) as server:
        origin.answer_with(never)
        calling = asyncio.create_task(ask(server, origin, token))
        await asyncio.wait_for(asked.wait(), 10)
        server.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.2)  # two signals at once would be one
        assert await server.stop() == 0
        answer = await calling
    assert (answer.status, answer.json()["error"]["code"]) == (503, "unavailable")
    assert "Traceback" not in "".join(server.said)


async def test_it_ends_when_asked_and_says_so(data: Path) -> None:
    """SIGTERM and SIGINT alike."""
    async with served(data) as server:
        assert await server.stop() == 0
    assert server.said[-1] == "keyrelay has stopped\n"
