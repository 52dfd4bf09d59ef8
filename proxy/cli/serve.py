"""`keyrelay serve`: runs the proxy, and with --demo the example that goes with it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import os
import select
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click
import uvicorn
import uvloop
from starlette.types import ASGIApp

from proxy import demo
from proxy.app import Relay, Surroundings, assemble
from proxy.cache.entry import SchemaTooNew
from proxy.cli.commands import Command
from proxy.cli.desk import Desk
from proxy.cli.failures import Failed
from proxy.cli.session import with_desk
from proxy.config import (
    IMPORTED,
    Config,
    declared_backends,
    declared_keys,
    read_imported_services,
    write_imported_services,
)
from proxy.logs import Log, LogSettings, logging_to
from proxy.patience import Waits
from proxy.protocol import RelayProtocol
from proxy.services import Services, load_services
from proxy.usage import UsageTooNew
from vault import Vault, open_vault

GRACE_SECONDS = 10
"""How long calls in flight may take to end when the server is told to stop."""

BACKLOG = 2048

WAITS = Waits()

COLLECT_AFTER = (20_000, 20, 20)
"""Young objects until the collector looks; a call makes hundreds that die by themselves."""
LOOPBACK_REACHES = frozenset({"127.0.0.1", "::1", "0.0.0.0", "::"})  # noqa: S104 - compared only
_DEMO_PORT = 8001
STANDARD_ERROR = 2


@dataclass(frozen=True, slots=True)
class Ground:
    """What a server stands on: where it listens, what else listens `apart`, and its log."""

    listener: socket.socket
    log: Log
    apart: Mapping[str, socket.socket]

    def words(self, data: str) -> str:
        """Where the server is found."""
        apart = [f"{name} on {_url(one)}/{name}" for name, one in self.apart.items()]
        return ", ".join([f"keyrelay listens on {_url(self.listener)}", *apart, data])


@click.command(cls=Command)
@click.option("--host", help="address to listen on (default: server.host, 127.0.0.1)")
@click.option("--port", type=click.IntRange(0, 65535), help="port (default: server.port, 8000)")
@click.option("--demo", "with_demo", is_flag=True, help="bring an example backend and a token")
@with_desk
def serve(desk: Desk, host: str | None, port: int | None, with_demo: bool) -> None:
    """Run the proxy; the first start makes what `init` makes."""
    _fill_standard_streams()
    config = Config() if with_demo and desk.config_option is None else desk.config("resolve")
    listener = _listen(host or config.server.host, config.server.port if port is None else port)
    settings = _log_settings(desk, config)
    with (
        contextlib.closing(listener),
        _listeners(config) as apart,
        logging_to(STANDARD_ERROR, settings) as log,
    ):
        run = _demo if with_demo else _production
        _run(run(desk, config, Ground(listener, log, apart)))
    _say("keyrelay has stopped")


def _log_settings(desk: Desk, config: Config) -> LogSettings:
    server = config.server
    return LogSettings(server.log_format, server.log_level, "NO_COLOR" not in desk.environ)


def _fill_standard_streams() -> None:
    """Where one was closed, the next file to be opened would get its number, and our words."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        pass
    os.close(opened)


def _say(words: str) -> None:
    """For people, where somebody takes it: a pipe that nobody reads keeps no server from ending."""
    with contextlib.suppress(OSError, ValueError):
        if not select.select([], [sys.stdout], [], 0)[1]:
            return
    click.echo(words)


def _run(main: Any) -> None:
    """On uvloop: less CPU a request than the standard loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


async def _production(desk: Desk, config: Config, ground: Ground) -> None:
    async with _vault(desk, config) as vault:
        services = load_services(config.services)
        around = replace(_around(desk, ground), newer_services=Imported(desk.data, config))
        app = await assemble(config, services, vault, around)
        await _serve(app, ground, ground.words(f"data in {desk.data}"))


async def _demo(desk: Desk, config: Config, ground: Ground) -> None:
    """The same server, on data of its own, beside a backend that the vault really has a key for."""
    desk.data.mkdir(mode=0o700, parents=True, exist_ok=True)  # production may move in later
    desk.data_option = desk.data / "demo"
    with _alone(desk.data):
        await _demo_alone(desk, config, ground)


async def _demo_alone(desk: Desk, config: Config, ground: Ground) -> None:
    async with _vault(desk, config) as vault:
        known = {**read_imported_services(desk.data), demo.SERVICE: demo.DEFINITION}
        write_imported_services(desk.data, known)  # for every command
        services = load_services({**config.services, demo.SERVICE: demo.DEFINITION})
        with contextlib.closing(await _demo_listener(vault)) as backend_listener:
            ready = await demo.prepare(vault, backend_listener.getsockname()[1])
            (desk.data / "demo-token").touch(mode=0o600)
            (desk.data / "demo-token").write_text(ready.token + "\n")
            app = await assemble(config, services, vault, _around(desk, ground))
            backend = Server(demo.backend(), backend_listener)
            commands = demo.commands(ready, _url(ground.listener), desk.clock.now())
            words = ground.words(f"demo data in {desk.data}")
            async with backend.running():
                await _serve(app, ground, f"{words}\n\n{commands}\n")


@contextlib.contextmanager
def _alone(data: Path) -> Iterator[None]:
    """Only one demo at a time: each start makes the token of the one before useless."""
    data.mkdir(mode=0o700, exist_ok=True)
    with (data / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed(
                f"a demo runs on {data} already; stop it, or name another --data"
            ) from None
        yield


class Imported:
    """Tells when `keyrelay import` has registered services since; the configuration's own win."""

    def __init__(self, data: Path, config: Config) -> None:
        self._data = data
        self._seen = _state(data / IMPORTED)
        imported = read_imported_services(data)
        self._own = {
            name: entry for name, entry in config.services.items() if imported.get(name) != entry
        }

    def __call__(self) -> Services | None:
        """The registry with what was imported, if that has changed; raises ConfigError."""
        state = _state(self._data / IMPORTED)
        if state == self._seen:
            return None
        self._seen = state
        return load_services({**read_imported_services(self._data), **self._own})


