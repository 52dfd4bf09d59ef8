"""`keyrelay import`: a file's keys, backends and services, all at once or not at all."""

from __future__ import annotations

import os
import sqlite3

import pytest

from proxy.cli import importing
from proxy.cli.desk import Desk
from proxy.cli.init import make
from proxy.config import read_imported_services, write_imported_services
from tests.proxy.cli.conftest import CANARY, OTHER, Terminal
from tests.proxy.test_config import EXAMPLE, example_environ

FILE = f"""
services:
  mine: {{hosts: [api.mine.example.com], key_name: X-Key, prefix: ''}}
backends:
  - {{service: mine, url: "http://localhost:9000/v1"}}
keys:
  - {{service: openai, value: {CANARY}}}
  - {{service: mine, tenant: research, value: {OTHER}}}
"""


def test_an_import_makes_everything_and_says_what_it_did(shell: Terminal) -> None:
    """Also the data directory; and again it changes nothing."""
    path = shell.write("team.yaml", FILE)
    assert shell.run("import", path).out.splitlines() == [
        "added      service mine",
        "added      key openai/default of tenant default",
        "added      key mine/default of tenant research",
        "added      backend http://localhost:9000/v1 for mine of tenant default",
        "4 added",
    ]
    assert shell.run("import", path).out.splitlines()[-1] == "4 unchanged"
    path.unlink()
    assert [row["owner"] for row in shell.run("key", "list", "--all").rows] == ["vault", "vault"]
    assert shell.run("backend", "list").rows[0]["owner"] == "vault"
    assert shell.run("service", "show", "mine", "--json").json["key_in"] == ["header X-Key: {key}"]


def test_a_key_changed_since_is_a_conflict_that_replace_decides(shell: Terminal) -> None:
    """Without --replace nothing of the file is imported."""
    shell.run("import", shell.write("team.yaml", FILE))
    changed = FILE.replace(CANARY, OTHER) + "  - {service: groq, value: another-key}\n"
    path = shell.write("team.yaml", changed)
    said = shell.run("import", path, "--json", code=1)
    assert {row["done"] for row in said.json} == {"added", "unchanged", "conflict"}
    assert "--replace" in said.err
    assert [row["key"] for row in shell.run("key", "list").rows] == ["…cdef"]
    shell.run("import", path, "--replace")
    keys = {row["service"]: row["key"] for row in shell.run("key", "list").rows}
    assert keys == {"openai": "…3210", "groq": "…"}


def test_a_service_changed_since_is_a_conflict_too(shell: Terminal) -> None:
    """Its key would travel differently from then on."""
    shell.run("import", shell.write("team.yaml", FILE))
    path = shell.write("team.yaml", FILE.replace("X-Key", "X-Other"))
    assert "conflict   service mine" in shell.run("import", path, code=1).out
    assert shell.run("service", "show", "mine", "--json").json["key_in"] == ["header X-Key: {key}"]
    assert "replaced   service mine" in shell.run("import", path, "--replace").out
    shown = shell.run("service", "show", "mine", "--json").json
    assert shown["key_in"] == ["header X-Other: {key}"]


def test_services_of_an_earlier_import_stay_known(shell: Terminal) -> None:
    """A second file may use them, and does not list them."""
    shell.run("import", shell.write("team.yaml", FILE))
    second = shell.write("second.yaml", f"keys: [{{service: mine, alias: b, value: {CANARY}}}]")
    assert shell.run("import", second).out.splitlines()[-1] == "1 added"
    assert shell.run("import", shell.write("empty.yaml", "")).out == "nothing in it\n"


def test_an_import_can_come_through_a_pipe(relay: Terminal) -> None:
    """`import <(decrypt keys.yaml)`: a plain key need never lie on a disk, and it is read once."""
    relay.run("import", relay.write("team.yaml", FILE))
    for changed, code, done in (
        (FILE, 0, "unchanged"),
        (FILE.replace("X-Key", "X-B"), 1, "conflict"),
    ):
        reading, writing = os.pipe()
        os.write(writing, changed.encode())
        os.close(writing)
        said = relay.run("import", f"/dev/fd/{reading}", code=code)
        os.close(reading)
        assert f"{done.ljust(9)}  service mine" in said.out


