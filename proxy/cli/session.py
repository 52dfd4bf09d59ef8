"""A command's session: the configuration, the services and the vault, opened once and closed."""

from __future__ import annotations

import asyncio
import fcntl
import functools
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import click

from proxy.cli.desk import DATA, Desk, desk_of
from proxy.cli.failures import Failed
from proxy.cli.secrets_in import ask_passphrase, on_terminal
from proxy.config import Config, ConfigError, declared_backends, declared_keys
from proxy.errors import RelayError
from proxy.services import Services, load_services
from vault import Declared, Secret, Vault, VaultError, open_vault

P = ParamSpec("P")
AsyncCommand = Callable[Concatenate["Session", P], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Session:
    """What an asynchronous command works with."""

    desk: Desk
    config: Config
    vault: Vault

    @cached_property
    def services(self) -> Services:
        """The services known by name, with those of the configuration."""
        return load_services(self.config.services)

    @property
    def now(self) -> float:
        """Unix seconds."""
        return self.desk.clock.now()


def require_data(desk: Desk) -> None:
    """Raises Failed where there is no data directory: only init, serve and import make one."""
    if not desk.data.is_dir():
        raise Failed(
            f"there is no data directory {desk.data}: run keyrelay init, "
            f"or name another with --data or {DATA}"
        )


async def open_vault_of(
    desk: Desk,
    config: Config,
    *,
    create: bool = False,
    actor: str = "",
    new_passphrase: Secret | None = None,
) -> Vault:
    """The desk's vault, by the master key or passphrase that belongs to it.

    Of the environment it gets what the configuration takes no secret from: a command that keeps the
    master key is given the rest.
    """
    return await open_vault(
        desk.data,
        {name: text for name, text in desk.environ.items() if name not in config.variables},
        desk.clock,
        url=None if config.vault.url is None else config.vault.url.text,
        create=create,
        actor=actor or desk.actor,
        accept_rollback=desk.accept_rollback,
        master_key_command=config.server.master_key_command,
        ask=desk.ask or (ask_passphrase if on_terminal() else None),
        new_passphrase=new_passphrase,
    )


@asynccontextmanager
async def open_session(
    desk: Desk, config: Config, *, mending: bool = False
) -> AsyncIterator[Session]:
    """The vault with what the configuration declares; raises Failed where nothing is there yet.

    `mending`: go on where file and vault hold the same name, so that it can be removed.
    """
    require_data(desk)
    vault = await open_vault_of(desk, config)
    try:
        with suppress(Declared) if mending else nullcontext():
            await vault.declare(declared_keys(config), declared_backends(config))
        yield Session(desk, config, vault)
        if late := await vault.catch_up():
            click.echo(f"keyrelay: what was changed stands, but {late}", err=True)
    finally:
        await vault.close()


def with_desk(command: Callable[Concatenate[Desk, P], None]) -> Callable[P, None]:
    """A command that gets the desk."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with told():
            command(desk_of(click.get_current_context()), *args, **kwargs)

    return run


def with_session(command: AsyncCommand[P]) -> Callable[P, None]:
    """An asynchronous command that gets a session, closed when it is done."""
    return _run(command, mending=False)


def with_mending_session(command: AsyncCommand[P]) -> Callable[P, None]:
    """The same for a command that takes something away: it also goes on where the configuration is
    wrong, for a leaked token can't wait until somebody has mended that. See `open_session`."""
    return _run(command, mending=True)


def _run(command: AsyncCommand[P], mending: bool) -> Callable[P, None]:
    async def inside(*args: P.args, **kwargs: P.kwargs) -> None:
        desk = desk_of(click.get_current_context())
        config = _config_or_none(desk) if mending else desk.config()
        async with open_session(desk, config, mending=mending) as session:
            await command(session, *args, **kwargs)

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with told():
            asyncio.run(inside(*args, **kwargs))

    return run


def _config_or_none(desk: Desk) -> Config:
    try:
        return desk.config()
    except ConfigError:
        click.echo(
            "keyrelay: the configuration has mistakes, keyrelay check tells them; "
            "this goes on without it",
            err=True,
        )
        return Config(vault=desk.vault_place())


@contextmanager
def alone(lock: Path, doing: str, remedy: str = "") -> Iterator[None]:
    """Held by this process and its children, to the last of them; Failed where others hold it, by
    what they are `doing`, with one more `remedy`."""
    opened = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(opened, "r+b") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            words = "; ".join(filter(None, (f"{doing}; stop it, or name another --data", remedy)))
            raise Failed(words) from None
        yield


@contextmanager
def told() -> Iterator[None]:
    """Turns what the rooms below refuse into the command's failure: their sentences are safe."""
    try:
        yield
    except ConfigError as error:
        raise Failed(*error.mistakes) from error
    except VaultError as error:
        raise Failed(str(error)) from error
    except RelayError as error:
        raise Failed(error.remark) from error
