"""A changed configuration: all of it or nothing, and never silently ignored (issue: changing)."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.config import Config, ConfigError, load_config
from proxy.reload import Live, NoFiles, Reloading, differences, names
from proxy.services import CurrentServices, load_services
from tests.support.clock import FakeClock
from tests.support.relay import running_relay
from tests.support.vaults import begin
from vault import NewKey, Secret, StoreUnavailable, Vault, open_vault

KEY = {"NAME": "sk-test-0123456789abcdef", "OTHER": "sk-other-0123456789abcdef"}


class Written:
    """Files that say what the test wrote."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "keys.yaml"
        self._new = False
        self.loaded = self.in_use = ""
        self.write("")

    def write(self, text: str) -> None:
        self._path.write_text(text)
        self._new = True

    def changed(self) -> bool:
        new, self._new = self._new, False
        return new

    def load(self) -> Config:
        self.loaded = self._path.read_text()
        return load_config(self._path, KEY)

    def taken(self) -> None:
        self.in_use = self.loaded


class Stage:
    """A reloading with one setting that is taken up live."""

    def __init__(self, folder: Path, vault: Vault) -> None:
        self.files = Written(folder)
        self.vault = vault
        self.known = CurrentServices(load_services())
        self.origins: list[tuple[str, ...]] = []
        self.reloading = Reloading(self.files, Config(), vault, self.known)
        cors = names("server", "cors_origins")
        live = Live(cors, lambda new: self.origins.append(new.server.cors_origins))
        self.reloading.serve((live,))

    async def say(self, text: str) -> None:
        self.files.write(text)
        await self.reloading.look()

    async def held(self) -> list[str]:
        return [f"{one.ref.service}/{one.ref.alias}" for one in await self.vault.list_keys()]


@pytest.fixture
async def stage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Stage]:
    caplog.set_level(logging.INFO, "keyrelay")
    begin(tmp_path / "data")
    vault = await open_vault(tmp_path / "data", {}, FakeClock(), actor="test")
    yield Stage(tmp_path, vault)
    await vault.close()


async def test_keys_services_and_settings_are_taken_up(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """And gone when they are gone from the file; the log names them."""
    await stage.say(
        "keys: {openai: '${NAME}'}\n"
        "server: {cors_origins: ['https://app.example.com']}\n"
        "services: {own: {category: test, hosts: [own.test], in: header}}\n"
    )
    assert await stage.held() == ["openai/default"]
    assert stage.files.in_use.startswith("keys: {openai")
    assert stage.known.get("own") is not None
    assert stage.origins == [("https://app.example.com",)]
    assert "configuration taken up: keys, server.cors_origins, services" in caplog.text
    await stage.say("")
    assert await stage.held() == []
    assert stage.known.get("own") is None
    assert stage.origins[-1] == ()


async def test_another_value_of_a_key_is_taken_up(stage: Stage) -> None:
    """Under the same name."""
    await stage.say("keys: {openai: '${NAME}'}\n")
    [ref] = (await stage.vault.holdings("default")).keys["openai"]
    before = await stage.vault.open_key(ref)
    await stage.say("keys: {openai: '${OTHER}'}\n")
    assert await stage.vault.open_key(ref) != before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server: {prot: 1}\n", "keys.yaml: server.prot: no setting has this name"),
        ("keys: {openai: '${GONE}'}\n", "keys.yaml: keys.openai: expected the environment"),
        ("keys: [\n", "keys.yaml: line 2, column 1: expected YAML"),
    ],
)
async def test_a_mistake_changes_nothing(
    stage: Stage, caplog: pytest.LogCaptureFixture, text: str, said: str
) -> None:
    """One line: the file, the place in it, what was expected."""
    await stage.say("keys: {openai: '${NAME}'}\n")
    before = stage.known.now
    await stage.say(text)
    [line] = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert said in line
    assert await stage.held() == ["openai/default"]
    assert stage.known.now is before
    assert len(stage.origins) == 1


