"""`serve --workers N`: one supervisor, one coordinator, N workers on the same listening sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from proxy.cli.coordinating import Duty, coordinate
from proxy.cli.desk import Desk
from proxy.cli.failures import Failed
from proxy.cli.leash import Leash
from proxy.cli.listening import Listeners
from proxy.cli.secrets_in import on_terminal, type_passphrase
from proxy.cli.session import alone, open_vault_of
from proxy.cli.supervisor import Role, Supervisor
from proxy.config import Config, declared_backends, declared_keys
from proxy.header import begin_ids
from proxy.logs import OWN, LogSettings, Told, write_line
from proxy.workers.companion import Companion, Meeting
from vault import MasterKeyMissing, Secret

STANDARD_ERROR: Final = 2
LONGEST_PATH: Final = 100
"""Octets of a Unix socket's name: an address holds 108, or 104."""


@dataclass(frozen=True, slots=True)
class Post:
    """One worker's place among the others. `run`: the same for all of one start."""

    leash: Leash
    companion: Companion
    run: str
    settings: LogSettings

    @contextlib.asynccontextmanager
    async def accompanied(self) -> AsyncIterator[None]:
        """Connected to the coordinator as long as the context lasts."""
        await self.companion.start()
        try:
            yield
        finally:
            await self.companion.stop()


OR_WAIT: Final = "if it was killed, wait a few seconds for its last calls"


@dataclass(frozen=True, slots=True)
class Team:
    """What workers are started with. `work`: a worker's life, its exit code; `listeners`: those of
    callers, which all workers have; `say`: tells people, on standard output."""

    desk: Desk
    config: Config
    workers: int
    settings: LogSettings
    listeners: Listeners
    work: Callable[[Post], int]
    say: Callable[[str], None]

    def run(self, words: str) -> int:
        """Until it is told to stop: how many calls were cut. `words` are said once all are ready.

        Raises Failed; why, a child has said.
        """
        self._prepare()
        data = self.desk.data
        with (
            # To the last of its processes: a new team never meets workers of an old one.
            alone(data / "workers.lock", f"keyrelay runs on {data} already, with workers", OR_WAIT),
            _met(data, self.workers) as (meeting, listener),
            tempfile.TemporaryFile() as turns,
        ):
            settings = replace(self.settings, turns=turns.fileno())
            supervisor = Supervisor(
                self._roles(meeting, listener, settings),
                self.desk.clock,
                self.config.server.shutdown_grace,
            )
            supervisor.tell = partial(self._tell, settings)
            supervisor.started = partial(self.say, words)
            supervisor.stopping = self.listeners.close
            if not supervisor.run():
                raise Failed("the workers could not be started")
            return supervisor.cut

    def _roles(
        self, meeting: Meeting, listener: socket.socket, settings: LogSettings
    ) -> list[Role]:
        run = secrets.token_hex(8)
        own = replace(settings, process="coordinator")

        def lead(leash: Leash) -> int:
            self.listeners.close()
            return coordinate(Duty(self.desk, self.config, meeting, listener), leash, own)

        def work(number: int, leash: Leash) -> int:
            listener.close()
            begin_ids()
            named = replace(settings, process=f"worker {number}")
            return self.work(Post(leash, Companion(meeting, number), run, named))

        workers = [
            Role(f"worker {number}", partial(work, number)) for number in range(1, self.workers + 1)
        ]
        return [Role("the coordinator", lead, alone=True), *workers]

    def _tell(self, settings: LogSettings, level: str, words: str) -> None:
        told = Told(self.desk.clock.now(), level, OWN, words, {"process": "supervisor"})
        write_line(STANDARD_ERROR, settings, told)

    def _prepare(self) -> None:
        """Makes the vault, or sees that it opens: once, in a process of its own, which leaves this
        one without threads and without keys. A passphrase that somebody types is kept for all."""
        desk = self.desk
        preparing = Supervisor([Role("", partial(_open_once, desk, self.config))], desk.clock, 0)
        if not preparing.run_once():
            raise Failed("the server was not started")
        passphrase = preparing.passphrase
        desk.ask = (lambda: Secret(passphrase)) if passphrase else _nobody
        desk.accept_rollback = False  # what is older than now is not to be taken later


def _nobody() -> Secret:
    raise MasterKeyMissing("the master key has a passphrase now; stop keyrelay and start it again")


def _open_once(desk: Desk, config: Config, leash: Leash) -> int:
    """Makes what is missing: the vault, and the data keys that every worker uses."""

    def typed() -> Secret:
        text = type_passphrase()
        leash.passphrase(text)
        return Secret(text)

    async def opened() -> None:
        vault = await open_vault_of(desk, config, create=True, actor="serve")
        try:
            await vault.declare(declared_keys(config), declared_backends(config))
            await vault.sealer("cache-bodies")
            for purpose in ("cache-keys", "pseudonym"):
                await vault.hasher(purpose)
        finally:
            await vault.close()

    desk.ask = typed if on_terminal() else None
    asyncio.run(opened())
    return 0


@contextlib.contextmanager
def _met(data: Path, workers: int) -> Iterator[tuple[Meeting, socket.socket]]:
    """The socket of the coordinator, listening: in the data directory, where its name fits."""
    with contextlib.ExitStack() as stack:
        path = (data / "workers.sock").absolute()
        if len(os.fsencode(path)) > LONGEST_PATH:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="keyrelay-"))
            path = Path(folder) / "workers.sock"
        path.unlink(missing_ok=True)
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        stack.callback(path.unlink, missing_ok=True)
        listener.listen()
        yield Meeting(path, secrets.token_bytes(32), workers), listener
