"""`keyrelay migrate`, and every command on a vault in PostgreSQL."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from proxy.carrying import Carrying
from proxy.limits.budgets import Ledger
from proxy.limits.keeping import written_in_all
from proxy.limits.ledger import SqliteLedger
from proxy.limits.notes import EVER
from proxy.limits.postgres import PostgresLedger
from proxy.usage import SqliteUsage
from tests.proxy.cli.conftest import CANARY, OTHER, Terminal
from tests.proxy.usage.conftest import NOON, a_row
from tests.support.engines import RunningPostgres


@pytest.fixture
def url(postgres: RunningPostgres) -> str:
    """Of an empty database, with a password that no command may show."""
    return postgres.another().replace("keyrelay@", f"keyrelay:{OTHER}@")


def test_a_vault_moves_to_a_server_and_back(shell: Terminal, url: str) -> None:
    """The line of configuration is printed; with it every command goes on there."""
    shell.environ["DB"] = url
    shell.run("init")
    shell.run("key", "add", "openai", stdin=CANARY)
    (shell.data / "usage.db").touch()
    said = shell.run("migrate", "--to", "${DB}")
    host = url.partition("@")[2]
    assert f"the vault is in postgresql://{host} now (1 keys, 0 tokens, 0 backends, " in said.out
    assert "\n\nvault:\n  url: ${DB}\n\nthe first server that starts with it takes " in said.out
    assert "moved from this database" in shell.run("key", "list", code=1).err
    (shell.data / "keys.yaml").write_text("vault:\n  url: ${DB}\n")
    assert [row["service"] for row in shell.run("key", "list").rows] == ["openai"]
    assert "intact" in shell.run("audit", "verify").out
    shell.run("token", "issue", "ann")
    assert "is on a server" in shell.run("backup", "b", stdin="words and words", code=1).err
    (shell.home / "b").write_text("")
    refused = shell.run("restore", str(shell.home / "b"), stdin="words and words", code=1)
    assert "vault.url names a server" in refused.err
    back = shell.run("migrate", "--to", "file").out
    assert "1 keys, 1 tokens" in back
    assert f"usage stays in postgresql://{host}" in back
    assert "moved from this database" in shell.run("key", "list", code=1).err
    (shell.data / "keys.yaml").write_text("")
    assert [row["name"] for row in shell.run("token", "list").rows] == ["ann"]


def test_a_password_is_no_argument(shell: Terminal, url: str) -> None:
    """But what names it is, or standard input."""
    shell.run("init")
    host = url.partition("@")[2]
    for exposed in (
        f"relay:{OTHER}@db/x",
        f"relay:1?{OTHER}@db/x",
        f"keyrelay@{host}?password={OTHER}",
        f"/x?user=relay&sslpassword={OTHER}",
    ):
        said = shell.run("migrate", "--to", f"postgresql://{exposed}", code=1)
        assert "never an argument" in said.err
    assert "expected postgresql" in shell.run("migrate", "--to", "mysql://db/x", code=1).err
    assert "NOBODY to be set" in shell.run("migrate", "--to", "${NOBODY}", code=1).err
    (shell.home / "url").write_text(url + "\n")
    said = shell.run("migrate", "--json", stdin=url + "\n").json
    assert (said["rows"]["tokens"], said["vault.url"][:7]) == (0, "${NAME}")
    shell.run("migrate", "--to", f"file:{shell.home / 'url'}", code=1)


def test_init_makes_a_vault_on_a_server(shell: Terminal, url: str) -> None:
    """No file of it lies in the data directory; a directory that knew another vault is told."""
    shell.data.mkdir(mode=0o700)
    (shell.home / "url").write_text(url)
    config = shell.data / "keys.yaml"
    config.write_text("vault: {url: file:../url}\n")
    assert "there is no vault in postgresql://" in shell.run("key", "list", code=1).err
    shell.run("init")
    shell.run("key", "add", "openai", stdin=CANARY)
    there = {path.name for path in shell.data.iterdir()}
    assert there == {"keys.yaml", "master.key", "vault.anchor", "cache.db"}
    name = url.rpartition("/")[2]
    (shell.home / "url").write_text(url.replace(name, "nowhere"))
    missing = shell.run("key", "list", code=1).err
    assert 'database "nowhere" does not exist); create the database' in missing


def test_a_directory_that_knows_a_vault_begins_no_other(shell: Terminal, url: str) -> None:
    """Whoever only changes the setting has not moved anything."""
    shell.run("init")
    (shell.home / "url").write_text(url)
    (shell.data / "keys.yaml").write_text("vault: {url: file:../url}\n")
    for command in ("init", "serve"):
        said = shell.run(command, *(["--port", "0"] if command == "serve" else []), code=1)
        assert "is empty, and" in said.err
        assert "copy that here with keyrelay migrate" in said.err


def test_a_token_ends_on_the_server_whatever_is_wrong_with_the_configuration(
    shell: Terminal, url: str
) -> None:
    """It goes on without the rest of it, but not without knowing where the vault is."""
    shell.data.mkdir(mode=0o700)
    (shell.home / "url").write_text(url)
    (shell.data / "keys.yaml").write_text("vault: {url: file:../url}\n")
    shell.run("init")
    shell.run("token", "issue", "ann")
    (shell.data / "keys.yaml").write_text("vault: {url: file:../url}\nserver: {port: x}\n")
    shell.run("token", "revoke", "ann")
    (shell.data / "keys.yaml").write_text("vault: {url: file:../nowhere}\n")
    assert "vault.url: expected a file" in shell.run("token", "revoke", "ann", code=1).err


async def called(ledger: Ledger, more: Mapping[str, int] | None = None) -> Mapping[str, int] | None:
    """In all, after that."""
    for subject, calls in (more or {}).items():
        ledger.note(subject, EVER, calls)
    await ledger.flush()
    return await written_in_all(ledger)


def test_what_tokens_have_called_in_all_goes_along(
    shell: Terminal, url: str, postgres: RunningPostgres
) -> None:
    """To another server, and back to a file, where it is no less than it was; a file's own comes
    with the first server that starts."""
    other = shell.environ["OTHER"] = postgres.another().replace("keyrelay@", f"keyrelay:{OTHER}@")
    shell.environ["DB"] = url
    shell.run("init")
    shell.run("migrate", "--to", "${DB}")
    config, file = shell.data / "keys.yaml", shell.data / "usage.db"
    asyncio.run(called(PostgresLedger(url), {"ann": 5, "bob": 2}))
    config.write_text("vault:\n  url: ${DB}\n")
    shell.run("migrate", "--to", "${OTHER}")
    assert asyncio.run(called(PostgresLedger(other))) == {"ann": 5, "bob": 2}
    config.write_text("vault:\n  url: ${OTHER}\n")
    asyncio.run(called(SqliteLedger(file), {"ann": 1, "bob": 7}))
    assert "have called came along" in shell.run("migrate", "--to", "file").out
    assert asyncio.run(called(SqliteLedger(file))) == {"ann": 5, "bob": 7}


async def carried(file: Path, url: str) -> None:
    """As the first server does that starts with the database."""
    work = Carrying(file, url)
    await work.start()
    assert work._work is not None
    await work._work


@pytest.mark.parametrize("usage", [True, False], ids=["with usage", "without"])
def test_there_and_back_and_there_again_counts_each_call_in_all_once(
    shell: Terminal, url: str, usage: bool
) -> None:
    """What was left behind in a database is older than what comes back to it."""
    shell.environ["DB"] = url
    config, file = shell.data / "keys.yaml", shell.data / "usage.db"
    shell.run("init")
    for turn in (1, 2, 3):
        asyncio.run(called(SqliteLedger(file), {"ann": 10}))
        if usage:
            with closing(SqliteUsage(file)) as store:
                store.write([a_row(call=f"call-{turn}", token="ann", began=NOON)])
        shell.run("migrate", "--to", "${DB}")
        asyncio.run(carried(file, url))
        config.write_text("vault:\n  url: ${DB}\n")
        assert asyncio.run(called(PostgresLedger(url), {"ann": 3})) == {"ann": 13 * turn}
        shell.run("migrate", "--to", "file")
        config.write_text("")
        assert asyncio.run(called(SqliteLedger(file))) == {"ann": 13 * turn}


def test_a_vault_that_goes_on_keeps_what_it_has_counted(shell: Terminal, url: str) -> None:
    """Whoever tries to move an old copy there is refused."""
    shell.environ["DB"] = url
    shell.run("init")
    shutil.copytree(shell.data, shell.home / "copy")
    shell.run("migrate", "--to", "${DB}")
    asyncio.run(called(PostgresLedger(url), {"ann": 5}))
    (shell.data / "keys.yaml").write_text("vault:\n  url: ${DB}\n")
    shell.run("token", "issue", "ann")
    shutil.rmtree(shell.data)
    shutil.move(shell.home / "copy", shell.data)
    assert "go on with that" in shell.run("migrate", "--to", "${DB}", code=1).err
    assert asyncio.run(called(PostgresLedger(url))) == {"ann": 5}


def test_nothing_is_moved_where_that_can_not_be_made_ready(
    shell: Terminal, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again, with nothing lost."""
    shell.environ["DB"] = url
    shell.run("init")
    with monkeypatch.context() as gone:
        gone.setattr("proxy.limits.postgres._SPENT", "SELECT nothing FROM nowhere WHERE $1 = ''")
        assert "nothing was moved: try again" in shell.run("migrate", "--to", "${DB}", code=1).err
    shell.run("token", "issue", "ann")
    assert "1 tokens" in shell.run("migrate", "--to", "${DB}").out


def test_it_is_said_where_that_can_not_go_along(
    shell: Terminal, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is moved where it can't be read."""
    shell.environ["DB"] = url
    shell.run("init")
    shell.run("migrate", "--to", "${DB}")
    asyncio.run(called(PostgresLedger(url), {"ann": 5}))
    (shell.data / "keys.yaml").write_text("vault:\n  url: ${DB}\n")
    with monkeypatch.context() as gone:
        gone.setattr("proxy.limits.postgres._SPENT", "SELECT nothing FROM nowhere WHERE $1 = ''")
        assert "nothing was moved: try again" in shell.run("migrate", "--to", "file", code=1).err
    shell.run("token", "issue", "ann")
    (shell.data / "usage.db").mkdir()
    said = shell.run("migrate", "--to", "file", code=1).err
    assert "those begin anew there; issue them anew" in said
