"""Asks an outside keeper of the master key: a command that prints it, such as a KMS's own."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

from vault.errors import MasterKeyMissing

SECONDS: Final = 30.0
_LARGEST: Final = 65536
_OURS: Final = "KEYRELAY_MASTER_"
"""How variables begin that say where a master key is, or what it is."""


def ask_keeper(command: Sequence[str], environ: Mapping[str, str], seconds: float = SECONDS) -> str:
    """What the command prints; raises MasterKeyMissing, never with what it said.

    It is started without a shell and without an input; what it says beside goes nowhere. Of the
    environment it is given all but what names a master key: others can read that of a process.
    """
    try:
        done = subprocess.run(  # noqa: S603 - the admin's own words, from the configuration
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: text for name, text in environ.items() if not name.startswith(_OURS)},
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _failed(f"took longer than {seconds:g} seconds") from None
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or "it is no command").lower()
        raise _failed(f"can't be started ({reason})") from None
    if done.returncode != 0:
        raise _failed(f"ended with code {done.returncode}")
    try:
        return done.stdout[:_LARGEST].decode()
    except UnicodeDecodeError:
        raise _failed("printed what is no text") from None


def _failed(why: str) -> MasterKeyMissing:
    return MasterKeyMissing(
        f"the command of server.master_key_command {why}; run it by hand to see what it says"
    )
