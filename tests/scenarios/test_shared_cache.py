"""Several instances and one Redis: what one keeps, all answer with."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.clock import SystemClock
from proxy.config import load_config
from proxy.way import stored_in_redis
from tests.support.caller import call as ask
from tests.support.engines import RunningRedis, redis_running
from tests.support.origin import Origin, reply
from tests.support.process import keyrelay
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
        config = load_config(tmp_path / "settings.yaml", {})
        held = await stored_in_redis(config, one.vault, SystemClock())
        assert dict(held.holdings).keys() == {("default", "openai")}
        assert held.entries == 1


async def test_who_signs_in_at_one_instance_is_signed_in_at_the_other(
    tmp_path: Path, redis: RunningRedis
) -> None:
    """A balancer sends each request of the page wherever it likes."""
    async with (
        Origin(reply()) as origin,
        instance(tmp_path, redis, origin) as one,
        instance(tmp_path, redis, origin) as other,
    ):
        token = await one.issue("ada", role="admin")
        form = ("Content-Type", "application/x-www-form-urlencoded")
        own = ("Origin", "http://relay.test")
        body = f"token={token}".encode()
        came = await ask(one.url, "POST", "/admin/login", form, own, body=body)
        cookie = ("Cookie", (came.header("set-cookie") or "").partition(";")[0])
        pages = [await ask(up.url, "GET", "/admin", cookie) for up in (one, other)]
        assert [(page.status, b"/admin/logout" in page.body) for page in pages] == [(200, True)] * 2
        assert b"/admin/logout" not in (await ask(other.url, "GET", "/admin")).body


def stored(redis: RunningRedis) -> bool:
    return "cache-of:default" in redis.say("--scan", "--pattern", "*cache-of:default*")


async def test_without_redis_calls_go_on_and_it_returns_by_itself(tmp_path: Path) -> None:
    """Uncached, said in Cache-Status, health and metrics; no instance is taken out for it."""
    with redis_running() as redis:
        async with Origin(reply(body=b"fresh")) as origin, instance(tmp_path, redis, origin) as up:
            assert "stored" in (await call(up, origin))[0]
            await until(lambda: stored(redis))
            redis.kill()
            async with asyncio.timeout(PATIENCE_SECONDS):
                while "store-error" not in (await call(up, origin))[0]:
                    await asyncio.sleep(0.02)
            assert await told(up) == (200, ["redis"], ["redis"], 0.0)
            redis.start_again()
            redis.wait()
            await heard(up)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while "hit" not in (await call(up, origin))[0]:
                    await asyncio.sleep(0.02)
            assert await told(up) == (200, [], [], 1.0)


async def test_an_instance_that_starts_without_redis_says_so(tmp_path: Path) -> None:
    """From its first answer, and until Redis is there."""
    with redis_running() as redis:
        redis.kill()
        async with (
            Origin(reply(body=b"fresh")) as origin,
            running_relay(tmp_path, settings=f"cache: {{url: '{redis.url}'}}") as up,
        ):
            assert await told(up) == (200, ["redis"], ["redis"], 0.0)
            await up.add_key("openai", key=KEY)
            await up.add_backend("openai", origin.url)
            assert "store-error" in (await call(up, origin))[0]
            redis.start_again()
            redis.wait()
            await heard(up)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while await told(up) != (200, [], [], 1.0):
                    await asyncio.sleep(0.02)


async def test_a_redis_that_stands_still_holds_up_no_call_for_long(tmp_path: Path) -> None:
    """The deadline cuts one wait, the breaker spares all others."""
    with redis_running() as redis:
        async with Origin(reply(body=b"fresh")) as origin, instance(tmp_path, redis, origin) as up:
            redis.pause()
            calls = [call(up, origin, f"&n={number}") for number in range(20)]
            assert [body for _, body in await asyncio.gather(*calls)] == [b"fresh"] * 20
            engine = up.relay._parts.lasting[0]
            assert (engine.up, 0 < engine.failures <= 40) == (False, True)  # type: ignore[attr-defined]
            redis.go_on()
            await until(lambda: engine.up)  # type: ignore[attr-defined]
            assert await told(up) == (200, [], [], 1.0)


async def told(up: Running) -> tuple[int, list[str], list[str], float]:
    """By /health/ready, /status and the metrics."""
    admin = await up.issue(secrets.token_hex(4), role="admin")
    headers = {"Authorization": f"Bearer {admin}"}
    async with aiohttp.ClientSession(up.url) as session:
        async with session.get("/health/ready") as ready:
            code, without = ready.status, (await ready.json()).get("without", [])
        async with session.get("/status", headers=headers) as status:
            missed = (await status.json())["without"]
        async with session.get("/metrics", headers=headers) as metrics:
            text = await metrics.text()
    return code, without, missed, float(text.partition("\nkeyrelay_redis_up ")[2].split()[0])


async def test_a_wrong_password_is_told_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in log, status or metrics; a server starts, and calls go on."""
    secret = "canary-of-the-cache-url"
    with redis_running("--requirepass", "another") as redis:
        url = redis.url.replace("://", f"://relay:{secret}@")
        async with (
            Origin(reply(body=b"fresh")) as origin,
            running_relay(tmp_path, settings=f"cache: {{url: '{url}'}}") as up,
        ):
            await up.add_key("openai", key=KEY)
            await up.add_backend("openai", origin.url)
            status, body = await call(up, origin)
            assert (body, "store-error" in status) == (b"fresh", True)
            assert await told(up) == (200, ["redis"], ["redis"], 0.0)
            engine = up.relay._parts.lasting[0]
            assert secret not in repr(vars(engine))
    said = [f"{one.getMessage()} {one.exc_info} {one.__dict__}" for one in caplog.records]
    assert any("can't be used now: AuthenticationError" in one for one in said)
    assert not [one for one in said if secret in one]


async def test_a_command_says_once_that_redis_is_gone(tmp_path: Path) -> None:
    """And what to do; it logs nothing besides."""
    assert (await keyrelay(tmp_path, "init")).code == 0
    (tmp_path / "keys.yaml").write_text("cache: {url: 'redis://127.0.0.1:1'}")
    ended = await keyrelay(tmp_path, "cache", "stats")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.count("Redis") == 1
    assert "look whether it runs" in ended.err