def _state(path: Path) -> tuple[int, int, int] | None:
    """What a replaced file can't share with the one before."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size)


@contextlib.asynccontextmanager
async def _vault(desk: Desk, config: Config) -> AsyncIterator[Vault]:
    vault = await open_vault(desk.data, desk.environ, desk.clock, create=True, actor="serve")
    try:
        await vault.declare(declared_keys(config), declared_backends(config))
        yield vault
    finally:
        await vault.close()


def _around(desk: Desk, ground: Ground) -> Surroundings:
    listening = _places(ground.listener).union(*map(_places, ground.apart.values()))
    watching = (ground.log.call,) if ground.log.takes_calls else ()
    return Surroundings(
        data=desk.data,
        clock=desk.clock,
        listening=listening,
        observers=watching,
        lost_lines=lambda: ground.log.lost,
    )


def _places(listener: socket.socket) -> frozenset[tuple[str, int]]:
    host, port = listener.getsockname()[:2]
    names = {host, "localhost"} if host in LOOPBACK_REACHES else {host}
    return frozenset((name, port) for name in names)


@contextlib.contextmanager
def _listeners(config: Config) -> Iterator[Mapping[str, socket.socket]]:
    """What has a listener of its own, by its name in `Relay.apart`."""
    server = config.server
    places = {"metrics": server.metrics_listen, "admin": server.admin_listen}
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(
                contextlib.closing(_listen(*place, remedy=f"another server.{name}_listen"))
            )
            for name, place in places.items()
            if place is not None
        }


def _listen(host: str, port: int, remedy: str = "another --port") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = (error.strerror or type(error).__name__).lower()
        raise Failed(f"can't listen on {host} port {port}: {reason}; use {remedy}") from error
    return listener


async def _demo_listener(vault: Vault) -> socket.socket:
    """The port of the last start where it is free, so that kept answers are found again."""
    before = await demo.registered_port(vault)
    for port in (before or _DEMO_PORT, 0):
        with contextlib.suppress(Failed):
            return _listen("127.0.0.1", port)
    raise Failed("no free port for the example backend")


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn without its own signal handling, so that two can run in one process."""

    def __init__(self, app: ASGIApp, listener: socket.socket, waits: Waits = WAITS) -> None:
        config = uvicorn.Config(
            app,
            http=partial(RelayProtocol, waits=waits),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        super().__init__(config)
        self._listener = listener

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The loop's own handlers are set by whoever runs the server."""
        yield

    async def run_here(self) -> None:
        """Serves until `should_exit`."""
        await self.serve(sockets=[self._listener])

    async def end_calls(self) -> None:
        """Ends the calls that are still in flight; each one tells its caller."""
        calls = list(self.server_state.tasks)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serves as long as the context lasts."""
        task = asyncio.create_task(self.run_here())
        try:
            yield
        finally:
            self.should_exit = True
            await task


@contextlib.asynccontextmanager
async def _apart(app: Relay, ground: Ground) -> AsyncIterator[None]:
    """Serves what has a listener of its own as long as the context lasts."""
    async with contextlib.AsyncExitStack() as stack:
        for name, listener in ground.apart.items():
            await stack.enter_async_context(Server(app.apart[name], listener).running())
        yield


async def _serve(app: Relay, ground: Ground, words: str) -> None:
    """Until SIGINT or SIGTERM; a second one doesn't wait for calls in flight.

    `words` are said once calls are answered and a signal ends the server cleanly.
    """
    server = Server(app, ground.listener)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        await app.start()
    except (SchemaTooNew, UsageTooNew) as error:
        raise Failed(str(error)) from error
    gc.freeze()  # what lives as long as the process need not be looked at again and again
    gc.set_threshold(*COLLECT_AFTER)
    click.echo(words)
    try:
        async with _apart(app, ground):
            await server.run_here()
    finally:
        await server.end_calls()
        await app.stop()
