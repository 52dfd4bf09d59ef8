"""Two instances of one vault over one Redis: limits, budgets and short-lived tokens are of both."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from tests.support.command import command
from tests.support.engines import RunningRedis
from tests.support.origin import Exchange, Origin, head
from tests.support.process import Served, served

KEY = {"KEY": "sk-together-0123456789abcdef"}
QUOTAS = "limits: {quotas: [{token: all, calls: 9/day, budget: 4}], concurrency: {total: 2}}\n"


async def answer(exchange: Exchange) -> None:
    await exchange.send(head(200, [("Content-Length", "0")]))


async def test_what_one_instance_counted_the_other_knows(
    tmp_path: Path, redis: RunningRedis
) -> None:
    """A short-lived token of one is good at the other, for so many calls at both; its calls are its
    parent's, whose budget ends on both."""
    async with Origin(answer) as origin, AsyncExitStack() as stack:
        first = tmp_path / "first"
        first.mkdir(mode=0o700)
        engines = (
            f"cache: {{url: '{redis.url}'}}\nservices: {{openai: {{origin: '{origin.url}'}}}}\n"
        )
        (first / "keys.yaml").write_text(f"{engines}keys: {{openai: '${{KEY}}'}}\n{QUOTAS}")
        one = await stack.enter_async_context(served(first, **KEY))
        issued = await command(first, "token", "issue", "all", **KEY)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        short = await exchanged(session, one, issued.out.strip())
        second = shutil.copytree(first, tmp_path / "second")
        other = await stack.enter_async_context(served(second, **KEY))
        said = [await status(session, up, short) for up in (one, other, one, other, one)]
        assert said == [200, 200, 200, 429, 429]
        calls = (status(session, up, issued.out.strip()) for up in (one, other) * 4)
        assert Counter(await asyncio.gather(*calls)) == {200: 1, 429: 7}
        assert len(origin.requests) == 4


async def exchanged(session: aiohttp.ClientSession, up: Served, token: str) -> str:
    asked = {"seconds": 300, "calls": 3}
    bearer = {"Authorization": f"Bearer {token}"}
    async with session.post(f"{up.url}/tokens", json=asked, headers=bearer) as told:
        return str((await told.json())["token"])


async def status(session: aiohttp.ClientSession, up: Served, token: str) -> int:
    bearer = {"Authorization": f"Bearer {token}"}
    async with session.get(f"{up.url}/proxy/openai/v1/models", headers=bearer) as told:
        return told.status
