"""Several instances of one vault over one Redis: equal calls are one upstream call."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.support.command import command
from tests.support.engines import RunningRedis
from tests.support.origin import LAST_CHUNK, Exchange, Origin, chunk, event, head
from tests.support.process import Served, served

PATIENCE_SECONDS = 60.0
CALL = "/proxy/openai/{options}/-/v1/chat/completions"
STORED = "cache=9999999999"
BODY = b'{"messages":[{"role":"user","content":"the same"}]}'
LARGE = b'{"messages":[{"role":"user","content":"the large one"}]}'
OCTETS = 6 << 20  # more than any instance keeps in memory
EVENTS = [event(f"piece {number}") for number in range(3)]


class Slow:
    """An origin that sends an event whenever it is told to, to every call that it has got."""

    def __init__(self) -> None:
        self.steps = asyncio.Condition()
        self.step = 0
        self.larges = 0

    async def __call__(self, exchange: Exchange) -> None:
        if exchange.request.body == LARGE:
            self.larges += 1
            await exchange.reply(body=b"%d" % self.larges * OCTETS)
            return
        await self.until(1)
        fields = [("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked")]
        await exchange.send(head(200, fields))
        for number, one in enumerate(EVENTS, 2):
            await self.until(number)
            await exchange.send(chunk(one))
        await exchange.send(LAST_CHUNK)

    async def until(self, step: int) -> None:
        async with self.steps:
            await self.steps.wait_for(lambda: self.step >= step)

    async def go_to(self, step: int) -> None:
        async with self.steps:
            self.step = step
            self.steps.notify_all()


@dataclass
class Instances:
    """All that run, the one whose call it is, and a token for all."""

    all: list[Served]
    token: str
    session: aiohttp.ClientSession

    def post(
        self, number: int, body: bytes = BODY, options: str = STORED
    ) -> asyncio.Task[aiohttp.ClientResponse]:
        """A call at one of them; its answer, once the header is there."""
        url = self.all[number].url + CALL.format(options=options)
        headers = {"Authorization": f"Bearer {self.token}"}
        return asyncio.create_task(_posted(self.session, url, headers, body))

    async def hit(self, number: int, body: bytes) -> bytes:
        """What an instance answers with once it is stored."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                answer = await self.post(number, body)
                octets = await answer.read()
                if "; hit" in answer.headers["Cache-Status"]:
                    return octets

    async def answering(self, count: int) -> None:
        """Waits until so many calls are under way, at all together."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while sum([await self._in_flight(up) for up in self.all]) < count:
                await asyncio.sleep(0.05)

    async def _in_flight(self, up: Served) -> int:
        headers = {"Authorization": f"Bearer {self.token}"}
        async with self.session.get(f"{up.url}/metrics", headers=headers) as answer:
            found = re.search(r"^keyrelay_in_flight (\d+)", await answer.text(), re.MULTILINE)
            assert found is not None
            return int(found[1])


async def _posted(
    session: aiohttp.ClientSession, url: str, headers: dict[str, str], body: bytes
) -> aiohttp.ClientResponse:
    return await session.post(url, data=body, headers=headers)


@asynccontextmanager
async def running(
    folder: Path, redis: RunningRedis, origin: Origin, count: int = 3
) -> AsyncIterator[Instances]:
    """Instances with copies of one data directory, and so with one vault's keys."""
    first = folder / "0"
    settings = (
        f"services: {{openai: {{origin: '{origin.url}'}}}}\n"
        f"keys: {{openai: '${{KEY}}'}}\ncache: {{url: '{redis.url}'}}\n"
    )
    environ = {"KEY": "sk-instances-0123456789abcdef"}
    first.mkdir(mode=0o700)
    (first / "keys.yaml").write_text(settings)
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(served(first, **environ))  # it makes the keys
        issued = await command(first, "token", "issue", "all", "--role", "admin", **environ)
        assert issued.code == 0, issued.err
        copies = [shutil.copytree(first, folder / str(number)) for number in range(1, count)]
        starting = [stack.enter_async_context(served(data, **environ)) for data in copies]
        up = [opened, *await asyncio.gather(*starting)]
        connections = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connections))
        yield Instances(up, issued.out.strip(), session)


async def test_three_instances_make_one_call_of_equal_ones_and_outlive_its_maker(
    tmp_path: Path, redis: RunningRedis
) -> None:
    """300 equal slow calls are one upstream call: all hear the live tail, octet for octet, and
    those who come later hit what was stored. When the one that makes a call is killed before its
    header, one of the others makes it, for all. One that stands still while it stores puts nothing
    over what came later."""
    slow = Slow()
    async with Origin(slow) as origin, running(tmp_path, redis, origin) as three:
        await three_hundred(three, slow)
        assert len(origin.requests) == 1
        await slow.go_to(0)
        leading = three.post(0, b"{}")
        await until(lambda: len(origin.requests) == 2)
        following = [three.post(1 + number % 2, b"{}") for number in range(10)]
        await three.answering(11)
        three.all[0].kill()
        await asyncio.gather(leading, return_exceptions=True)
        await until(lambda: len(origin.requests) == 3)
        await slow.go_to(4)
        answers = await asyncio.gather(*following)
        assert {await answer.read() for answer in answers} == {b"".join(EVENTS)}
        alone = [one for up in three.all for one in up.said if "can't be used now" in one]
        assert len(origin.requests) == 3 or alone  # who can't ask Redis in time calls by itself
        await stands_still(three.all[1].process, three, redis)


async def stands_still(
    frozen: asyncio.subprocess.Process, three: Instances, redis: RunningRedis
) -> None:
    """The second of them, in the middle of storing, while the third refreshes the same answer."""
    first = await three.post(1, LARGE)
    reading = asyncio.create_task(first.read())
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await asyncio.to_thread(redis.say, "--scan", "--pattern", "*{cache:*:0"):
            pass
    frozen.send_signal(signal.SIGSTOP)
    try:
        refreshed = await three.post(2, LARGE, f"{STORED}/invalidate")
        assert await refreshed.read() == b"2" * OCTETS
        assert await three.hit(2, LARGE) == b"2" * OCTETS
    finally:
        frozen.send_signal(signal.SIGCONT)
    assert await reading == b"1" * OCTETS
    assert await three.all[1].stop() == 0  # what is whole was written down, or refused
    assert await three.hit(2, LARGE) == b"2" * OCTETS


async def three_hundred(three: Instances, slow: Slow) -> None:
    calls = [three.post(number % 3) for number in range(300)]
    await three.answering(300)
    await slow.go_to(2)
    answers = await asyncio.gather(*calls)
    firsts = [await answer.content.readexactly(len(EVENTS[0])) for answer in answers]
    assert set(firsts) == {EVENTS[0]}
    await slow.go_to(4)
    assert {await answer.content.read() for answer in answers} == {b"".join(EVENTS[1:])}
    verdicts = [answer.headers["Cache-Status"] for answer in answers]
    assert sum("collapsed" in verdict for verdict in verdicts) == 299
    for number in range(3):
        later = await three.post(number)
        assert await later.read() == b"".join(EVENTS)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not holds():
            await asyncio.sleep(0.02)
