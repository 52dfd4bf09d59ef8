"""Instances over one PostgreSQL and one Redis that are killed, stand still or can't be reached."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import pytest

from tests.attack import fleet as acts
from tests.support.caller import Answered
from tests.support.engines import postgres_running, redis_running
from tests.support.fleet import PATIENCE_SECONDS, Fleet, Instance, fleet
from tests.support.namespaces import apart_if_possible
from tests.support.origin import Origin
from tests.support.team import worker_of

SETTINGS: Final = f"{acts.SETTINGS}limits: {{wrong_tokens: null}}\n"
CROWD: Final = 12
"""So many calls at once reach every worker of an instance, sooner or later."""


@pytest.mark.timeout(300)  # fourteen processes, of which a busy machine makes a minute
async def test_instances_are_one_for_their_callers(tmp_path: Path) -> None:
    """Equal calls are one upstream call, a revocation ends a token everywhere, and engines that go,
    stand still or can't be reached take no call with them. (Longer: `make attack`.)"""
    with (
        apart_if_possible() as there,
        postgres_running(there=there.place) as postgres,
        redis_running(there=there.place) as redis,
    ):
        async with (
            Origin(acts.answer) as origin,
            fleet(tmp_path, origin, (postgres, redis), settings=SETTINGS) as here,
        ):
            assert (await acts.one_call_for_all(here, 60)).found == 0
            after_a_kill, after_a_pause, after_a_cut = await unseen(here, 3)
            postgres.kill()
            redis.kill()
            await is_outlived(here, after_a_kill)
            postgres.start_again()
            redis.start_again()
            await is_as_before(here, after_a_kill)
            postgres.pause()
            redis.pause()
            await is_outlived(here, after_a_pause)
            postgres.go_on()
            redis.go_on()
            await is_as_before(here, after_a_pause)
            there.require().cut()
            await is_outlived(here, after_a_cut)
            there.require().mend()
            await is_as_before(here, after_a_cut)


async def unseen(here: Fleet, count: int) -> list[str]:
    """Tokens that nobody has shown yet, while every worker knows of the newest change of the vault
    and has seen the one that all calls come with."""
    tokens = [await here[0].run("token", "issue", f"unseen{number}") for number in range(count)]
    short = await here[0].run("token", "issue", "short")
    await until_all_say(here, short, 200)
    await here[1].run("token", "revoke", "short")
    await until_all_say(here, short, 401)
    await until_all_say(here, here.token, 200)
    await acts.until_kept(here)
    return tokens


async def is_outlived(here: Fleet, unseen: str) -> None:
    """Who was seen goes on, uncached; who was not is told to come again, and never 401."""
    for instance in here.instances:
        found = await crowd(instance, here.token, f"{acts.KEPT}/-/{unseen[3:15]}")
        assert {one.status for one in found} == {200}
        assert all("detail=store-error" in (one.header("cache-status") or "") for one in found)
    told = await here[0].ask(unseen)
    assert (told.status, told.header("retry-after") is not None) == (503, True)


async def is_as_before(here: Fleet, unseen: str) -> None:
    """By itself: no restart is needed."""
    await until_all_say(here, unseen, 200)
    await acts.until_kept(here)


async def until_all_say(here: Fleet, token: str, status: int) -> None:
    """Every worker of every instance."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        for instance in here.instances:
            said: dict[str, int] = {}
            while list(said.values()).count(status) < here.workers:
                said |= {worker_of(one): one.status for one in await crowd(instance, token)}


async def crowd(instance: Instance, token: str, target: str = "small") -> list[Answered]:
    """So many calls at once, no two of them alike."""
    each = (instance.ask(token, f"{target}/{number}") for number in range(CROWD))
    return await asyncio.gather(*each)
