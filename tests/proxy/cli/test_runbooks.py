"""Each block of docs/runbooks.md is run as it stands there, in a shell, against a real vault.

`keyrelay` in that shell hands its words and its input to the test's own process, which runs the
command: fifty new processes would take a minute.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from proxy.cli import keyrelay
from tests.support.canaries import LEDGER, TOKEN
from tests.support.clock import FakeClock
from tests.support.process import environment
from vault import Backend, KeyRecord, Recognised, Token, open_vault, passphrase

PAGE = Path(__file__).parent.parent.parent.parent / "docs/runbooks.md"
OLD, NEW = "sk-runbook-old-0123456789abcdef", "sk-runbook-new-0123456789abcdef"
WORDS = "correct horse battery"
PLACES = ("/var/lib", "/var/backups")
URL = "https://backend.example.com/"
CLIENT = """#!/bin/sh
printf '%s\\n' "$@" > "{home}/words"
cat > "{home}/input"
echo run > "{home}/ask"
read code < "{home}/done"
cat "{home}/said"
exit "$code"
"""


def blocks(title: str) -> Iterator[str]:
    """The shell's blocks of a section, in order."""
    section = PAGE.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    yield from re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Held:
    """What a vault holds."""

    keys: list[KeyRecord]
    tokens: list[Token]
    backends: list[Backend]
    acts: list[str]
    old: tuple[Recognised, ...]


@dataclass(frozen=True)
class Scene:
    """A machine's places below one folder, with a vault, and a shell on it."""

    home: Path

    @property
    def data(self) -> Path:
        return self.home / "var/lib/keyrelay"

    def keyrelay(self, *words: str, stdin: str = "", code: int = 0) -> str:
        """One command, in this process; all that it says."""
        LEDGER.typed(stdin)
        runner = CliRunner(env={"KEYRELAY_DATA": str(self.data), "KEYRELAY_CONFIG": None})
        done = runner.invoke(keyrelay, list(words), input=stdin)
        assert done.exit_code == code, done.output
        for found in TOKEN.finditer(done.stdout):
            LEDGER.token(found[0])
        return done.stdout if code == 0 else done.output

    def run(self, block: str) -> str:
        """What one block says; it must end well."""
        for place in PLACES:
            block = block.replace(place, f"{self.home}{place}")
        environ = environment()
        environ["PATH"] = f"{self.home / 'bin'}:{environ['PATH']}"
        block = f"trap 'echo over > {self.home}/ask' EXIT\n{block}"
        with (self.home / "shell").open("w+") as said:
            shell = subprocess.Popen(
                ["bash", "-euc", block], cwd=self.home, env=environ, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
            )  # fmt: skip
            try:
                while (self.home / "ask").read_text() == "run\n":
                    self._answer()
                code = shell.wait()
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(shell.pid, signal.SIGKILL)  # who still waits for an answer
                shell.wait()
            said.seek(0)
            text = said.read()
        assert code == 0, text
        assert NEW not in text
        for file in self.home.glob("*.token"):  # the shell's own, not keyrelay's
            assert TOKEN.search(file.read_text())
            file.unlink()
        return text

    def _answer(self) -> None:
        words = (self.home / "words").read_text().split("\n")[:-1]
        said = self.keyrelay(*words, stdin=(self.home / "input").read_text())
        (self.home / "said").write_text(said)
        (self.home / "input").write_text("")
        (self.home / "done").write_text("0\n")

    def held(self) -> Held:
        """What the vault holds by now."""

        async def look() -> Held:
            vault = await open_vault(self.data, {}, FakeClock())
            try:
                return Held(
                    keys=await vault.list_keys(),
                    tokens=await vault.list_tokens(),
                    backends=await vault.list_backends(),
                    acts=[one.action for one in await vault.audit()],
                    old=await vault.recognise(OLD.encode()),
                )
            finally:
                await vault.close()

        return asyncio.run(look())


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """With a key, a backend and a token."""
    monkeypatch.setattr(passphrase, "_COST", 10)
    scene = Scene(tmp_path)
    for folder in ("bin", "var/lib", "var/backups"):
        (tmp_path / folder).mkdir(parents=True)
    for name, text in (
        ("keyrelay", CLIENT.format(home=tmp_path)),
        ("systemctl", f'#!/bin/sh\necho "$@" >> "{tmp_path}/units"\n'),
    ):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    for name in ("ask", "done"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "openai.new").write_text(NEW + "\n")
    (tmp_path / "passphrase").write_text(WORDS + "\n")
    scene.keyrelay("init")
    scene.keyrelay("key", "add", "openai", stdin=OLD)
    scene.keyrelay("backend", "add", URL, "--service", "openai")
    scene.keyrelay("token", "issue", "my-frontend")
    yield scene
    for name in ("said", "shell", "words", "input"):
        (tmp_path / name).unlink(missing_ok=True)


