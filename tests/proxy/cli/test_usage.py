"""`keyrelay usage`: tables, JSON, CSV; whose, since when, by what."""

from __future__ import annotations

import csv
import io
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from proxy.usage import SqliteUsage
from proxy.usage.store import DAY, HOUR
from tests.proxy.cli.conftest import Terminal
from tests.proxy.usage.conftest import NOON, a_row
from tests.support.clock import FakeClock


@pytest.fixture
def used(relay: Terminal) -> Terminal:
    """At noon of 2027-01-15, after a few calls of today, yesterday and two months ago."""
    relay.clock = FakeClock(NOON)
    store = SqliteUsage(relay.data / "usage.db")
    priced: dict[str, Any] = {"cost": 0.5, "saved": 0.0, "tokens_input": 100, "tokens_output": 20}
    store.write(
        [
            a_row(**priced),
            a_row(began=NOON - HOUR, hit=1, went=0, **{**priced, "cost": 0.0, "saved": 0.5}),
            a_row(
                began=NOON - DAY, status=500, service="anthropic", token="bob", token_id="id-bob"
            ),
            a_row(began=NOON - 60 * DAY),
            a_row(tenant="research", token="eve", token_id="id-eve"),
        ]
    )
    store.close()
    return relay


def test_days_are_listed_with_their_sum(used: Terminal) -> None:
    """Of the last 30 days, and of the tenant `default`."""
    said = used.run("usage").rows
    assert [(row["day"], row["calls"], row["success"]) for row in said] == [
        ("2027-01-14", "1", "0.0%"),
        ("2027-01-15", "2", "100.0%"),
        ("all", "3", "66.7%"),
    ]
    assert (said[1]["hits"], said[1]["saved"]) == ("1", "1")
    assert (said[1]["average"], said[1]["p99"]) == ("500.0 ms", "500.0 ms")
    assert (said[1]["tokens in"], said[1]["tokens out"]) == ("100", "20")
    assert (said[1]["cost"], said[1]["saved money"]) == ("0.5000", "0.5000")
    assert said[0]["cost"] == "-"


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--by", "token"), ["ann", "bob", "all"]),
        (("--by", "service"), ["anthropic", "openai", "all"]),
        (("--by", "hour"), ["2027-01-14 12:00", "2027-01-15 11:00", "2027-01-15 12:00", "all"]),
        (("--all", "--by", "tenant"), ["default", "research", "all"]),
        (("--tenant", "research"), ["2027-01-15"]),
        (("--token", "bob"), ["2027-01-14"]),
        (("--token", "id-bob", "--by", "token"), ["bob"]),
        (("--service", "claude", "--by", "service"), ["anthropic"]),
        (("--since", "90d"), ["2026-11-16", "2027-01-14", "2027-01-15", "all"]),
        (("--since", "1h", "--by", "hour"), ["2027-01-15 11:00", "2027-01-15 12:00", "all"]),
        (("--since", "2027-01-15"), ["2027-01-15"]),
        (("--until", "2027-01-15"), ["2027-01-14"]),
        (("--token", "nobody"), []),
        (("--token", "login/auth0|5f7c"), []),
        (("--token", "key:openai/default"), []),
    ],
)
def test_lines_are_what_was_asked_for(
    used: Terminal, words: tuple[str, ...], names: list[str]
) -> None:
    """By day, hour, token, service or tenant."""
    assert [next(iter(row.values())) for row in used.run("usage", *words).rows] == names


def test_columns_of_money_and_tokens_are_there_where_they_say_something(used: Terminal) -> None:
    """Not for calls without any."""
    [row] = used.run("usage", "--tenant", "research").rows
    assert list(row) == ["day", "calls", "success", "hits", "saved", "average", "p50", "p90", "p99"]


def test_json_has_every_member_and_the_sum(used: Terminal) -> None:
    """As `GET /usage` has them."""
    said = used.run("usage", "--by", "token", "--json").json
    assert (said["total"]["calls"], said["total"]["cost"]) == (3, 0.5)
    assert [(one["token"], one["token_id"], one["calls"]) for one in said["by"]] == [
        ("ann", "id-ann", 2),
        ("bob", "id-bob", 1),
    ]
    assert used.run("usage", "--json").json["by"][0]["day"] == "2027-01-14T00:00:00Z"


def test_csv_has_a_header_and_a_line_each(used: Terminal) -> None:
    """Also where there is nothing; no sum, which a sheet adds up by itself."""
    lines = list(csv.DictReader(io.StringIO(used.run("usage", "--csv").out)))
    assert [(one["day"], one["calls"], one["cost"]) for one in lines] == [
        ("2027-01-14T00:00:00Z", "1", ""),
        ("2027-01-15T00:00:00Z", "2", "0.5"),
    ]
    assert lines[1]["seconds.p50"] == "0.5"
    [header] = used.run("usage", "--csv", "--token", "nobody").out.splitlines()
    assert header.split(",") == list(lines[0])


def test_before_the_first_call_there_is_nothing(relay: Terminal) -> None:
    """And no file is made."""
    assert relay.run("usage").rows == []
    assert relay.run("usage", "--json").json["total"]["calls"] == 0
    assert not (relay.data / "usage.db").exists()


def test_a_server_may_write_meanwhile(used: Terminal) -> None:
    """Who reads waits for nobody."""
    with closing(sqlite3.connect(used.data / "usage.db", isolation_level=None)) as server:
        server.execute("BEGIN IMMEDIATE")
        server.execute("DELETE FROM sums")
        assert used.run("usage", "--json").json["total"]["calls"] == 3


@pytest.mark.parametrize("word", ["soon", "99999999999d", "2030-13-01"])
def test_a_time_that_is_none_is_refused(used: Terminal, word: str) -> None:
    """Before anything is read."""
    assert "--since: expected" in used.run("usage", "--since", word, code=2).err


def test_json_and_csv_are_not_both_meant(used: Terminal) -> None:
    """One of them."""
    assert "choose one" in used.run("usage", "--json", "--csv", code=2).err


def test_a_newer_or_broken_file_is_said_to_be(relay: Terminal) -> None:
    """With the remedy."""
    path = relay.data / "usage.db"
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version = 9")
    assert "upgrade keyrelay" in relay.run("usage", code=1).err
    path.write_bytes(b"no database, " * 1000)
    assert "usage can't be read" in relay.run("usage", code=1).err


def test_without_data_there_is_nothing_to_say(shell: Terminal) -> None:
    """The remedy is init."""
    assert "keyrelay init" in shell.run("usage", code=1).err


def test_an_unknown_service_is_refused(used: Terminal) -> None:
    """As in every command."""
    assert used.run("usage", "--service", "nosuch", code=1).err
