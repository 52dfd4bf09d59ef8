"""The watch sees whoever dials past the dialler, in every way that there is, and whoever may but
goes elsewhere than the configuration says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
import uvloop
from redis import asyncio as redis

from proxy.clock import SystemClock
from proxy.engine import Engine, Gone, Place
from proxy.network import Dialler, SystemResolver
from proxy.reach import Reach
from tests.support.caller import call
from tests.support.child import sitecustomize
from tests.support.dials import (
    COLLECTOR,
    COMPANION,
    DATABASE,
    ENGINE,
    KEEPER,
    LOOP_METHODS,
    MAY,
    ROOT,
    SESSIONS,
    Watch,
)
from tests.support.engines import RunningPostgres
from tests.support.origin import Origin, reply
from tests.support.process import environment, keyrelay, served
from vault.sessions import Sessions

PRETENDING = """
import asyncio, http.client, os, socket, subprocess, urllib.request

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

def serves(task):
    asyncio.run(task())

def starts(program):
    subprocess.run([program], check=True)

def shells(program):
    os.system(program)

async def spawns(program):
    await (await asyncio.create_subprocess_exec(program)).wait()

def on_behalf(act, whither, self=None, url=None, command=None):
    return act(whither)

async def opens(port):
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()

async def asks(port):
    await asyncio.get_running_loop().getaddrinfo("localhost", port)
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


@pytest.mark.parametrize("act", ["starts", "shells"])
def test_programs_are_seen(found: Any, act: str) -> None:
    """One that we start could dial, unseen."""
    pretender()[act]("true")
    assert any("proxy/pretender.py" in one for one in found())


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_programs_of_event_loops_are_seen(found: Any, loop: Any) -> None:
    """Also those that uvloop starts."""
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(pretender()["spawns"]("true"))
    assert any("proxy/pretender.py" in one for one in found())


# Whither.


