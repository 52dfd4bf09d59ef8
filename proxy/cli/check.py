"""`keyrelay check`: reads the configuration and says every mistake at once."""

from __future__ import annotations

from pathlib import Path

import click

from proxy.cli.commands import Command
from proxy.cli.desk import Desk
from proxy.cli.failures import EXIT_FAILED
from proxy.cli.output import json_option, show_done, show_json
from proxy.cli.session import with_desk
from proxy.config import Config, ConfigError, load_config, read_imported_services


@click.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path), required=False)
@json_option
@with_desk
def check(desk: Desk, file: Path | None, as_json: bool) -> None:
    """Read FILE, or the configuration that serve would read, and say every mistake in it."""
    path = file or desk.config_path
    try:
        imported = read_imported_services(desk.data)
        config = load_config(path, desk.environ, imported=imported)
    except ConfigError as error:
        if not as_json:
            raise
        show_json({"file": str(path) if path else None, "mistakes": list(error.mistakes)})
        click.get_current_context().exit(EXIT_FAILED)
    facts = {"file": str(path) if path else None, "mistakes": [], **_counts(config)}
    show_done(_sentence(path, config), facts, as_json)


def _counts(config: Config) -> dict[str, object]:
    return {
        "services": len(config.services),
        "keys": len(config.keys),
        "backends": len(config.backends),
    }


def _sentence(path: Path | None, config: Config) -> str:
    if path is None:
        return "there is no configuration file: the defaults are in use"
    counted = ", ".join(f"{number} {name}" for name, number in _counts(config).items())
    return f"{path}: no mistakes; {counted}"
