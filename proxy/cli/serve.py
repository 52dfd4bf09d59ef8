"""`keyrelay serve`: runs the proxy, and with --demo the example that goes with it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
import signal
import socket
import sys
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from proxy.cli.leash import RELOAD, STOP
from proxy.cli.listening import Listeners, listen, listening
from proxy.cli.server import WAITS, Server
from proxy.cli.session import alone, open_vault_of, with_desk
from proxy.cli.watching import ConfigFiles
from proxy.config import (
    MOST_WORKERS,
    Config,
    VaultPlace,
    declared_backends,
    declared_keys,
    read_imported_services,
    write_imported_services,
)
from proxy.door import Door
from proxy.heap import given_back
from proxy.logs import Log, LogSettings, logging_to
from proxy.reload import DECLARED, Files, Live, NoFiles, names
from proxy.services import load_services
from proxy.threshold import Agreements
from proxy.usage import UsageTooNew
from vault import Vault

if TYPE_CHECKING:
    from proxy.cli.team import Post

SWITCH_SECONDS = 0.0005  # so long may a thread that writes usage hold calls up
COLLECT_AFTER = (4_000, 100, 20)
"""Young objects until the collector looks; a call makes hundreds that die by themselves. Those of a
crowd live: to look at many thousands of them at once would keep everybody else waiting."""
_DEMO_PORT = 8001
_FILE = click.Path(path_type=Path)
LOOK_SECONDS = 0.5
"""How often the certificate's files are looked at."""

STANDARD_ERROR = 2
APART_GRACE_SECONDS = 1.0
"""What has a listener of its own answers at once; who reads no further keeps nobody waiting."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What a server stands on: its listeners, its log, the files of its configuration, how many it
    lets in, the certificate if it speaks TLS, and its post if it is one worker of several."""

    listeners: Listeners
    log: Log
    files: Files
    doors: Doors
    certificate: Certificate | None
    post: Post | None = None

    def server(self, app: ASGIApp, grace: float, name: str = "") -> Server:
        """For callers, or by the name of what listens apart."""
        door = self.doors.another() if name else self.doors.callers
        entrance = self._entrance(door, name)
        return Server(app, self.listeners.named(name), grace=grace, entrance=entrance)

    def _entrance(self, door: Door, name: str) -> Door | Agreements:
        certificate = self.certificate
        if certificate is None or not self.listeners.speaks_tls(name):
            return door
        return Agreements(lambda: certificate.context, door, WAITS.header)


@click.command(cls=Command)
@click.option("--host", help="address to listen on (default: server.host, 127.0.0.1)")
@click.option("--port", type=click.IntRange(0, 65535), help="port (default: server.port, 8000)")
@click.option("--tls-cert", type=_FILE, help="speak TLS, with this certificate (PEM)")
@click.option("--tls-key", type=_FILE, help="the certificate's key (PEM)")
@click.option(
    "--workers", type=click.IntRange(1, MOST_WORKERS), help="processes (default: server.workers, 1)"
)
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
    workers = 1 if with_demo else said.workers or config.server.workers
    certificate = _certificate(said, config)
    host, port = said.place(config)
    with listening(config, host, port, certificate is not None) as listeners:
        start = _Start(desk, config, said, listeners, files)
        cut = start.together(workers) if workers > 1 else start.alone(with_demo)
    _say(f"keyrelay has stopped; {_calls(cut)} cut" if cut else "keyrelay has stopped")


@dataclass(frozen=True, slots=True)
class _Said:
    """Options that stand above the configuration."""

    host: str | None
    port: int | None
    tls_cert: Path | None
    tls_key: Path | None
    workers: int | None

    def check(self, with_demo: bool) -> None:
        """Raises UsageError."""
        if with_demo and (self.workers or 1) > 1:
            raise click.UsageError("--demo is one process; leave --workers out")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise click.UsageError("--tls-cert and --tls-key belong together")
        if with_demo and self.tls_cert is not None:
            raise click.UsageError("--demo speaks plain HTTP; leave --tls-cert and --tls-key out")

    def place(self, config: Config) -> tuple[str, int]:
        """Where callers come."""
        port = config.server.port if self.port is None else self.port
        return self.host or config.server.host, port


