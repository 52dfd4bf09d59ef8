"""A changed configuration, taken up by a running server: all of it or nothing, and said in the log.

What no row of `Live` names needs a restart, and the log says so: no setting is silently ignored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from pydantic import BaseModel

from proxy.config import Config, ConfigError, declared_backends, declared_keys
from proxy.services import CurrentServices, load_services
from vault import Backend, NewKey, VaultError

_log = logging.getLogger("keyrelay.configuration")

DECLARED: Final = frozenset({"keys", "backends", "services"})
"""Sections that every reload takes up."""


@dataclass(frozen=True, slots=True)
class Live:
    """Settings that a running server takes up, by their names in the file, and how.

    `take` can't fail: what could was judged when the file was read.
    """

    settings: frozenset[str]
    take: Callable[[Config], None]


def names(section: str, *settings: str) -> frozenset[str]:
    """Settings of a section, as the log names them."""
    return frozenset(f"{section}.{name}" for name in settings)


class Files(Protocol):
    """Where the configuration stands."""

    def changed(self) -> bool:
        """Whether it is another one than was loaded last, and nobody is still writing it."""
        ...

    def load(self) -> Config:
        """What it says now; takes its time. Raises ConfigError."""
        ...

    def taken(self) -> None:
        """What was loaded last is in use from now on."""
        ...


class NoFiles:
    """A configuration that nobody can change."""

    def changed(self) -> bool:
        """Never."""
        return False

    def load(self) -> Config:
        """There is nothing to load."""
        raise ConfigError(("there is no configuration file",))

    def taken(self) -> None:
        """There is nothing to take up."""


class Declares(Protocol):
    """What is asked of the vault."""

    async def declare(self, keys: Iterable[NewKey], backends: Iterable[Backend]) -> None:
        """Replaces what the file owns, as a whole; raises VaultError and changes nothing."""
        ...

    async def note_declared(self) -> None:
        """Leaves in the audit log what is new of that; raises VaultError."""
        ...


class Reloading:
    """Looks at the files, and takes up what they say.

    `notes`: it also puts that into the audit log; of several workers one does.
    """

    def __init__(
        self,
        files: Files,
        config: Config,
        vault: Declares,
        known: CurrentServices,
        *,
        notes: bool = True,
    ) -> None:
        self._files = files
        self._started = self._taken = config
        self._vault = vault
        self._known = known
        self._live: Sequence[Live] = ()
        self._asked = False
        self._refused = False
        self._notes = self._unnoted = notes
        self._told = ""

    def serve(self, live: Sequence[Live]) -> None:
        """What takes settings up, once it is there."""
        self._live = live

    @property
    def live(self) -> frozenset[str]:
        """The settings that are taken up without a restart."""
        return DECLARED.union(*(one.settings for one in self._live))

    def ask(self) -> None:
        """Load with the next look, whether anything seems to have changed or not."""
        self._asked = True

    def ask_if_refused(self) -> None:
        """The same after something else changed, on which the last refusal may have hung."""
        self._asked = self._asked or self._refused

    async def look(self) -> None:
        """Loads if there is something new; whatever is wrong with it stands in the log alone."""
        await self._read()
        if self._unnoted:
            await self._note()

    async def _read(self) -> None:
        asked, self._asked = self._asked, False
        if not self._files.changed() and not asked:
            return
        self._refused = False
        try:
            await self._take(await asyncio.to_thread(self._files.load), asked)
        except ConfigError as error:
            self._refuse(error.mistakes)
        except VaultError as error:
            self._refused = True
            self._refuse((str(error),))

    async def _take(self, new: Config, asked: bool) -> None:
        changed = differences(self._taken, new)
        if not changed:
            _log.log(logging.INFO if asked else logging.DEBUG, "configuration read: no change")
            return
        services = load_services(new.services)
        await self._vault.declare(declared_keys(new), declared_backends(new))
        # From here on nothing waits and nothing fails: no call sees half of two configurations.
        self._known.become(services)
        for one in self._live:
            one.take(new)
        self._taken, self._unnoted = new, self._notes
        self._files.taken()
        self._tell(changed, differences(self._started, new))

    async def _note(self) -> None:
        """What is declared holds already, and a full disk keeps no leaked key alive: it is written
        as soon as that can be, or by the next start."""
        try:
            await self._vault.note_declared()
        except VaultError as error:
            if str(error) != self._told:
                _log.error("not in the audit log yet, what the configuration declares: %s", error)
            self._told = str(error)
        else:
            self._unnoted, self._told = False, ""

    def _tell(self, changed: frozenset[str], since_start: frozenset[str]) -> None:
        if taken := sorted(changed & self.live):
            _log.info("configuration taken up: %s", ", ".join(taken))
        if waiting := sorted(since_start - self.live):
            _log.warning("changed, but in use only after a restart: %s", ", ".join(waiting))
        elif not taken:
            _log.info("configuration as at the start again: no restart is needed")

    def _refuse(self, mistakes: Iterable[str]) -> None:
        for mistake in mistakes:
            _log.error("configuration not taken up, all stays as it was: %s", mistake)


def differences(old: Config, new: Config) -> frozenset[str]:
    """The names of the settings that differ, such as `keys` and `server.port`."""
    return frozenset(_differences(old, new))


def _differences(old: BaseModel, new: BaseModel, place: str = "") -> Iterator[str]:
    for name in type(new).model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if before == after:
            continue
        if not place and isinstance(after, BaseModel):
            yield from _differences(before, after, f"{name}.")
        else:
            yield place + name
