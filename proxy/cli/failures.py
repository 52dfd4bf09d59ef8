"""Whatever goes wrong: one sentence on standard error and an exit code, never a traceback.

A mistyped command line may hold a key (`keyrelay key add openai sk-...`), so no word that the
caller typed is repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import click

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2


class Failed(click.ClickException):
    """The command can't do what was asked; each line is one sentence with the remedy."""

    exit_code = EXIT_FAILED

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))


def report(error: BaseException) -> int:
    """Says what went wrong on standard error; gives the exit code."""
    if isinstance(error, BrokenPipeError):
        return EXIT_FAILED
    if isinstance(error, click.UsageError) and error.message.startswith("Usage:"):
        click.echo(error.message, err=True)  # a group without a command: its help
        return EXIT_USAGE
    for line in _lines(error):
        click.echo(f"keyrelay: {line}", err=True)
    return EXIT_USAGE if isinstance(error, click.UsageError) else EXIT_FAILED


def _lines(error: BaseException) -> Iterable[str]:
    if isinstance(error, click.UsageError):
        return (_usage_sentence(error),)
    if isinstance(error, click.ClickException):
        return error.format_message().splitlines()
    if isinstance(error, click.Abort | KeyboardInterrupt | EOFError):
        return ("stopped before the end",)
    if isinstance(error, OSError):
        return (_system_sentence(error),)
    return (
        f"an unexpected {type(error).__name__} ended the command; "
        "its text is not shown because it could hold a key",
    )


def _system_sentence(error: OSError) -> str:
    reason = (error.strerror or type(error).__name__).lower()
    return f"{error.filename}: {reason}" if error.filename else reason


def _usage_sentence(error: click.UsageError) -> str:
    path = error.ctx.command_path if error.ctx else "keyrelay"
    return f"{_without_words(error)} (see {path} --help)"


def _without_words(error: click.UsageError) -> str:
    message = error.message
    if isinstance(error, click.NoSuchOption):
        near = f", did you mean {error.possibilities[0]}" if error.possibilities else ""
        return f"no such option{near}"
    if isinstance(error, click.MissingParameter):
        return f"{_hint(error)} is missing"
    if isinstance(error, click.BadParameter):
        return f"{_hint(error)}: {_expected(error)}"
    if message.startswith("Got unexpected extra argument"):
        return "too many arguments"
    if message.startswith("No such command"):
        return "no such command"
    return message[:1].lower() + message[1:].rstrip(".")


def _hint(error: click.BadParameter) -> str:
    return error.param.get_error_hint(error.ctx).strip("'") if error.param else "a parameter"


def _expected(error: click.BadParameter) -> str:
    kind = error.param.type if error.param else None
    if isinstance(kind, click.Choice):
        return "expected one of " + ", ".join(map(str, kind.choices))
    if isinstance(kind, click.IntRange):
        return f"expected a whole number from {kind.min} to {kind.max}"
    return error.message


@contextmanager
def plainly() -> Iterator[None]:
    """Turns a rule's ValueError (one sentence, without a value) into the command's failure."""
    try:
        yield
    except ValueError as error:
        raise Failed(str(error)) from error
