"""A person at the command line: types, reads, and never sees a key."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from proxy.cli import keyrelay
from proxy.cli.desk import Desk
from proxy.clock import Clock, SystemClock

CANARY = "sk-canary-0123456789abcdef"
OTHER = "sk-canary-fedcba9876543210"


@dataclass(frozen=True)
class Said:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return orjson.loads(self.out)

    @property
    def rows(self) -> list[dict[str, str]]:
        """The lines of a piped table, by column."""
        columns, *lines = (line.split("\t") for line in self.out.splitlines())
        return [dict(zip(columns, line, strict=True)) for line in lines]


@dataclass
class Terminal:
    """One shell with its working directory, data directory and environment."""

    home: Path
    environ: dict[str, str] = field(default_factory=dict)
    clock: Clock = field(default_factory=SystemClock)

    @property
    def data(self) -> Path:
        return self.home / "data"

    def run(self, *words: object, stdin: str | bytes = "", code: int = 0) -> Said:
        """In this process; asserts the exit code, one sentence per failure, and no key anywhere."""
        env = {"KEYRELAY_DATA": str(self.data), "KEYRELAY_CONFIG": None, **self.environ}
        runner = CliRunner(env=env)
        with runner.isolation(input=stdin):
            desk = Desk(clock=self.clock)
        result = runner.invoke(keyrelay, [str(word) for word in words], input=stdin, obj=desk)
        return checked(Said(result.exit_code, result.stdout, result.stderr), code)

    def spawn(self, *words: object, stdin: str = "", code: int = 0) -> Said:
        """The same as a process of its own, as a script would."""
        result = subprocess.run(
            [sys.executable, "-m", "proxy.cli", *map(str, words)],
            input=stdin.encode(),
            capture_output=True,
            check=False,
            env={**os.environ, "KEYRELAY_DATA": str(self.data), **self.environ},
            cwd=self.home,
            timeout=60,
        )
        said = Said(result.returncode, result.stdout.decode(), result.stderr.decode())
        return checked(said, code)

    def write(self, name: str, text: str) -> Path:
        path = self.home / name
        path.write_text(text)
        return path


def checked(said: Said, code: int) -> Said:
    assert said.code == code, (said.code, said.out, said.err)
    for shown in (said.out, said.err):
        assert CANARY not in shown
        assert OTHER not in shown
        assert "Traceback" not in shown
    if code:
        assert said.err.startswith(("keyrelay: ", "Usage: ")) or said.out
        assert said.err.startswith("Usage: ") or not said.err.rstrip().endswith(".")
    return said


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A shell in an empty place."""
    forget_settings(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return Terminal(tmp_path)


def forget_settings(patch: pytest.MonkeyPatch) -> None:
    """Those of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("KEYRELAY_")]:
        patch.delenv(name)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory after `keyrelay init`."""
    terminal = Terminal(tmp_path_factory.mktemp("made"))
    with pytest.MonkeyPatch.context() as patch:
        forget_settings(patch)
        terminal.run("init")
    return terminal.data


@pytest.fixture
def relay(shell: Terminal, made: Path) -> Terminal:
    """The same with such a one."""
    shutil.copytree(made, shell.data)
    return shell
