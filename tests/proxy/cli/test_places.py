"""Backends, services and tenants: where keys may go, how they travel, and who owns them."""

from __future__ import annotations

import pytest

from tests.proxy.cli.conftest import CANARY, Terminal


def test_a_backend_is_added_listed_and_removed(relay: Terminal) -> None:
    """By its canonical place."""
    said = relay.run("backend", "add", "HTTP://10.0.0.5:8080/v1", "--service", "openai").out
    assert said == "the openai key of tenant default may go to http://10.0.0.5:8080/v1\n"
    relay.run("backend", "add", "http://10.0.0.5:8080/v1", "--service", "openai", code=1)
    [row] = relay.run("backend", "list").rows
    assert (row["url"], row["owner"]) == ("http://10.0.0.5:8080/v1", "vault")
    relay.run("backend", "remove", "http://10.0.0.5:8080/v1", "--service", "openai")
    assert relay.run("backend", "list").rows == []
    relay.run("backend", "remove", "http://10.0.0.5:8080/v1", "--service", "openai", code=1)


@pytest.mark.parametrize(
    "url", ["10.0.0.5", "ftp://a/", "http://user:pw@a/", "http://a/?x=1", "http://a/%2e%2e/"]
)
def test_a_backend_is_a_plain_place(relay: Terminal, url: str) -> None:
    """The strict parser of destinations judges it, without repeating it."""
    err = relay.run("backend", "add", url, "--service", "openai", code=1).err
    assert url not in err


@pytest.mark.parametrize("host", ["169.254.169.254", "0.0.0.0", "224.0.0.1", "[fe80::1]", "[::]"])
def test_an_address_that_nothing_is_sent_to_is_no_backend(relay: Terminal, host: str) -> None:
    """Link-local, unspecified and multicast ones: said now, not at the first call."""
    err = relay.run("backend", "add", f"http://{host}/", "--service", "openai", code=1).err
    assert "public, private or loopback" in err
    assert relay.run("backend", "list").rows == []


def test_the_files_backends_are_listed_and_not_changeable(relay: Terminal) -> None:
    """They belong to the file."""
    relay.write("data/keys.yaml", "backends: [{service: openai, url: 'http://a.example/v1'}]")
    assert relay.run("backend", "list").rows[0]["owner"] == "file"
    for verb in ("add", "remove"):
        words = ("backend", verb, "http://a.example/v1", "--service", "openai")
        assert "configuration file" in relay.run(*words, code=1).err


def test_a_backend_in_file_and_vault_can_be_mended(relay: Terminal) -> None:
    """Everything stops, and either of the two can be taken away."""
    relay.run("backend", "add", "http://a.example/v1", "--service", "openai")
    relay.write("data/keys.yaml", "backends: [{service: openai, url: 'http://a.example/v1'}]")
    relay.run("backend", "list", code=1)
    relay.run("backend", "remove", "http://a.example/v1", "--service", "openai")
    assert relay.run("backend", "list").rows[0]["owner"] == "file"


def test_services_are_listed_without_a_data_directory(shell: Terminal) -> None:
    """All of them, or those with a text in a name, an alias, a category or a host."""
    everything = shell.run("service", "list").rows
    assert len(everything) > 150
    assert [row["name"] for row in everything] == sorted(row["name"] for row in everything)
    assert "google-gemini" in [row["name"] for row in shell.run("service", "list", "GEMINI").rows]
    assert shell.run("service", "list", "no such text", "--json").json == []


def test_a_service_shows_how_its_key_travels(shell: Terminal) -> None:
    """To the provider and to a backend; by name or alias."""
    shown = shell.run("service", "show", "claude", "--json").json
    assert shown["name"] == "anthropic"
    assert shown["key_in"] == shown["backend_gets"] == ["header x-api-key: {key}"]
    assert shown["defaults"] == ["anthropic-version: 2023-06-01"]
    assert "api.anthropic.com" in shell.run("service", "show", "anthropic").out
    assert "did you mean" in shell.run("service", "show", "antropic", code=1).err


@pytest.mark.parametrize(
    ("name", "carried"),
    [
        ("twilio", "header Authorization: Basic "),
        ("telegram", "path bot{key}"),
        ("opencage", "query key={key}"),
    ],
)
def test_every_way_to_carry_a_key_has_words(shell: Terminal, name: str, carried: str) -> None:
    """Header, query, basic, path; and by host where one differs."""
    [first, *_] = shell.run("service", "show", name, "--json").json["key_in"]
    assert first.startswith(carried)


def test_a_service_of_several_hosts_shows_each(shell: Terminal) -> None:
    """`googleapis` is one name over hosts that differ."""
    by_host = shell.run("service", "show", "googleapis", "--json").json["key_in_by_host"]
    assert any("query key={key}" in line for line in by_host)


def test_own_services_are_listed_too(relay: Terminal) -> None:
    """Those of the configuration."""
    relay.write("data/keys.yaml", "services: {mine: {hosts: [api.mine.example.com]}}")
    assert relay.run("service", "list", "mine.example").rows[0]["name"] == "mine"


def test_a_tenant_is_counted_and_removed_whole(relay: Terminal) -> None:
    """Its keys, tokens, backends and answers; nobody else's."""
    for tenant in ("one", "two"):
        relay.run("key", "add", "openai", "--tenant", tenant, stdin=CANARY)
        relay.run("token", "issue", "ann", "--tenant", tenant)
        relay.run("backend", "add", "http://a/", "--service", "openai", "--tenant", tenant)
    rows = relay.run("tenant", "list", "--json").json
    assert rows[0] == {"tenant": "one", "keys": 1, "tokens": 1, "backends": 1}
    said = relay.run("tenant", "remove", "one").out
    assert said == "removed tenant one: 1 keys, 1 tokens, 1 backends and its answers\n"
    assert [row["tenant"] for row in relay.run("tenant", "list").rows] == ["two"]
    relay.run("tenant", "remove", "one", code=1)
