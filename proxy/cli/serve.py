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
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click
import uvloop
from starlette.types import ASGIApp

from proxy import demo
from proxy.app import Relay, Surroundings, assemble
from proxy.cache.entry import SchemaTooNew
from proxy.certificate import Certificate, CertificateError, Pair
from proxy.cli.commands import Command, accept_rollback_option
from proxy.cli.desk import Desk
from proxy.cli.doors import Doors, take_handles
from proxy.cli.failures import Failed
from proxy.cli.server import BACKLOG, WAITS, Server
from proxy.cli.session import open_vault_of, with_desk
from proxy.cli.watching import ConfigFiles
from proxy.config import (
    Config,
    declared_backends,
    declared_keys,
    read_imported_services,
    write_imported_services,
)
from proxy.door import Door
from proxy.heap import given_back
from proxy.logs import Log, LogSettings, logging_to
from proxy.reload import Files, Live, NoFiles, names
from proxy.services import load_services
from proxy.threshold import Agreements
from proxy.usage import UsageTooNew
from vault import Vault

SWITCH_SECONDS = 0.0005  # so long may a thread that writes usage hold calls up
COLLECT_AFTER = (20_000, 20, 20)
"""Young objects until the collector looks; a call makes hundreds that die by themselves."""
LOOPBACK_REACHES = frozenset({"127.0.0.1", "::1", "0.0.0.0", "::"})  # noqa: S104 - compared only
_DEMO_PORT = 8001
_FILE = click.Path(path_type=Path)
PLAIN = frozenset({"metrics"})
"""Listeners without TLS whatever the others speak: for a scraper nearby."""

LOOK_SECONDS = 0.5
"""How often the certificate's files are looked at."""

STANDARD_ERROR = 2
APART_GRACE_SECONDS = 1.0
"""What has a listener of its own answers at once; who reads no further keeps nobody waiting."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What a server stands on: where it listens, what else listens `apart`, its log, the files of
    its configuration, how many it lets in, and the certificate if it speaks TLS."""

    listener: socket.socket
    log: Log
    apart: Mapping[str, socket.socket]
    files: Files
    doors: Doors
    certificate: Certificate | None

    def words(self, data: str) -> str:
        """Where the server is found."""
        apart = [f"{name} on {self.url(one, name)}/{name}" for name, one in self.apart.items()]
        return ", ".join([f"keyrelay listens on {self.url(self.listener)}", *apart, data])

    def url(self, listener: socket.socket, name: str = "") -> str:
        """Where one of its listeners is found."""
        return _url(listener, "https" if self._speaks_tls(name) else "http")

    def _speaks_tls(self, name: str) -> bool:
        return self.certificate is not None and name not in PLAIN

    def server(self, app: ASGIApp, grace: float, name: str = "") -> Server:
        """For callers, or by the name of what listens apart."""
        listener = self.apart[name] if name else self.listener
        door = self.doors.another() if name else self.doors.callers
        return Server(app, listener, grace=grace, entrance=self._entrance(door, name))

    def _entrance(self, door: Door, name: str) -> Door | Agreements:
        certificate = self.certificate
        if certificate is None or not self._speaks_tls(name):
            return door
        return Agreements(lambda: certificate.context, door, WAITS.header)


@click.command(cls=Command)
@click.option("--host", help="address to listen on (default: server.host, 127.0.0.1)")
@click.option("--port", type=click.IntRange(0, 65535), help="port (default: server.port, 8000)")
@click.option("--tls-cert", type=_FILE, help="speak TLS, with this certificate (PEM)")
@click.option("--tls-key", type=_FILE, help="the certificate's key (PEM)")
@click.option("--demo", "with_demo", is_flag=True, help="bring an example backend and a token")
@accept_rollback_option
@with_desk
def serve(desk: Desk, /, with_demo: bool, **given: Any) -> None:
    """Run the proxy; the first start makes what `init` makes."""
    _fill_standard_streams()
    said = _Said(**given)
    said.check(with_demo)
    bare = with_demo and desk.config_option is None
    files = NoFiles() if with_demo else ConfigFiles(desk)
    if with_demo:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # it ends with its terminal
    config = Config() if bare else desk.config("resolve")
    certificate = _certificate(said, config)
    port = config.server.port if said.port is None else said.port
    listener = _listen(said.host or config.server.host, port)
    settings = _log_settings(desk, config)
    with (
        contextlib.closing(listener),
        _listeners(config) as apart,
        logging_to(STANDARD_ERROR, settings) as log,
    ):
        run = _demo if with_demo else _production
        doors = Doors(config, desk.clock, take_handles())
        cut = _run(run(desk, config, Ground(listener, log, apart, files, doors, certificate)))
    _say(f"keyrelay has stopped; {_calls(cut)} cut" if cut else "keyrelay has stopped")


