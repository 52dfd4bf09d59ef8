"""A Redis that is there and takes nothing: seen by all who ask, and said when it is over."""

from __future__ import annotations

import pytest

from proxy.engine import PAUSE_SECONDS
from proxy.limits.shared import CALM_SECONDS
from tests.proxy.limits.together import Member, together
from tests.support.engines import redis_running

FULL = (("config", "set", "maxmemory", "1"), ("config", "set", "maxmemory", "0"))
NO_SCRIPTS = (
    ("acl", "setuser", "default", "-eval", "-evalsha"),
    ("acl", "setuser", "default", "+@all"),
)
OWN = {"calls": ("10/day",)}


@pytest.mark.parametrize(("do", "undo"), [FULL, NO_SCRIPTS])
async def test_what_is_refused_is_missed_until_it_is_taken_again(
    do: tuple[str, ...], undo: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """It answers, but serves no more: one line in the log each way, and refusals are counted."""
    with redis_running() as redis:
        async with together(redis.url, 1) as (one,):
            assert await one.call(**OWN)
            assert (one.engine.serves, one.engine.failures) == (True, 0)
            redis.say(*do)
            for _ in range(3):
                await refused(one)
            failures = one.engine.failures
            assert (one.engine.up, one.engine.serves, failures > 0) == (True, False, True)
            redis.say(*undo)
            one.clock.advance(CALM_SECONDS)
            await one.instances.beat()
            assert one.engine.serves
            assert await one.call(**OWN)
            assert one.engine.failures == failures
    assert ["can't be counted" in line for line in caplog.messages] == [True, False]
    assert caplog.messages[-1] == "limits are counted in Redis again"


async def refused(one: Member) -> None:
    """A call that was this instance's share, and a beat that nobody took."""
    one.clock.advance(PAUSE_SECONDS)
    assert await one.call(**OWN)
    await one.instances.beat()


async def test_one_that_takes_some_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """It is just full: between two refusals something was taken."""
    with redis_running() as redis:
        async with together(redis.url, 1) as (one,):
            for _ in range(3):
                redis.say(*FULL[0])
                await refused(one)
                redis.say(*FULL[1])
                one.clock.advance(PAUSE_SECONDS)
                await one.instances.beat()
                assert await one.call(**OWN)
    assert len(caplog.messages) == 1