@dataclass(frozen=True, slots=True)
class _Start:
    """What every process of a server starts with."""

    desk: Desk
    config: Config
    said: _Said
    listeners: Listeners
    files: Files

    def alone(self, with_demo: bool) -> int:
        """One process; how many calls were cut."""
        run = _demo if with_demo else _production
        with logging_to(STANDARD_ERROR, _log_settings(self.desk, self.config)) as log:
            return _run(run(self.desk, self.config, self._ground(log)))

    def together(self, workers: int) -> int:
        """Several; how many calls were cut."""
        from proxy.cli.team import Team  # noqa: PLC0415 - no other start waits for it

        desk, config = self.desk, self.config
        settings = _log_settings(desk, config)
        team = Team(desk, config, workers, settings, self.listeners, self._work, _say)
        return team.run(self.listeners.words(f"{workers} workers, data in {desk.data}"))

    def _work(self, post: Post) -> int:
        """One worker. What stands in the file now is declared; all else begins as at the start of
        the others, and is taken up as they did."""
        now = self.files.begun(self.config) if isinstance(self.files, ConfigFiles) else self.config
        declared = {name: getattr(now, name) for name in DECLARED}
        config = self.config.model_copy(update=declared)
        with logging_to(STANDARD_ERROR, post.settings) as log:
            post.leash.cut(_run(_production(self.desk, config, self._ground(log, post))))
        return 0

    def _ground(self, log: Log, post: Post | None = None) -> Ground:
        workers = 1 if post is None else post.companion.workers
        doors = Doors(self.config, self.desk.clock, take_handles(), workers)
        certificate = _certificate(self.said, self.config)
        return Ground(self.listeners, log, self.files, doors, certificate, post)


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
        if ground.post is not None:
            vault.run_as(ground.post.run)
        app = await assemble(config, services, vault, _around(desk, ground))
        server = ground.server(app, config.server.shutdown_grace)
        return await _serve(app, server, ground, ground.listeners.words(f"data in {desk.data}"))


async def _demo(desk: Desk, config: Config, ground: Ground) -> int:
    """The same server, on data of its own, beside a backend that the vault really has a key for."""
    desk.data.mkdir(mode=0o700, parents=True, exist_ok=True)  # production may move in later
    desk.data_option = desk.data / "demo"
    apart = config.model_copy(update={"vault": VaultPlace()})
    desk.data.mkdir(mode=0o700, exist_ok=True)
    # Each start makes the token of the one before useless.
    with alone(desk.data / "demo.lock", f"a demo runs on {desk.data} already"):
        return await _demo_alone(desk, apart, ground)


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
            commands = demo.commands(ready, ground.listeners.url(), desk.clock.now())
            words = ground.listeners.words(f"demo data in {desk.data}")
            async with backend.running():
                server = ground.server(app, config.server.shutdown_grace)
                return await _serve(app, server, ground, f"{words}\n\n{commands}\n")


@contextlib.asynccontextmanager
async def _vault(desk: Desk, config: Config) -> AsyncIterator[Vault]:
    vault = await open_vault_of(desk, config, create=True, actor="serve")
    try:
        await vault.declare(declared_keys(config), declared_backends(config))
        yield vault
    finally:
        await vault.close()


def _around(desk: Desk, ground: Ground) -> Surroundings:
    return Surroundings(
        data=desk.data,
        clock=desk.clock,
        listening=ground.listeners.places,
        observers=(ground.log.call,),
        files=ground.files,
        live=(_live_level(ground.log), ground.doors.live),
        lost_lines=lambda: ground.log.lost,
        arrivals=ground.doors.arrivals,
        companion=None if ground.post is None else ground.post.companion,
    )


def _live_level(log: Log) -> Live:
    return Live(names("server", "log_level"), lambda new: log.become(new.server.log_level))


async def _demo_listener(vault: Vault) -> socket.socket:
    """The port of the last start where it is free, so that kept answers are found again."""
    before = await demo.registered_port(vault)
    for port in (before or _DEMO_PORT, 0):
        with contextlib.suppress(Failed):
            return listen("127.0.0.1", port)
    raise Failed("no free port for the example backend")


@contextlib.asynccontextmanager
async def _apart(app: Relay, ground: Ground) -> AsyncIterator[None]:
    """Serves what has a listener of its own as long as the context lasts."""
    async with contextlib.AsyncExitStack() as stack:
        for name in ground.listeners.apart:
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

    `words` are said once calls are answered and a signal ends the server cleanly; of a worker its
    parent says them, and what it is told comes from there.
    """
    post = ground.post
    async with contextlib.nullcontext() if post is None else post.accompanied():
        return await _serve_here(app, server, ground, words)


async def _serve_here(app: Relay, server: Server, ground: Ground, words: str) -> int:
    _heed_orders(app, server, ground)
    try:
        await app.start()
    except (SchemaTooNew, UsageTooNew) as error:
        raise Failed(str(error)) from error
    gc.freeze()  # what lives as long as the process need not be looked at again and again
    gc.set_threshold(*COLLECT_AFTER)
    sys.setswitchinterval(SWITCH_SECONDS)
    _say(words) if ground.post is None else ground.post.leash.ready()
    try:
        async with _apart(app, ground), _followed(ground.certificate), given_back():
            await server.run_here()
    finally:
        await server.end_calls()
        await app.stop()
    return server.cut


def _heed_orders(app: Relay, server: Server, ground: Ground) -> None:
    """SIGHUP reads the configuration again, where there is any; the others end the server."""
    loop, post = asyncio.get_running_loop(), ground.post

    def stop() -> None:
        app.go_down()
        server.stop()
        if post is None and (count := server.in_flight):
            _say(f"keyrelay is stopping; calls in flight: {count}")

    def reload() -> None:
        app.reload()
        if ground.certificate is not None:
            ground.certificate.renew()

    if post is not None:
        post.leash.follow({STOP: stop, RELOAD: reload})
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    if isinstance(ground.files, ConfigFiles):
        loop.add_signal_handler(signal.SIGHUP, reload)
