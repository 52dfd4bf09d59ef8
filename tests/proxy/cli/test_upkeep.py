"""The master key's rotation, and the cache's count and purge."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from proxy.cache.schema import open_for_writing
from proxy.clock import SystemClock
from tests.proxy.cli.conftest import CANARY, Terminal
from tests.support.engines import RunningRedis
from vault import Purge, Secret, open_vault
from vault.keyring import MasterKey


def test_a_new_master_key_opens_everything(relay: Terminal) -> None:
    """The file holds the new one alone; keys and tokens survive."""
    relay.run("key", "add", "openai", stdin=CANARY)
    before = (relay.data / "master.key").read_bytes()
    assert "data keys are wrapped by the current key" in relay.run("master", "rotate").out
    assert (relay.data / "master.key").read_bytes() != before
    assert relay.run("key", "list").rows[0]["key"] == "…cdef"
    said = relay.run("master", "rotate", "--reseal", "--json").json
    assert said["keys_sealed_anew"] == 1

    async def opened() -> Secret:
        vault = await open_vault(relay.data, {}, SystemClock())
        try:
            return (await vault.open_key((await vault.list_keys())[0].ref))["key"]
        finally:
            await vault.close()

    assert asyncio.run(opened()) == Secret(CANARY.encode())


def test_an_empty_cache_is_counted_as_such(relay: Terminal) -> None:
    """Also where its file is gone: a server makes it again."""
    assert relay.run("cache", "stats", "--json").json == {"answers": 0, "bytes": 0, "by": []}
    (relay.data / "cache.db").unlink()
    said = relay.run("cache", "stats")
    assert said.rows == []
    assert said.err == "0 answers, 0 bytes\n"


def fill(path: Path) -> None:
    """Three complete entries; what the count does not look at is zero or empty."""
    connection = open_for_writing(path)
    columns = [row[1:3] for row in connection.execute("PRAGMA table_info(entries)")]
    for tenant, service in (("default", "openai"), ("default", "openai"), ("research", "")):
        known = {"id": None, "state": 1, "tenant": tenant, "service": service, "cost": 100}
        values = [known.get(name, b"" if kind == "BLOB" else 0) for name, kind in columns]
        marks = ", ".join("?" * len(values))
        connection.execute(f"INSERT INTO entries VALUES ({marks})", values)
    connection.close()


def test_answers_are_counted_by_tenant_and_service(relay: Terminal) -> None:
    """Read beside a running server, without changing anything."""
    fill(relay.data / "cache.db")
    assert relay.run("cache", "stats").rows == [
        {"tenant": "default", "service": "openai", "answers": "2", "bytes": "200"},
        {"tenant": "research", "service": "-", "answers": "1", "bytes": "100"},
    ]
    assert relay.run("cache", "stats", "--json").json["bytes"] == 300


def test_a_cache_that_cannot_be_read_is_one_sentence(relay: Terminal) -> None:
    """Broken, or written by a newer release."""
    (relay.data / "cache.db").write_bytes(b"no database" * 1000)
    relay.run("cache", "stats", code=1)
    (relay.data / "cache.db").unlink()
    fill(relay.data / "cache.db")
    with sqlite3.connect(relay.data / "cache.db") as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    relay.run("cache", "stats", code=1)


def test_answers_of_all_instances_are_counted_in_redis(
    relay: Terminal, redis: RunningRedis
) -> None:
    """Where the configuration names one; one that is gone is a sentence."""
    (relay.data / "keys.yaml").write_text(f"cache: {{url: '{redis.url}'}}")
    assert relay.run("cache", "stats", "--json").json == {"answers": 0, "bytes": 0, "by": []}
    (relay.data / "keys.yaml").write_text("cache: {url: 'redis://:secret@127.0.0.1:1'}")
    said = relay.run("cache", "stats", code=1)
    assert "Redis can't be used now" in said.err
    assert "secret" not in said.err


def purges(relay: Terminal) -> set[Purge]:
    async def read() -> set[Purge]:
        vault = await open_vault(relay.data, {}, SystemClock())
        try:
            return {Purge(0, one.tenant, one.service) for one in await vault.purges()}
        finally:
            await vault.close()

    return asyncio.run(read())


def test_a_purge_is_left_for_the_server(relay: Terminal) -> None:
    """Only the server writes to the cache."""
    before = (relay.data / "cache.db").read_bytes()
    relay.run("cache", "purge", "--service", "gemini")
    relay.run("cache", "purge", "--tenant", "research")
    assert relay.run("cache", "purge", "--all", "--json").json["tenant"] is None
    assert purges(relay) == {
        Purge(0, "default", "google-gemini"),
        Purge(0, "research", None),
        Purge(0, None, None),
    }
    assert (relay.data / "cache.db").read_bytes() == before


def test_the_command_is_not_given_what_the_configuration_reads(shell: Terminal) -> None:
    """The environment of a process can be read: no key or URL of ours is in that of a keeper's."""
    words = f"#!/bin/sh\nenv >>{shell.data}.seen\necho {MasterKey.random().text()}\n"
    keeper = shell.write("keeper", words)
    keeper.chmod(0o700)
    shell.environ |= {"MINE": CANARY, "LIST": CANARY, "THEIRS": "kms"}
    settings = f"server: {{master_key_command: [{keeper}]}}\n"
    keys = "keys:\n- {service: openai, value: '${MINE}'}\n- {service: groq, value: '${LIST}'}\n"
    shell.environ["KEYRELAY_CONFIG"] = str(shell.write("relay.yaml", settings + keys))
    shell.run("init")
    shell.run("key", "list")
    seen = Path(f"{shell.data}.seen").read_text().splitlines()
    assert seen.count("THEIRS=kms") == 2
    assert not [line for line in seen if line.startswith(("MINE=", "LIST=")) or CANARY in line]


def test_a_command_may_keep_the_master_key(shell: Terminal) -> None:
    """For init, every command and a rotation; no master.key is made."""
    kept = shell.write("kept", MasterKey.random().text())
    shell.environ["KEYRELAY_CONFIG"] = str(
        shell.write("relay.yaml", f"server: {{master_key_command: [cat, {kept}]}}\n")
    )
    shell.run("init")
    shell.run("key", "add", "openai", stdin=CANARY)
    assert not (shell.data / "master.key").exists()
    assert shell.run("key", "list").rows[0]["key"] == "…cdef"
    kept.write_text(f"{MasterKey.random().text()}\n{kept.read_text()}")
    assert "the command cat" in shell.run("master", "rotate").out
    kept.write_text(kept.read_text().splitlines()[0])
    assert shell.run("key", "list").rows[0]["key"] == "…cdef"
    kept.unlink()
    assert "ended with code 1; run it by hand" in shell.run("key", "list", code=1).err
