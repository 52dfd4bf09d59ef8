"""The engines of the tests are real, and what they write is looked at."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.support import namespaces
from tests.support.canaries import LEDGER
from tests.support.engines import RunningPostgres, RunningRedis, postgres_running, redis_running
from tests.support.namespaces import apart, apart_if_possible


def test_a_real_redis_answers(redis: RunningRedis) -> None:
    """The one of this session, empty."""
    assert redis.say("dbsize") == "0"


def test_a_real_postgresql_makes_databases(postgres: RunningPostgres) -> None:
    """Each is another one."""
    assert postgres.another() != postgres.another()


def test_the_cable_of_an_engine_can_be_pulled() -> None:
    """In a network of its own, where nobody is told that what he sends is lost."""
    with apart() as there, redis_running(there=there) as running:
        assert running.say("ping") == "PONG"
        there.cut()
        with pytest.raises(TimeoutError), socket.create_connection((running.host, running.port), 1):
            pass
        there.mend()
        running.wait()


def test_so_can_that_of_a_postgresql() -> None:
    """Which trusts whoever reaches it there."""
    with apart() as there, postgres_running(there=there) as running:
        assert running.say("SELECT 2") == "2"


@pytest.mark.parametrize(("user", "word"), [(0, "namespaces"), (1000, "root")])
def test_where_there_is_no_network_apart_a_test_is_skipped_in_a_word(
    monkeypatch: pytest.MonkeyPatch, user: int, word: str
) -> None:
    """A container may have it refused to root too; what needs no cable to pull goes on."""

    def refused(*words: str) -> None:
        raise subprocess.CalledProcessError(1, words)

    monkeypatch.setattr(namespaces, "need", lambda _name: "ip")
    monkeypatch.setattr(namespaces, "_ip", refused)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with pytest.raises(pytest.skip.Exception, match=word), apart():
        pass
    with apart_if_possible() as sought:
        assert sought.place is None
        with pytest.raises(pytest.skip.Exception, match=word):
            sought.require()


KEY = "sk-CANARY/of=an+engine+0123456789"
OCTETS = KEY.encode()
FORMS = {
    "plain": KEY,
    "hex": OCTETS.hex(),
    "base64": base64.b64encode(b"x" + OCTETS).decode(),
    "url": quote(KEY, safe=""),
    "json": json.dumps(KEY).replace("/", "\\/"),
}


@pytest.fixture
def leaks() -> Iterator[list[str]]:
    """Those of a key that nobody shall find later, in an engine that goes on."""
    LEDGER.key(OCTETS)
    yield LEDGER.leaks
    LEDGER.leaks.clear()
    LEDGER.keys.clear()


@pytest.mark.parametrize("form", FORMS)
def test_what_redis_is_told_to_keep_is_looked_at(
    redis: RunningRedis, leaks: list[str], form: str
) -> None:
    """Also what it has forgotten since; once, and not by the next test again."""
    redis.say("set", "planted", FORMS[form])
    redis.say("del", "planted")
    redis.look()
    assert [one.split(" holds ")[0].split(": ")[0] for one in leaks] == ["RunningRedis"]
    leaks.clear()
    redis.look()
    assert leaks == []


def test_what_redis_holds_at_its_end_is_looked_at(leaks: list[str]) -> None:
    """Of one that keeps nothing on disk."""
    with redis_running("--requirepass", "some-password") as running:
        running.say("-a", "some-password", "set", KEY[:20], "in two", "ex", "100")
        running.say("-a", "some-password", "append", "long", "x" * 99 + KEY)
    assert [one.split(" holds ")[0] for one in leaks] == [f"RunningRedis: {running.folder.name}"]


@pytest.mark.parametrize("form", FORMS)
def test_what_postgresql_is_told_is_looked_at(
    postgres: RunningPostgres, leaks: list[str], form: str
) -> None:
    """In its log each question, in its WAL what it writes."""
    name = postgres.another().rpartition("/")[2]
    postgres.say(f"SELECT 1 WHERE '{FORMS[form]}' = ''", name)
    postgres.look()
    assert [one.split(" holds ")[0] for one in leaks] == ["RunningPostgres: log"]
    leaks.clear()
    half, other = FORMS[form][:7], FORMS[form][7:]
    postgres.say(f"CREATE TABLE planted AS SELECT '{half}' || '{other}' AS text", name)
    postgres.look()
    assert any("RunningPostgres: 0" in one for one in leaks)
    leaks.clear()
    postgres.look()
    assert leaks == []


def test_what_postgresql_holds_at_its_end_is_looked_at(
    postgres: RunningPostgres, leaks: list[str]
) -> None:
    """Its tables, as they lie on disk."""
    name, late = postgres.another().rpartition("/")[2], "sk-CANARY-of-a-table-9876543210"
    postgres.say(f"CREATE TABLE planted AS SELECT '{late}' AS text", name)
    postgres.say("CHECKPOINT")
    postgres.look()
    LEDGER.keys.clear()
    LEDGER.key(late.encode())
    postgres.look_at_all()
    [leak] = leaks
    assert re.fullmatch(r"RunningPostgres: \d+ holds sk-CAN\.\.\.3210", leak)
