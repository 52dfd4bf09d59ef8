from __future__ import annotations

from tests.support.engines import RunningPostgres, RunningRedis


def test_a_real_redis_answers(redis: RunningRedis) -> None:
    """The one of this session, empty."""
    assert redis.say("dbsize") == "0"


def test_a_real_postgresql_makes_databases(postgres: RunningPostgres) -> None:
    """Each is another one."""
    assert postgres.another() != postgres.another()