@pytest.fixture
def socket_in(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Makes a listening socket in the file system."""
    listening = []

    def listen(name: str) -> str:
        one = socket.socket(socket.AF_UNIX)
        listening.append(one)
        one.bind(str(tmp_path / name))
        one.listen()
        return str(tmp_path / name)

    yield listen
    for one in listening:
        one.close()


def a_redis(host: str, port: int, kind: str = "single", **client: Any) -> dict[str, Any]:
    place = SimpleNamespace(kind=kind, nodes=((host, port),), path="")
    return {"self": SimpleNamespace(place=place, _client=SimpleNamespace(**client))}


def at_sentinels(port: int) -> dict[str, Any]:
    pool = SimpleNamespace(master_address=("127.0.0.1", port))
    return a_redis("sentinels.test", 1, "sentinel", connection_pool=pool)


def in_a_cluster(port: int) -> dict[str, Any]:
    nodes = {"another": SimpleNamespace(host="127.0.0.1", port=port)}
    told = SimpleNamespace(nodes_cache=nodes)
    return a_redis("cluster.test", 1, "cluster", nodes_manager=told)


def a_postgres(where: str) -> Callable[[int], dict[str, Any]]:
    return lambda port: {"self": SimpleNamespace(_dsn=f"postgresql://me:pw@{where.format(port)}")}


def an_endpoint(port: int) -> dict[str, Any]:
    return {"self": SimpleNamespace(_endpoint=SimpleNamespace(host="localhost", port=port))}


def by_name(path: Any) -> str | None:
    return str(path).removeprefix(ROOT) if isinstance(path, str) else None


CONFIGURED: list[tuple[str, Callable[[int], dict[str, Any]]]] = [
    (ENGINE, lambda port: a_redis("localhost", port)),
    (ENGINE, at_sentinels),
    (ENGINE, in_a_cluster),
    (SESSIONS, a_postgres("localhost:{}/vault")),
    (SESSIONS, a_postgres("elsewhere.test:1,127.0.0.1:{}/vault")),
    (SESSIONS, a_postgres("/vault?host=127.0.0.1&port={}")),
    (DATABASE, lambda port: {"url": f"postgresql://127.0.0.1:{port}/vault"}),
    (COLLECTOR, an_endpoint),
]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(("file", "said"), CONFIGURED, ids=by_name)
def test_a_connection_goes_where_the_configuration_says(
    port: int, found: Any, watched: Watch, file: str, said: Callable[[int], dict[str, Any]]
) -> None:
    """By name, by address, or where Redis itself says that its others are; and nowhere else."""
    acts, before = pretender(file.removeprefix(f"{ROOT}/")), watched.allowed[file]
    acts["on_behalf"](acts["connects"], port, **said(port))
    assert (found(), watched.allowed[file] > before) == ([], True)
    with socket.socket() as another:
        another.bind(("127.0.0.1", 0))
        another.listen()
        acts["on_behalf"](acts["connects"], another.getsockname()[1], **said(port))
    assert any(f"{file} to " in one for one in found())
    acts["on_behalf"](acts["connects"], port, **said(1))
    assert any(f"{file} to " in one for one in found())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("file", [file for file, says in MAY.items() if says], ids=by_name)
def test_who_may_goes_nowhere_by_itself(port: int, found: Any, file: str) -> None:
    """Without a configuration on the stack; and no program is started but the keeper's command."""
    acts = pretender(file.removeprefix(f"{ROOT}/"))
    for act, whither in (("connects", port), ("resolves", port), ("sends", port)):
        acts[act](whither)
        assert any(f"by {file} to " in one for one in found()), act
    acts["on_behalf"](acts["starts"], "true", command=["false"])
    assert any(f"by {file} to ['true']" in one for one in found())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("file", [one for one in MAY if MAY[one] is MAY[ENGINE]], ids=by_name)
def test_who_asks_the_client_goes_where_its_engine_is(port: int, found: Any, file: str) -> None:
    """The room stands nearest to the socket, the engine behind it."""
    act = pretender(file.removeprefix(f"{ROOT}/"))["connects"]
    on_behalf = pretender("proxy/engine.py")["on_behalf"]
    on_behalf(act, port, **a_redis("127.0.0.1", port))
    assert found() == []
    on_behalf(act, port, **a_redis("127.0.0.1", port + 1))
    assert any(f"by {file} to ('127.0.0.1', {port})" in one for one in found())


def test_a_keeper_is_the_command_that_was_set(found: Any) -> None:
    """Word for word."""
    acts = pretender("vault/keeper.py")
    acts["on_behalf"](acts["starts"], "true", command=("true",))
    assert found() == []
    acts["on_behalf"](acts["starts"], "true", command=("true", "-x"))
    assert any(KEEPER in one for one in found())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_worker_reaches_its_coordinator_alone(
    port: int, found: Any, socket_in: Callable[[str], str]
) -> None:
    """A socket in the data directory: neither another one nor an address."""
    acts = pretender("proxy/workers/companion.py")
    right, wrong = socket_in("right"), socket_in("wrong")
    known = {"self": SimpleNamespace(_meeting=SimpleNamespace(path=Path(right)))}

    def each(whither: str) -> None:
        acts["on_behalf"](acts["joins"], whither, **known)
        for loop in (asyncio.new_event_loop, uvloop.new_event_loop):
            with asyncio.Runner(loop_factory=loop) as runner:
                acts["on_behalf"](lambda path: runner.run(acts["meets"](path)), whither, **known)

    each(right)
    assert found() == []
    each(wrong)
    assert len([one for one in found() if f"by {COMPANION} to {wrong}" in one]) == 4
    acts["on_behalf"](acts["connects"], port, **known)
    assert any(f"by {COMPANION} to ('127.0.0.1', {port})" in one for one in found())


@asynccontextmanager
async def hanging_up() -> AsyncIterator[int]:
    """The port of a server that says nothing."""
    server = await asyncio.start_server(lambda _r, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_client_of_redis_that_goes_astray_is_seen(watched: Watch, found: Any) -> None:
    """The engine's own is where `cache.url` says; one that somebody else made is not."""
    async with hanging_up() as configured, hanging_up() as another:
        before = watched.allowed[ENGINE]
        place = Place.of(f"redis://:some-password@localhost:{configured}")
        engine = Engine(place, "relay", SystemClock())
        with pytest.raises(Gone):
            await engine.run(lambda client: client.ping())
        assert (found(), watched.allowed[ENGINE] > before) == ([], True)
        await engine.aclose()
        engine = Engine(place, "relay", SystemClock())
        engine._client = redis.Redis(port=another)
        with pytest.raises(Gone):
            await engine.run(lambda client: client.ping())
        await engine.aclose()
    assert any(f"by {ENGINE} to " in one and str(another) in one for one in found())


async def test_a_driver_of_postgresql_that_goes_astray_is_seen(
    watched: Watch, found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is where `vault.url` says, and nowhere else."""
    usual = asyncpg.connect
    async with hanging_up() as configured, hanging_up() as another:
        sessions = Sessions(f"postgresql://me@localhost:{configured}/vault?sslmode=disable")
        before = watched.allowed[SESSIONS]
        with pytest.raises((OSError, asyncpg.PostgresError)):
            await sessions.connect()
        assert (found(), watched.allowed[SESSIONS] > before) == ([], True)
        monkeypatch.setattr(asyncpg, "connect", lambda _dsn, **more: usual(port=another, **more))
        with pytest.raises((OSError, asyncpg.PostgresError)):
            await sessions.connect()
    assert any(f"by {SESSIONS} to " in one and str(another) in one for one in found())


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
    """Of all that a loop can do, these open connections, look names up or start programs."""
    ways = ("create_connection", "create_unix_conn", "create_datagram", "subprocess", "get")
    outward = {name for name in dir(uvloop.Loop) if name.startswith((*ways, "sock_connect"))}
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
