"""Where a key comes in: a prompt without echo, or standard input. Never an argument."""

from __future__ import annotations

import signal
import sys
from typing import Final

import click

from proxy.cli.failures import Failed
from proxy.services.model import Service
from vault import Credential, Secret

_LONGEST: Final = 65536

EXPOSED: Final = (
    "a key is never an argument: it stands in the shell's history and in the process list now, "
    "so consider it exposed, replace it at the provider, and give the new one at the prompt "
    "or by standard input"
)


def read_credential(service: Service) -> Credential:
    """The parts of a key: asked one by one on a terminal, else one line each, in their order."""
    if sys.stdin.isatty():
        return {
            part.name: Secret(
                click.prompt(part.title, hide_input=part.secret, err=True, type=str).encode()
            )
            for part in service.parts
        }
    return _of_lines(service)


def read_line() -> bytes:
    """One secret line of standard input, such as a token; empty where there is none."""
    if sys.stdin.isatty():
        return b""
    return sys.stdin.buffer.read(_LONGEST).strip()


def read_url() -> str:
    """A URL that may hold a password: asked for without echo on a terminal, else one line."""
    if on_terminal():
        return str(click.prompt("URL", hide_input=True, err=True, type=str)).strip()
    return sys.stdin.buffer.read(_LONGEST).decode(errors="replace").strip()


def on_terminal() -> bool:
    """Whether somebody is there to be asked."""
    return sys.stdin.isatty()


def ask_passphrase() -> Secret:
    """The passphrase of the master key, typed without echo; Ctrl-C ends it at once."""
    return Secret(type_passphrase())


def type_passphrase() -> bytes:
    """The same, to be handed on."""
    before = signal.getsignal(signal.SIGINT)
    # The loop that runs would take the first one for itself, and only after the answer.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        text = click.prompt("Passphrase of the master key", hide_input=True, err=True, type=str)
    finally:
        signal.signal(signal.SIGINT, before)
    return str(text).encode()


def read_passphrase(*, again: bool, title: str = "Passphrase") -> Secret:
    """A passphrase: asked for on a terminal, a second time if `again`; else one line."""
    if on_terminal():
        text = click.prompt(title, hide_input=True, confirmation_prompt=again, err=True, type=str)
        return Secret(text.encode())
    lines = sys.stdin.buffer.read(_LONGEST).rstrip(b"\r\n").split(b"\n")
    if lines == [b""] or len(lines) != 1:
        raise Failed(
            "expected the passphrase as one line by standard input, or run this on a terminal"
        )
    return Secret(lines[0])


def _of_lines(service: Service) -> Credential:
    lines = sys.stdin.buffer.read(_LONGEST).rstrip(b"\r\n").split(b"\n")
    names = [part.name for part in service.parts]
    if lines == [b""]:
        raise Failed("nothing came by standard input: pipe the key in, or run this on a terminal")
    if len(lines) != len(names):
        raise Failed(
            f"expected {len(names)} lines by standard input ({', '.join(names)}), got {len(lines)}"
            if len(names) > 1
            else f"expected one line by standard input, got {len(lines)}"
        )
    return {name: Secret(line.rstrip(b"\r")) for name, line in zip(names, lines, strict=True)}
