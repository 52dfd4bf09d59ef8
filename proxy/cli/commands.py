"""The classes of our commands: each takes `--data` and `--config`, before its name or behind it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from proxy.cli.desk import CONFIG, DATA, desk_of


def _keeps(attribute: str) -> Callable[[click.Context, click.Parameter, Path | None], None]:
    def keep(ctx: click.Context, _param: click.Parameter, value: Path | None) -> None:
        if value is not None:
            setattr(desk_of(ctx), attribute, value)

    return keep


def _place(name: str, help_text: str) -> Callable[[Any], Any]:
    return click.option(
        f"--{name}",
        type=click.Path(path_type=Path),
        expose_value=False,
        callback=_keeps(f"{name}_option"),
        help=help_text,
    )


def places(command: Any) -> Any:
    """Adds `--data` and `--config`; what they say is kept on the desk."""
    data = _place("data", f"the data directory; else {DATA}, else ./data")
    config = _place("config", f"the configuration; else {CONFIG}, else keys.yaml in the data")
    return data(config(command))


def _accepts(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    desk_of(ctx).accept_rollback = value


accept_rollback_option: Callable[[Any], Any] = click.option(
    "--accept-rollback",
    is_flag=True,
    expose_value=False,
    callback=_accepts,
    help="take an older vault as the newest one from now on",
)


class Command(click.Command):
    """A command with the two places."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        places(self)


class Group(click.Group):
    """A group of such commands."""

    command_class = Command
