"""Usage of a server in a process of its own: what a crash takes, and what the next start finds."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from proxy.usage import SqliteUsage, Which
from tests.support.caller import call
from tests.support.command import command
from tests.support.engines import RunningPostgres, postgres_running
from tests.support.origin import Origin, reply
from tests.support.process import Served, keyrelay, served

EVER = Which(0, 4e9)


def counted(data: Path) -> int:
    """How many calls lie on disk."""
    return sum(one.calls for one in SqliteUsage(data / "usage.db").sums(EVER, ())[0])


async def prepared(data: Path, origin: Origin, more: str = "") -> str:
    data.mkdir(mode=0o700)
    settings = f"services: {{openai: {{origin: '{origin.url}'}}}}\n{more}"
    (data / "keys.yaml").write_text(settings)
    await command(data, "init")
    await command(data, "key", "add", "openai", stdin="sk-canary-0123456789abcdefghij\n")
    return (await command(data, "token", "issue", "caller")).out.strip()


async def ask(server: Served, origin: Origin, token: str) -> None:
    target = f"/proxy?server={origin.url}/v1&service=openai"
    assert (await call(server.url, "GET", target, ("X-Relay-Token", token))).status == 200


async def reach(data: Path, calls: int) -> None:
    async with asyncio.timeout(20):
        while counted(data) < calls:
            await asyncio.sleep(0.01)


async def test_a_crash_takes_what_was_not_written_yet_and_no_more(tmp_path: Path) -> None:
    """After a kill -9 the file is sound, its sums are those of its calls, and it goes on."""
    data = tmp_path / "data"
    async with Origin(reply(200, [], b"fine")) as origin:
        token = await prepared(data, origin)
        async with served(data) as server:
            for _ in range(10):
                await ask(server, origin, token)
            await reach(data, 10)
            for _ in range(5):
                await ask(server, origin, token)
            server.kill()
            await server.process.wait()
        kept = counted(data)
        assert 10 <= kept <= 15
        with closing(sqlite3.connect(data / "usage.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("SELECT count(*) FROM calls").fetchone() == (kept,)
        async with served(data) as server:
            await ask(server, origin, token)
            told = await call(server.url, "GET", "/usage", ("Authorization", f"Bearer {token}"))
            assert told.json()["total"]["calls"] == kept + 1


async def test_an_orderly_end_takes_nothing(tmp_path: Path) -> None:
    """The last calls are written before the server ends."""
    data = tmp_path / "data"
    async with Origin(reply(200, [], b"fine")) as origin:
        token = await prepared(data, origin)
        async with served(data) as server:
            for _ in range(5):
                await ask(server, origin, token)
            assert await server.stop() == 0
        assert counted(data) == 5
        said = await command(data, "usage", "--by", "service", "--json")
        assert json.loads(said.out)["by"][0]["calls"] == 5


async def test_a_newer_file_stops_the_server(tmp_path: Path) -> None:
    """With the remedy, and the file as it was."""
    data = tmp_path / "data"
    await command(data, "init")
    with closing(sqlite3.connect(data / "usage.db")) as newer:
        newer.execute("PRAGMA user_version = 9")
    ended = await keyrelay(data, "serve", "--port", "0")
    assert ended.code == 1
    assert "upgrade keyrelay, or move usage.db away" in ended.err


async def test_instances_on_one_database_tell_each_others_calls(
    tmp_path: Path, postgres: RunningPostgres
) -> None:
    """By the page of any, and by a command beside any; a budget is that of all together."""
    first, second = tmp_path / "first", tmp_path / "second"
    url = postgres.another()
    async with Origin(reply(200, [], b"fine")) as origin:
        token = await prepared(first, origin, f"vault: {{url: '{url}'}}\n")
        second.mkdir(mode=0o700)
        for name in ("keys.yaml", "master.key"):
            shutil.copy(first / name, second / name)
        limited = await command(first, "token", "set", "caller", "--budget", "9")
        assert limited.code == 0, limited.err
        async with served(first) as one:
            for _ in range(3):
                await ask(one, origin, token)
            await reached(first, 3)
            async with served(second) as other:
                for _ in range(2):
                    await ask(other, origin, token)
                told = await call(other.url, "GET", "/usage", ("Authorization", f"Bearer {token}"))
                assert told.json()["total"]["calls"] == 5
        said = await command(second, "usage", "--by", "service", "--json")
        assert json.loads(said.out)["by"][0]["calls"] == 5
        assert not [*first.glob("usage.db*"), *second.glob("usage.db*")]
    assert postgres.say("SELECT sum(calls) FROM budgets", url.rpartition("/")[2]) == "5"


async def reached(data: Path, calls: int) -> None:
    """Until so many are told by the command line."""
    async with asyncio.timeout(40):
        while True:
            said = await command(data, "usage", "--json")
            if json.loads(said.out)["total"]["calls"] == calls:
                return


async def test_calls_are_counted_that_came_while_the_database_was_gone(tmp_path: Path) -> None:
    """They wait in memory, each once; who was seen before is served meanwhile and feels nothing."""
    data = tmp_path / "data"
    with postgres_running() as postgres:
        async with Origin(reply(200, [], b"fine")) as origin:
            token = await prepared(data, origin, f"vault: {{url: '{postgres.url}'}}\n")
            async with served(data) as server:
                for _ in range(3):
                    await ask(server, origin, token)
                await reached(data, 3)
                postgres.kill()
                for _ in range(4):
                    await ask(server, origin, token)
                await told(server, "usage can't be written")
                postgres.start_again()
                await told(server, "usage is written again")
                await ask(server, origin, token)
                assert await server.stop() == 0
            await reached(data, 8)


async def told(server: Served, words: str) -> None:
    """Until the log has it."""
    async with asyncio.timeout(40):
        while not any(words in line for line in server.said):
            await asyncio.sleep(0.05)
