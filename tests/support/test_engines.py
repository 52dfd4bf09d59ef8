from __future__ import annotations

import socket

import pytest

from tests.support.engines import RunningPostgres, RunningRedis, postgres_running, redis_running
from tests.support.namespaces import apart


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
