"""Three instances of two workers each, over one PostgreSQL and one Redis."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.attack import fleet as acts
from tests.support.engines import postgres_running, redis_running
from tests.support.fleet import fleet, until_all
from tests.support.origin import Origin


async def test_instances_are_one_for_their_callers(tmp_path: Path) -> None:
    """Equal calls are one upstream call, a revocation ends a token everywhere, and an engine that
    goes takes no call with it. (Longer: `make attack`.)"""
    with postgres_running() as postgres, redis_running() as redis:
        async with (
            Origin(acts.answer) as origin,
            fleet(tmp_path, origin, (postgres, redis), settings=acts.SETTINGS) as here,
        ):
            assert (await acts.one_call_for_all(here, 60)).found == 0
            token = await here[0].run("token", "issue", "short")
            await until_all(here, lambda one: says(one, token, 200))
            await here[1].run("token", "revoke", "short")
            await until_all(here, lambda one: says(one, token, 401))
            never_seen = await here[2].run("token", "issue", "never-seen")
            await until_all(here, lambda one: knows(one, here.token))
            postgres.kill()
            redis.kill()
            assert await knows(here[1], here.token)
            told = await here[0].ask(never_seen)
            assert (told.status, told.header("retry-after") is not None) == (503, True)
            postgres.start_again()
            redis.start_again()
            await until_all(here, lambda one: says(one, never_seen, 200))
            await acts.until_kept(here)


async def knows(instance: acts.Instance, token: str) -> bool:
    """Whether all of its workers do: so many calls at once reach each."""
    told = await asyncio.gather(*(instance.ask(token) for _ in range(20)))
    return {one.status for one in told} == {200}


async def says(instance: acts.Instance, token: str, status: int) -> bool:
    """What it answers."""
    return (await instance.ask(token)).status == status
