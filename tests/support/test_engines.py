from __future__ import annotations

import os
import socket
import subprocess

import pytest

from tests.support import namespaces
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
