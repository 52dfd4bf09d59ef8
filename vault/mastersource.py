"""Where the master keys come from: an outside file, the environment, a systemd credential, an
outside keeper's command, or the data directory: master.key, or master.sealed and its passphrase."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shlex
import stat
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from vault.errors import AlreadyExists, Invalid, MasterKeyMissing
from vault.files import read_private, reason_of, sync_directory, write_private
from vault.keeper import ask_keeper
from vault.keyring import MasterKey, MasterKeys, words_of_file, words_of_variable
from vault.masterseal import Ask, MasterSeal, require_length
from vault.secret import Secret

FILE_VARIABLE: Final = "KEYRELAY_MASTER_KEY_FILE"
VARIABLE: Final = "KEYRELAY_MASTER_KEY"
CREDENTIALS_VARIABLE: Final = "CREDENTIALS_DIRECTORY"
CREDENTIAL: Final = "keyrelay-master-key"
PASSPHRASE_VARIABLE: Final = "KEYRELAY_MASTER_PASSPHRASE_FILE"  # noqa: S105 - its name
PASSPHRASE_CREDENTIAL: Final = "keyrelay-passphrase"  # noqa: S105 - its name
FILE_NAME: Final = "master.key"
SEALED_NAME: Final = "master.sealed"
FILE_NAMES: Final = (SEALED_NAME, FILE_NAME)

Kind = Literal["data file", "outside file", "environment", "credential", "command", "passphrase"]


@dataclass(frozen=True, slots=True)
class MasterKeySource:
    """One source of master keys. `path` is the file, or where it would be for the environment."""

    kind: Kind
    data: Path
    path: Path
    environ: Mapping[str, str] = field(repr=False)  # it may hold the keys
    command: Sequence[str] = ()
    seal: MasterSeal | None = field(default=None, repr=False)

    @classmethod
    def find(
        cls,
        data: Path,
        environ: Mapping[str, str],
        command: Sequence[str] = (),
        ask: Ask | None = None,
    ) -> MasterKeySource:
        """The outside file, else the environment, else the credential that systemd hands over,
        else the command, else a file in the data directory: master.sealed where it is there, or
        where nothing is yet and a file with its passphrase is named; else master.key.

        `ask`: gives the passphrase where no file is named.
        """
        if FILE_VARIABLE in environ:
            return cls("outside file", data, Path(environ[FILE_VARIABLE]), environ)
        if VARIABLE in environ:
            return cls("environment", data, data / FILE_NAME, environ)
        credential = Path(environ.get(CREDENTIALS_VARIABLE) or "/nonexistent") / CREDENTIAL
        if credential.exists():
            return cls("credential", data, credential, environ)
        if command:
            return cls("command", data, data / FILE_NAME, environ, tuple(command))
        plain, sealed = data / FILE_NAME, data / SEALED_NAME
        named = _passphrase_file(environ)
        if sealed.exists() or (named is not None and not plain.exists()):
            seal = MasterSeal(_asking(sealed, named, ask))
            return cls("passphrase", data, sealed, environ, seal=seal)
        return cls("data file", data, plain, environ)

    def sealed_to(self, passphrase: Secret) -> MasterKeySource:
        """The same place with a new passphrase; raises Invalid."""
        self._require_ours()
        require_length(passphrase)
        seal, path = MasterSeal(lambda: passphrase), self.data / SEALED_NAME
        return replace(self, kind="passphrase", path=path, seal=seal)

    def unsealed(self) -> MasterKeySource:
        """The same place without a passphrase; raises Invalid."""
        self._require_ours()
        return replace(self, kind="data file", path=self.data / FILE_NAME, seal=None)

    def _require_ours(self) -> None:
        if not self.ours:
            raise Invalid(
                f"the master key comes from {self.described}, and a passphrase has no say there; "
                "take that away first"
            )

    def require_none(self) -> None:
        """Raises AlreadyExists where the data directory has a master key."""
        for path in map(self.data.joinpath, FILE_NAMES):
            if path.exists():
                raise AlreadyExists(
                    f"there is a master key already, {path}; to change its passphrase, or to give "
                    "it one: keyrelay master rotate --passphrase"
                )

    @property
    def ours(self) -> bool:
        """Whether the file is ours to make and to rewrite."""
        return self.kind in ("data file", "passphrase")

    @property
    def described(self) -> str:
        """The source as a message names it."""
        if self.kind == "environment":
            return VARIABLE
        if self.kind == "command":
            return f"the command {self.command[0]} (server.master_key_command)"
        if self.kind == "credential":
            return f"the systemd credential {CREDENTIAL}"
        return str(self.path) if self.ours else f"{self.path} ({FILE_VARIABLE})"

    def present(self) -> bool:
        """Whether there is something to read; an outside source is there when it is named."""
        return not self.ours or self.path.exists()

    def read(self) -> MasterKeys:
        """The keys, current first; raises MasterKeyMissing with the remedy."""
        if self.kind == "environment":
            return MasterKeys.parse(words_of_variable(self.environ[VARIABLE]), VARIABLE)
        if self.kind == "command":
            words = words_of_file(ask_keeper(self.command, self.environ))
            return MasterKeys.parse(words, self.described)
        self.check_directory()
        allowed = 0o700 if self.ours else 0o750
        try:
            text = read_private(self.path, allowed, "the master key", MasterKeyMissing)
            words = self._words(text)
        except (OSError, UnicodeDecodeError) as error:
            raise MasterKeyMissing(
                f"the master key {self.described} can't be read ({reason_of(error)}); "
                "restore it from your backup"
            ) from None
        return MasterKeys.parse(words, self.described)

    def _words(self, text: str) -> list[str]:
        if self.seal is None:
            return words_of_file(text)
        words = words_of_file(self.seal.opened(text, self.described))
        plain = self.data / FILE_NAME  # a rotation that gives it a passphrase has not ended
        if plain.exists():
            text = read_private(plain, 0o700, "the master key", MasterKeyMissing)
            words += words_of_file(text)
        return words

    def check_directory(self) -> None:
        """A directory with a master key in it is open to nobody else; raises MasterKeyMissing."""
        if self.ours:
            _refuse_open_directory(self.data)

    def make_directory(self) -> None:
        """Makes the data directory, open to nobody else; raises MasterKeyMissing, OSError."""
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.check_directory()

    def create(self) -> MasterKeys:
        """Makes our file with a new key; durable when this returns. Call it under `locked`."""
        keys = MasterKeys(MasterKey.random())
        self.write(keys)
        return keys

    def write(self, keys: MasterKeys) -> None:
        """Replaces our file as a whole: at any moment it holds the old keys or the new ones."""
        text = keys.file_text()
        write_private(self.path, self.seal.seal(text) if self.seal else text.encode())

    def end_other(self) -> None:
        """Removes the file of the other kind: nothing needs it any more."""
        for name in FILE_NAMES:
            if name != self.path.name:
                (self.data / name).unlink(missing_ok=True)
        sync_directory(self.data)

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """One process at a time makes or rotates what is in the data directory."""
        directory = os.open(self.data, os.O_RDONLY)
        try:
            await asyncio.to_thread(fcntl.flock, directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)


def _passphrase_file(environ: Mapping[str, str]) -> Path | None:
    if PASSPHRASE_VARIABLE in environ:
        return Path(environ[PASSPHRASE_VARIABLE])
    credential = Path(environ.get(CREDENTIALS_VARIABLE) or "/nonexistent") / PASSPHRASE_CREDENTIAL
    return credential if credential.exists() else None


def _asking(sealed: Path, named: Path | None, ask: Ask | None) -> Ask:
    """Reads the named file, as often as wanted; else asks, once."""
    if named is not None:
        return lambda: _read_passphrase(named)
    asks = [ask] if ask is not None else []

    def once() -> Secret:
        if ask is None:
            raise MasterKeyMissing(
                f"the master key {sealed} needs its passphrase: name a file that holds it by "
                f"{PASSPHRASE_VARIABLE}, or run this on a terminal"
            )
        if not asks:
            raise MasterKeyMissing(
                f"the passphrase of {sealed} was changed meanwhile; start this process anew"
            )
        return asks.pop()()

    return once


def _read_passphrase(path: Path) -> Secret:
    try:
        text = read_private(path, 0o750, "the passphrase", MasterKeyMissing).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise MasterKeyMissing(
            f"the passphrase {path} can't be read ({reason_of(error)}); see that it is there, "
            f"or name another file by {PASSPHRASE_VARIABLE}"
        ) from None
    if not text or "\n" in text:
        raise MasterKeyMissing(f"{path} must hold the passphrase, as one line")
    return Secret(text.encode())


def _refuse_open_directory(data: Path) -> None:
    try:
        mode = stat.S_IMODE(data.stat().st_mode)
    except OSError as error:
        raise MasterKeyMissing(
            f"the data directory {data} can't be read ({reason_of(error)})"
        ) from error
    if mode & 0o077:
        remedy = f"chmod 700 {shlex.quote(str(data))}"
        raise MasterKeyMissing(f"the data directory {data} is open to others; run: {remedy}")