@contextmanager
def provider() -> Iterator[tuple[str, list[str]]]:
    """A server that takes any key, its URL, and the keys that it got."""
    shown: list[str] = []

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown.append(self.headers["Authorization"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nobody asked."""

    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", shown
        server.shutdown()
        thread.join()


def test_a_leaked_provider_key(scene: Scene) -> None:
    """The new one is tested and in use, then the backend's way of it is ended and begun anew."""
    rotate, shown, anew = blocks("A provider key has leaked")
    with provider() as (url, keys):
        (scene.data / "keys.yaml").write_text(f"services: {{openai: {{origin: '{url}'}}}}\n")
        scene.run(rotate)
    assert keys == [f"Bearer {NEW}"]
    assert "key rotate" in scene.run(shown)
    scene.run(anew)
    held = scene.held()
    assert [(key.ref.version, key.masked[-4:]) for key in held.keys] == [(3, NEW[-4:])]
    assert held.old == ()
    assert held.acts[:4] == ["backend add", "key add", "key remove", "backend remove"]


def test_a_leaked_token(scene: Scene) -> None:
    """The old one is over, the new one can less; what the old one did is told."""
    change, look = blocks("A platform token has leaked")
    assert "my-frontend" in scene.run(change)
    assert "it changed nothing" in scene.run(look)
    old, new = scene.held().tokens
    assert old.revoked_at is not None
    assert (new.revoked_at, new.name, new.services) == (None, old.name, frozenset({"openai"}))
    assert new.expires_at is not None


def test_a_stolen_database(scene: Scene) -> None:
    """What was taken opens with the old master key alone, and that is nowhere any more."""
    stolen, master = (scene.data / "vault.db").read_bytes(), (scene.data / "master.key").read_text()
    alone, both = blocks("The database file was stolen")
    assert "the audit log is intact" in scene.run(alone)
    assert master.split()[-1] not in (scene.data / "master.key").read_text()
    (scene.data / "vault.db").write_bytes(stolen)
    assert "does not fit this database" in scene.keyrelay("key", "list", code=1)
    after = str(scene.home / "var/backups/keyrelay-after-the-theft")
    scene.keyrelay("restore", after, "--replace", "--accept-rollback", stdin=WORDS)
    scene.run(both)
    assert [one.revoked_at is None for one in scene.held().tokens] == [False, True]


def test_a_database_that_somebody_wrote_to(scene: Scene) -> None:
    """All four ways of looking say what is there."""
    [look] = blocks("Somebody could write to the database")
    said = scene.run(look)
    for found in ("the audit log is intact", "backend add", "my-frontend", URL):
        assert found in said


def test_a_lost_master_key_with_a_backup(scene: Scene) -> None:
    """What was added after the backup is there too."""
    scene.keyrelay("backup", str(scene.home / "var/backups/keyrelay-2026-11-21"), stdin=WORDS)
    scene.keyrelay("key", "add", "cohere", stdin=OLD)
    (scene.data / "master.key").unlink()
    assert "the key is missing" in scene.keyrelay("key", "list", code=1)
    again, _ = blocks("The master key is lost")
    said = scene.run(again)
    assert "cohere" in said
    assert "the audit log is intact" in said
    assert (scene.home / "units").read_text() == "stop keyrelay\nstart keyrelay\n"


def test_a_lost_master_key_without_one(scene: Scene) -> None:
    """The names are told, and all begins anew."""
    (scene.data / "master.key").unlink()
    _, anew = blocks("The master key is lost")
    said = scene.run(anew)
    assert "key default openai default" in said
    assert "token default my-frontend call" in said
    assert "backend default openai https backend.example.com 443 /" in said
    held = scene.held()
    assert [key.masked[-4:] for key in held.keys] == [NEW[-4:]]
    assert [str(one.binding) for one in held.backends] == [URL]
    assert [token.name for token in held.tokens] == ["my-frontend"]


def test_every_section_is_tried() -> None:
    """A new runbook is a new test."""
    titles = re.findall(r"^## (.+)$", PAGE.read_text(), re.MULTILINE)
    assert titles == [
        "A provider key has leaked",
        "A platform token has leaked",
        "The database file was stolen",
        "Somebody could write to the database",
        "The master key is lost",
    ]
