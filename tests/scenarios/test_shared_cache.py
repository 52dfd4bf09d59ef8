"""Several instances and one Redis: what one keeps, all answer with."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.engines import RunningRedis
from tests.support.origin import Origin, reply
from tests.support.relay import Running, running_relay

KEY = "provider-key-of-this-test"
FUTURE = "9999999999"
PATIENCE_SECONDS = 30.0


@contextlib.asynccontextmanager
async def instance(data: Path, redis: RunningRedis, origin: Origin) -> AsyncIterator[Running]:
    """One more of the same vault, that hears what others write."""
    text = f"cache: {{url: '{redis.url}'}}"
    async with running_relay(data, settings=text, name=secrets.token_hex(4)) as up:
        if not await up.vault.list_keys():
            await up.add_key("openai", key=KEY)
            await up.add_backend("openai", origin.url)
        await heard(up)
        yield up


async def heard(up: Running) -> None:
    await until(lambda: all(part.hears for part in up.relay._parts.lasting if _hears(part)))


def _hears(part: Any) -> bool:
    return type(part).__name__ == "Hearing"


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not holds():
            await asyncio.sleep(0.02)


async def call(up: Running, origin: Origin, more: str = "", token: str = "") -> tuple[str, bytes]:
    """Cache-Status and body."""
    url = f"{up.url}/proxy?server={origin.url}/v1/models&service=openai&cache={FUTURE}{more}"
    headers = {"Authorization": f"Bearer {token or up.token}"}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        return answer.headers["Cache-Status"], await answer.read()


async def test_what_one_instance_keeps_another_answers_with(
    tmp_path: Path, redis: RunningRedis
) -> None:
    """A refresh at one is what the other answers with from then on, memory or not."""
    answers = [reply(body=b"first"), reply(body=b"second")]
    async with (
        Origin(answers) as origin,
        instance(tmp_path, redis, origin) as one,
        instance(tmp_path, redis, origin) as other,
    ):
        assert "stored" in (await call(one, origin))[0]
        await until(lambda: stored(redis))
        for up in (other, other, one):
            status, body = await call(up, origin)
            assert (body, "hit" in status) == (b"first", True)
        assert (await call(one, origin, "&invalidate"))[1] == b"second"
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await call(other, origin))[1] != b"second":
                await asyncio.sleep(0.02)
        assert len(origin.requests) == 2


def stored(redis: RunningRedis) -> bool:
    return "cache-of:default" in redis.say("--scan", "--pattern", "*cache-of:default*")