def test_an_import_that_ended_meanwhile_is_added_to(
    shell: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two imports at once: none loses what the other registered."""

    async def make_late(desk: Desk) -> None:
        await make(desk)
        write_imported_services(desk.data, {"other": {"hosts": ["api.other.example.com"]}})

    monkeypatch.setattr(importing, "make", make_late)
    assert "4 added" in shell.run("import", shell.write("team.yaml", FILE)).out
    assert {"mine", "other"} <= {row["name"] for row in shell.run("service", "list").rows}
    assert set(read_imported_services(shell.data)) == {"mine", "other"}


def test_a_conflict_that_came_up_meanwhile_is_one(
    shell: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other import's service differs: nothing of this file is imported."""

    async def make_late(desk: Desk) -> None:
        await make(desk)
        write_imported_services(desk.data, {"mine": {"hosts": ["api.other.example.com"]}})

    monkeypatch.setattr(importing, "make", make_late)
    shell.run("import", shell.write("team.yaml", FILE), code=1)
    assert shell.run("key", "list", "--all").rows == []


def test_keys_that_cannot_be_stored_leave_the_services_as_they_were(relay: Terminal) -> None:
    """All of it or nothing."""
    with sqlite3.connect(relay.data / "vault.db") as database:
        database.execute(
            "CREATE TRIGGER full BEFORE INSERT ON keys BEGIN SELECT RAISE(FAIL, 'x'); END"
        )
    database.close()
    relay.run("import", relay.write("team.yaml", FILE), code=1)
    assert read_imported_services(relay.data) == {}
    assert [path.name for path in relay.data.iterdir() if path.suffix == ".new"] == []


def test_root_leaves_the_services_to_the_owner_of_the_data(
    relay: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the server, which is not root, could not start any more."""
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda _file, user, group: given.append((user, group)))
    relay.run("import", relay.write("team.yaml", FILE))
    owner = relay.data.stat()
    assert given == [(owner.st_uid, owner.st_gid)]


def test_mistakes_stop_an_import_before_anything_is_made(shell: Terminal) -> None:
    """All of them at once, with the path in the file."""
    path = shell.write("team.yaml", FILE + "  - {service: nosuch, value: x}\nserver: {port: a}\n")
    lines = shell.run("import", path, code=1).err.splitlines()
    assert [line.split(": ")[2] for line in lines] == ["keys[2]", "server.port"] or len(lines) == 2
    assert not shell.data.exists()
    shell.run("import", shell.home / "none.yaml", code=1)


def test_the_configuration_itself_needs_no_import(relay: Terminal) -> None:
    """What it declares is there already."""
    path = relay.write("data/keys.yaml", "keys: {openai: '${A}'}")
    assert "needs no import" in relay.run("import", path, code=1).err
    relay.environ["A"] = CANARY
    other = relay.write("copy.yaml", path.read_text())
    assert "configuration file" in relay.run("import", other, code=1).err


@pytest.fixture
def example(shell: Terminal) -> Terminal:
    """The example as a team would have filled it in."""
    shell.environ |= example_environ()
    (shell.home / "secrets").mkdir()
    shell.write("secrets/twilio_auth_token", "token\n")
    shell.write("team.yaml", EXAMPLE.read_text())
    return shell


def test_the_example_imports(example: Terminal) -> None:
    """keys.example.yaml is what its head says: also an import."""
    said = example.run("import", "team.yaml")
    assert said.out.splitlines()[-1] == "12 added"
    assert example.run("import", "team.yaml").out.splitlines()[-1] == "12 unchanged"


def test_check_takes_the_example(example: Terminal) -> None:
    """And says how much is in it."""
    said = example.run("check", "team.yaml")
    assert said.out == "team.yaml: no mistakes; 5 services, 5 keys, 2 backends\n"


def test_check_says_every_mistake(shell: Terminal) -> None:
    """One line each, on standard error; as JSON on standard output."""
    shell.environ["A"] = "a"
    path = shell.write(
        "bad.yaml", f"keys: {{openai: {CANARY}, opanai: '${{A}}'}}\nserver: {{port: x}}\n"
    )
    assert len(shell.run("check", path, code=1).err.splitlines()) == 3
    document = shell.run("check", path, "--json", code=1).json
    assert len(document["mistakes"]) == 3
    shell.environ["KEYRELAY_CONFIG"] = str(path)
    assert len(shell.run("check", code=1).err.splitlines()) == 3


def test_check_without_a_file_says_so(shell: Terminal) -> None:
    """The defaults are a configuration too."""
    assert "the defaults are in use" in shell.run("check").out
    assert shell.run("check", "--json").json["mistakes"] == []
    assert "no such file" in shell.run("check", "none.yaml", code=1).err
