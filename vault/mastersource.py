"""Where the master keys come from: an outside file, the environment, a systemd credential, an
outside keeper's command, or master.key in the data directory."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shlex
import stat
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from vault.errors import MasterKeyMissing
from vault.files import reason_of, write_private
from vault.keeper import ask_keeper
from vault.keyring import MasterKey, MasterKeys, words_of_file, words_of_variable

FILE_VARIABLE: Final = "KEYRELAY_MASTER_KEY_FILE"
VARIABLE: Final = "KEYRELAY_MASTER_KEY"
CREDENTIALS_VARIABLE: Final = "CREDENTIALS_DIRECTORY"
CREDENTIAL: Final = "keyrelay-master-key"
FILE_NAME: Final = "master.key"
_LARGEST: Final = 65536

Kind = Literal["data file", "outside file", "environment", "credential", "command"]


@dataclass(frozen=True, slots=True)
class MasterKeySource:
    """One source of master keys. `path` is the file, or where it would be for the environment."""

    kind: Kind
    data: Path
    path: Path
    environ: Mapping[str, str] = field(repr=False)  # it may hold the keys
    command: Sequence[str] = ()

    @classmethod
    def find(
        cls, data: Path, environ: Mapping[str, str], command: Sequence[str] = ()
    ) -> MasterKeySource:
        """The outside file, else the environment, else the credential that systemd hands over,
        else the command, else master.key in the data directory."""
        if FILE_VARIABLE in environ:
            return cls("outside file", data, Path(environ[FILE_VARIABLE]), environ)
        if VARIABLE in environ:
            return cls("environment", data, data / FILE_NAME, environ)
        credential = Path(environ.get(CREDENTIALS_VARIABLE) or "/nonexistent") / CREDENTIAL
        if credential.exists():
            return cls("credential", data, credential, environ)
        kind: Kind = "command" if command else "data file"
        return cls(kind, data, data / FILE_NAME, environ, tuple(command))

    @property
    def ours(self) -> bool:
        """Whether the file is ours to make and to rewrite."""
        return self.kind == "data file"

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
            text = _read(self.path, allowed)
        except (OSError, UnicodeDecodeError) as error:
            raise MasterKeyMissing(
                f"the master key {self.described} can't be read ({reason_of(error)}); "
                "restore it from your backup"
            ) from None
        return MasterKeys.parse(words_of_file(text), self.described)

    def check_directory(self) -> None:
        """A directory with a master key in it is open to nobody else; raises MasterKeyMissing."""
        if self.ours:
            _refuse_open_directory(self.data)

    def make_directory(self) -> None:
        """Makes the data directory, open to nobody else; raises MasterKeyMissing, OSError."""
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.check_directory()

    def create(self) -> MasterKeys:
        """Makes master.key with a new key; durable when this returns. Call it under `locked`."""
        keys = MasterKeys(MasterKey.random())
        self.write(keys)
        return keys

    def write(self, keys: MasterKeys) -> None:
        """Replaces master.key as a whole: at any moment it holds the old keys or the new ones."""
        write_private(self.path, keys.file_text().encode())

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """One process at a time makes or rotates what is in the data directory."""
        directory = os.open(self.data, os.O_RDONLY)
        try:
            await asyncio.to_thread(fcntl.flock, directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)


def _read(path: Path, allowed: int) -> str:
    # The mode is asked of the opened file: no other can be put under the name meanwhile.
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & ~allowed & 0o777:
            remedy = f"chmod {allowed & 0o640:o} {shlex.quote(str(path))}"
            raise MasterKeyMissing(f"the master key {path} is open to others; run: {remedy}")
        return file.read(_LARGEST).decode()


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
