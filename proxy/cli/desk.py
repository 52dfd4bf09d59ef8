"""What a command finds on its desk: the environment, the clock, and where things are.

The environment is read here and nowhere else.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from proxy.clock import Clock, SystemClock

if TYPE_CHECKING:
    from proxy.config import Config, KeyValues, VaultPlace
    from vault import Secret

DATA: Final = "KEYRELAY_DATA"
CONFIG: Final = "KEYRELAY_CONFIG"


@dataclass(slots=True)
class Desk:
    """One command line's view of the machine."""

    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    clock: Clock = field(default_factory=SystemClock)
    data_option: Path | None = None
    config_option: Path | None = None
    accept_rollback: bool = False
    ask: Callable[[], Secret] | None = None
    """Gives the passphrase of the master key, where it is not to be typed here and now."""

    @property
    def data(self) -> Path:
        """`--data`, else KEYRELAY_DATA, else ./data."""
        return self.data_option or Path(self.environ.get(DATA) or "data")

    @property
    def actor(self) -> str:
        """Who is at this desk, for the audit log."""
        try:
            return f"cli {pwd.getpwuid(os.getuid()).pw_name}"
        except KeyError:  # a container's user needs no name
            return f"cli {os.getuid()}"

    @property
    def config_path(self) -> Path | None:
        """`--config`, else KEYRELAY_CONFIG, else keys.yaml in the data directory if it is there."""
        if named := self.config_option or self.environ.get(CONFIG):
            return Path(named)
        usual = self.data / "keys.yaml"
        return usual if usual.exists() else None

    def config(self, key_values: KeyValues = "leave") -> Config:
        """The configuration. `leave`: the environment variables of keys need not be set here."""
        # Imported here: `keyrelay --help` must not wait for pydantic.
        from proxy.config import load_config, read_imported_services  # noqa: PLC0415

        return load_config(
            self.config_path,
            self.environ,
            imported=read_imported_services(self.data),
            key_values=key_values,
        )

    def vault_place(self) -> VaultPlace:
        """Where the vault is, whatever else is wrong with the configuration."""
        from proxy.config import VaultPlace, load_vault_place  # noqa: PLC0415

        path = self.config_path
        return VaultPlace() if path is None else load_vault_place(path, self.environ)


def desk_of(ctx: click.Context) -> Desk:
    """The desk of this command line, made when it is first asked for."""
    return ctx.ensure_object(Desk)