@dataclass(frozen=True, slots=True)
class _Said:
    """Options that stand above the configuration."""

    host: str | None
    port: int | None
    tls_cert: Path | None
    tls_key: Path | None

    def check(self, with_demo: bool) -> None:
        """Raises UsageError."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise click.UsageError("--tls-cert and --tls-key belong together")
        if with_demo and self.tls_cert is not None:
            raise click.UsageError("--demo speaks plain HTTP; leave --tls-cert and --tls-key out")


def _certificate(said: _Said, config: Config) -> Certificate | None:
    chain, key = said.tls_cert, said.tls_key
    if chain is None:
        chain, key = config.server.tls_cert, config.server.tls_key
    if chain is None or key is None:
        return None
    try:
        return Certificate(Pair(chain, key))
    except CertificateError as error:
        raise Failed(str(error)) from error


def _calls(count: int) -> str:
    return "1 call in flight was" if count == 1 else f"{count} calls in flight were"


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
        if select.select([], [sys.stdout], [], 0)[1]:
            click.echo(words)


def _run(main: Coroutine[Any, Any, int]) -> int:
    """On uvloop: less CPU a request than the standard loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


async def _production(desk: Desk, config: Config, ground: Ground) -> int:
    async with _vault(desk, config) as vault:
        services = load_services(config.services)
        app = await assemble(config, services, vault, _around(desk, ground))
        server = ground.server(app, config.server.shutdown_grace)
        return await _serve(app, server, ground, ground.words(f"data in {desk.data}"))


async def _demo(desk: Desk, config: Config, ground: Ground) -> int:
    """The same server, on data of its own, beside a backend that the vault really has a key for."""
    desk.data.mkdir(mode=0o700, parents=True, exist_ok=True)  # production may move in later
    desk.data_option = desk.data / "demo"
    with _alone(desk.data):
        return await _demo_alone(desk, config, ground)


async def _demo_alone(desk: Desk, config: Config, ground: Ground) -> int:
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
            commands = demo.commands(ready, ground.url(ground.listener), desk.clock.now())
            words = ground.words(f"demo data in {desk.data}")
            async with backend.running():
                server = ground.server(app, config.server.shutdown_grace)
                return await _serve(app, server, ground, f"{words}\n\n{commands}\n")


@contextlib.contextmanager
def _alone(data: Path) -> Iterator[None]:
    """Only one demo at a time: each start makes the token of the one before useless."""
    data.mkdir(mode=0o700, exist_ok=True)
    opened = os.open(data / "demo.lock", os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(opened, "r+b") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed(
                f"a demo runs on {data} already; stop it, or name another --data"
            ) from None
        yield


@contextlib.asynccontextmanager
async def _vault(desk: Desk, config: Config) -> AsyncIterator[Vault]:
    vault = await open_vault_of(desk, config, create=True, actor="serve")
    try:
        await vault.declare(declared_keys(config), declared_backends(config))
        yield vault
    finally:
        await vault.close()


def _around(desk: Desk, ground: Ground) -> Surroundings:
    listening = _places(ground.listener).union(*map(_places, ground.apart.values()))
    return Surroundings(
        data=desk.data,
        clock=desk.clock,
        listening=listening,
        observers=(ground.log.call,),
        files=ground.files,
        live=(_live_level(ground.log), ground.doors.live),
        lost_lines=lambda: ground.log.lost,
        arrivals=ground.doors.arrivals,
    )


def _live_level(log: Log) -> Live:
    return Live(names("server", "log_level"), lambda new: log.become(new.server.log_level))


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


def _url(listener: socket.socket, scheme: str = "http") -> str:
    host, port = listener.getsockname()[:2]
    if ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


@contextlib.asynccontextmanager
async def _apart(app: Relay, ground: Ground) -> AsyncIterator[None]:
    """Serves what has a listener of its own as long as the context lasts."""
    async with contextlib.AsyncExitStack() as stack:
        for name in ground.apart:
            server = ground.server(app.apart[name], APART_GRACE_SECONDS, name)
            await stack.enter_async_context(server.running())
        yield


@contextlib.asynccontextmanager
async def _followed(certificate: Certificate | None) -> AsyncIterator[None]:
    """Changed files are taken up as long as the context lasts."""

    async def follow(certificate: Certificate) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            certificate.look()

    following = asyncio.create_task(follow(certificate)) if certificate is not None else None
    try:
        yield
    finally:
        if following is not None:
            following.cancel()


async def _serve(app: Relay, server: Server, ground: Ground, words: str) -> int:
    """Until SIGINT or SIGTERM; a second one doesn't wait for calls in flight. How many were cut.

    `words` are said once calls are answered and a signal ends the server cleanly.
    """
    _heed_signals(app, server, ground)
    try:
        await app.start()
    except (SchemaTooNew, UsageTooNew) as error:
        raise Failed(str(error)) from error
    gc.freeze()  # what lives as long as the process need not be looked at again and again
    gc.set_threshold(*COLLECT_AFTER)
    sys.setswitchinterval(SWITCH_SECONDS)
    _say(words)
    try:
        async with _apart(app, ground), _followed(ground.certificate), given_back():
            await server.run_here()
    finally:
        await server.end_calls()
        await app.stop()
    return server.cut


def _heed_signals(app: Relay, server: Server, ground: Ground) -> None:
    """SIGHUP reads the configuration again, where there is any; the others end the server."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        app.go_down()
        server.stop()
        if count := server.in_flight:
            _say(f"keyrelay is stopping; calls in flight: {count}")

    def reload() -> None:
        app.reload()
        if ground.certificate is not None:
            ground.certificate.renew()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    if isinstance(ground.files, ConfigFiles):
        loop.add_signal_handler(signal.SIGHUP, reload)
