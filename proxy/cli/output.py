"""What a command prints: a table on a terminal, tab-separated lines in a pipe, JSON when asked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
import orjson

Row = Mapping[str, object]

json_option: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="print one JSON document"
)


def show_json(document: object) -> None:
    """One JSON document on standard output."""
    text = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    click.echo(text.decode())


def show_done(sentence: str, facts: Row, as_json: bool) -> None:
    """What was done: one sentence, or the facts of it as JSON."""
    if as_json:
        show_json(_members(facts))
    else:
        click.echo(sentence)


def show_table(columns: Sequence[str], rows: Sequence[Row], as_json: bool) -> None:
    """Rows by column; JSON gets every member of a row, also those that have no column."""
    if as_json:
        show_json([_members(row) for row in rows])
    elif sys.stdout.isatty():
        # Imported here: rich takes longer to load than most commands take to run.
        from proxy.cli.drawing import draw  # noqa: PLC0415

        draw(columns, [[_text(row[name]) for name in columns] for row in rows])
    else:
        for line in (columns, *([_text(row[name]) for name in columns] for row in rows)):
            click.echo("\t".join(line))


def show_facts(facts: Row, as_json: bool) -> None:
    """One thing, a line for each of its members."""
    if as_json:
        show_json(_members(facts))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name.ljust(width)}  {_text(value)}")


def instant(seconds: float | None) -> str | None:
    """Unix seconds as an ISO 8601 date and time in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _members(row: Row) -> dict[str, object]:
    """The row with names that are easy to write in a script."""
    return {name.replace(" ", "_"): value for name, value in row.items()}


def _text(value: object) -> str:
    if value is None or value == ():
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(map(str, value)) or "-"
    return str(value)
