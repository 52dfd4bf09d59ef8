"""The watch sees whoever dials past the dialler, in every way that there is."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import uvloop

from proxy.network import Dialler, SystemResolver
from proxy.reach import Reach
from tests.support.caller import call
from tests.support.child import sitecustomize
from tests.support.dials import LOOP_METHODS, ROOT, Watch
from tests.support.engines import RunningPostgres
from tests.support.origin import Origin, reply
from tests.support.process import environment, keyrelay, served

PRETENDING = """
import asyncio, http.client, socket, urllib.request

def connects(port):
    socket.create_connection(("127.0.0.1", port)).close()

def fetches(port):
    try:
        urllib.request.build_opener().open(f"http://127.0.0.1:{port}/", timeout=5).close()
    except OSError:
        pass

def resolves(port):
    socket.getaddrinfo("localhost", port)

def sends(port):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", port))

def joins(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)

async def meets(path):
    _, writer = await asyncio.open_unix_connection(path)
    writer.close()

async def opens(port):
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()

async def asks(port):
    await asyncio.get_running_loop().getaddrinfo("localhost", port)

def serves(task):
    asyncio.run(task())
"""


def pretender(place: str = "proxy/pretender.py") -> dict[str, Any]:
    """Functions that stand, as far as their code says, in a file of the project."""
    names: dict[str, Any] = {}
    exec(compile(PRETENDING, f"{ROOT}/{place}", "exec"), names)
    return names


@pytest.fixture
def found(watched: Watch) -> Any:
    """What has been seen, taken away so that this test doesn't fail of it."""

    def take() -> list[str]:
        seen, watched.foreign = watched.foreign, []
        return seen

    return take


@pytest.fixture
def port() -> Any:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("act", ["connects", "resolves", "sends"])
@pytest.mark.parametrize("place", ["proxy/pretender.py", "vault/pretender.py"])
def test_sockets_of_ours_are_seen(port: int, found: Any, act: str, place: str) -> None:
    """Whatever library stands between."""
    pretender(place)[act](port)
    assert any(place in one for one in found())


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("act", ["opens", "asks"])
def test_event_loops_are_seen_too(port: int, found: Any, loop: Any, act: str) -> None:
    """uvloop's connections and look-ups raise no event of Python's."""
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(pretender()[act](port))
    assert any("proxy/pretender.py" in one for one in found())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_who_has_a_unix_socket_reaches_nothing_else(port: int, found: Any, tmp_path: Path) -> None:
    """The coordinator is in the data directory; another address is past the dialler."""
    acts = pretender("proxy/workers/companion.py")
    place = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(place)
        listening.listen()
        acts["joins"](place)
        for loop in (asyncio.new_event_loop, uvloop.new_event_loop):
            with asyncio.Runner(loop_factory=loop) as runner:
                runner.run(acts["meets"](place))
        assert found() == []
    acts["connects"](port)
    assert any("proxy/workers/companion.py" in one for one in found())


def test_other_threads_are_seen(port: int, found: Any) -> None:
    """A thread has a stack of its own."""
    thread = threading.Thread(target=pretender()["connects"], args=(port,))
    thread.start()
    thread.join()
    assert any("proxy/pretender.py" in one for one in found())


def test_a_test_may_dial(port: int, found: Any) -> None:
    """It is the caller, or the provider."""
    socket.create_connection(("127.0.0.1", port)).close()
    assert found() == []


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_dialler_is_seen_and_may(port: int, watched: Watch, found: Any, loop: Any) -> None:
    """As many connections as it counts itself, and its look-ups."""
    before = watched.allowed[f"{ROOT}/proxy/network.py"]
    dialler = Dialler(SystemResolver())

    async def connect() -> None:
        (await dialler.connect("127.0.0.1", port, Reach.REGISTERED)).close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(connect())
    assert found() == []
    assert dialler.dialled == 1
    assert watched.allowed[f"{ROOT}/proxy/network.py"] > before


def test_a_driver_may_tell_its_server_that_nobody_waits(
    postgres: RunningPostgres, watched: Watch, found: Any
) -> None:
    """On a connection of its own, in a task of its own: on its stack stands who runs the loop."""

    async def give_up() -> None:
        connection = await asyncpg.connect(postgres.url)
        with contextlib.suppress(TimeoutError):
            await connection.execute("SELECT pg_sleep(60)", timeout=0.1)
        await connection.close()

    before = watched.allowed[f"{ROOT}/vault/sessions.py"]
    pretender()["serves"](give_up)
    assert found() == []
    assert watched.allowed[f"{ROOT}/vault/sessions.py"] > before


def test_the_methods_of_the_loop_are_those_that_go_out() -> None:
    """Of everything that a loop can do, these open connections or look names up."""
    outward = {
        name
        for name in dir(uvloop.Loop)
        if name.startswith(("create_connection", "create_unix_conn", "create_datagram", "get"))
        or name == "sock_connect"
    }
    inward = {"get_debug", "get_exception_handler", "get_task_factory"}
    assert outward - inward == set(LOOP_METHODS)


def test_processes_of_ours_are_watched_from_within(tmp_path: Path) -> None:
    """A library's own thread counts there too: nobody of the project is on its stack."""
    program = """
import sys
sys.orig_argv = ["python", "-m", "proxy.cli"]
exec(open(sys.argv[1]).read(), {"__file__": sys.argv[1]})
import socket
with socket.socket() as listening:
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    socket.create_connection(listening.getsockname()).close()
"""
    place = str(sitecustomize.__file__)
    subprocess.run(
        [sys.executable, "-S", "-c", program, place],
        env={**environment(), "RELAY_TESTS_REPORTS": str(tmp_path), "PYTHONPATH": ""},
        check=True,
        timeout=60,
    )
    said = (tmp_path / "dials").read_text()
    assert "foreign socket.connect by nobody of the project" in said


async def test_a_server_opens_as_many_connections_as_come_in(
    tmp_path: Path, watched: Watch
) -> None:
    """On uvloop, in a process of its own: all of them by the dialler, and none beside."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    async with Origin(reply(200, [("Connection", "close")], b"fine")) as origin:
        (data / "keys.yaml").write_text(f"services: {{openai: {{origin: '{origin.url}'}}}}\n")
        await keyrelay(data, "init")
        await keyrelay(data, "key", "add", "openai", stdin="sk-CANARY-0123456789abcdef\n")
        token = (await keyrelay(data, "token", "issue", "caller")).out.strip()
        async with served(data) as server:
            for _ in range(3):
                await call(server.url, "GET", "/proxy/openai/v1/x", ("X-Relay-Token", token))
        assert origin.connections == 3
    lines = (watched.reports / "dials").read_text().splitlines()
    assert lines.count(f"allowed loop.sock_connect {ROOT}/proxy/network.py") == 3
    assert [line for line in lines if not line.startswith("allowed")] == []