async def test_a_key_that_the_vault_holds_as_well_changes_nothing(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the services beside it; once it is gone from the vault, the file is taken up."""
    credential = {"key": Secret(b"sk-vault-0123456789abcdef")}
    await stage.vault.put_key(NewKey("default", "openai", "default", credential))
    await stage.say(
        "keys: {openai: '${NAME}'}\n"
        "services: {own: {category: test, hosts: [own.test], in: header}}\n"
    )
    assert "is in the configuration file and in the vault" in caplog.text
    assert stage.known.get("own") is None
    await stage.vault.remove_key("default", "openai", "default")
    stage.reloading.ask_if_refused()
    await stage.reloading.look()
    assert await stage.held() == ["openai/default"]
    assert stage.known.get("own") is not None


async def test_what_the_file_declares_stands_in_the_audit_log(stage: Stage) -> None:
    """Keys and backends that come, change and go; nothing of what they were at the start twice."""
    await stage.say("keys: {openai: '${NAME}'}\n")
    await stage.say("keys: {openai: '${OTHER}'}\nserver: {cors_origins: ['https://a.test']}\n")
    await stage.say("server: {cors_origins: []}\n")
    found = [one for one in await stage.vault.audit() if one.actor == "keys.yaml"]
    assert [one.action for one in reversed(found)] == [
        "key declare",
        "key redeclare",
        "key undeclare",
    ]


async def test_a_worker_that_does_not_lead_leaves_that_to_the_one_that_does(stage: Stage) -> None:
    """It takes the file up all the same."""
    stage.reloading = Reloading(stage.files, Config(), stage.vault, stage.known, notes=False)
    await stage.say("keys: {openai: '${NAME}'}\n")
    assert await stage.held() == ["openai/default"]
    assert [one for one in await stage.vault.audit() if one.actor == "keys.yaml"] == []


async def test_what_cannot_be_written_down_holds_all_the_same(
    stage: Stage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk keeps no leaked key alive: the log says so once, and the row follows."""

    async def refused() -> None:
        raise StoreUnavailable("the disk is full")

    with monkeypatch.context() as full:
        full.setattr(stage.vault, "note_declared", refused)
        await stage.say("keys: {openai: '${NAME}'}\n")
        await stage.reloading.look()
    assert await stage.held() == ["openai/default"]
    assert caplog.text.count("not in the audit log yet") == 1
    await stage.reloading.look()
    assert "key declare" in [one.action for one in await stage.vault.audit()]


async def test_what_needs_a_restart_is_said_by_name(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """Also with the next change, until it is as it was at the start."""
    await stage.say("server: {port: 9000, host: 0.0.0.0}\n")
    assert "only after a restart: server.host, server.port" in caplog.text
    caplog.clear()
    await stage.say("server: {port: 9000, cors_origins: ['https://a.test']}\n")
    assert "taken up: server.cors_origins" in caplog.text
    assert "only after a restart: server.port" in caplog.text
    caplog.clear()
    await stage.say("server: {cors_origins: ['https://a.test']}\n")
    assert "no restart is needed" in caplog.text


async def test_nothing_happens_unless_something_changed(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that was only touched, or asked for by a signal, says so."""
    before = stage.known.now
    await stage.say("# a remark\n")
    assert stage.known.now is before
    assert caplog.records == []
    stage.reloading.ask()
    await stage.reloading.look()
    assert "configuration read: no change" in caplog.text


async def test_without_files_nothing_changes() -> None:
    """As in the demo."""
    files = NoFiles()
    assert not files.changed()
    with pytest.raises(ConfigError):
        files.load()


def test_differences_have_the_names_of_the_file() -> None:
    """A section by its settings, a list as a whole."""
    old, new = Config(), Config()
    assert differences(old, new) == frozenset()
    changed = old.model_copy(
        update={
            "server": old.server.model_copy(update={"port": 1}),
            "services": {"own": {}},
        }
    )
    assert differences(old, changed) == {"server.port", "services"}


async def test_what_is_taken_up_is_documented(tmp_path: Path) -> None:
    """docs/operating.md lists exactly the settings that a running server takes up, all of them
    settings."""
    page = (Path(__file__).parent.parent.parent / "docs/operating.md").read_text()
    table = page.split("| taken up by a running server")[1].split("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    listed = {name for cell in cells for name in re.findall(r"`([a-z_.]+)`", cell)}
    async with running_relay(tmp_path / "data") as up:
        live = up.relay.live
    # those of the log and of the listeners belong to the process, not to a relay in one
    doors = ("max_connections", "max_connections_per_address", "trusted_proxies")
    of_process = names("server", "log_level", "tls_cert", "tls_key", *doors)
    assert listed == live | of_process
    for name in listed:
        section, _, member = name.partition(".")
        assert section in Config.model_fields
        assert not member or member in type(getattr(Config(), section)).model_fields
