"""A thousand calls over an upstream that does all it can to mix them up."""

import asyncio
import random
from collections import Counter

import pytest

from proxy.errors import UpstreamError
from proxy.upstream.wire.pool import Bounds
from tests.support.origin import Exchange, Origin, chunked, head, reply
from tests.support.outbound import Sender, fetch, whole
from tests.support.wire import left_behind, wire_sender

EVIL = reply(200, (), b"EVIL")


class Hostile:
    """Answers each call with its own path as the body, in a way that chance decides."""

    def __init__(self) -> None:
        self._chance = random.Random(7)
        self.ways: Counter[str] = Counter()

    async def __call__(self, exchange: Exchange) -> None:
        way = self._chance.choice([name for name in dir(self) if name.startswith("_answer_")])
        self.ways[way] += 1
        await getattr(self, way)(exchange, exchange.request.path.encode())

    async def _answer_plainly(self, exchange: Exchange, tag: bytes) -> None:
        await exchange.send(reply(200, (), tag))

    async def _answer_in_chunks(self, exchange: Exchange, tag: bytes) -> None:
        await exchange.send(chunked([tag[:2], tag[2:]]))

    async def _answer_in_pieces(self, exchange: Exchange, tag: bytes) -> None:
        await exchange.drip(reply(200, (), tag))

    async def _answer_after_interim(self, exchange: Exchange, tag: bytes) -> None:
        await exchange.send(head(103) + reply(200, (), tag))

    async def _answer_and_more(self, exchange: Exchange, tag: bytes) -> None:
        await exchange.send(reply(200, (), tag) + EVIL)

    async def _answer_and_more_behind(self, exchange: Exchange, tag: bytes) -> None:
        await exchange.send(chunked([tag]))
        await exchange.send(EVIL)

    async def _answer_and_close(self, exchange: Exchange, tag: bytes) -> None:
        await exchange.send(reply(200, (), tag))
        await exchange.close()

    async def _answer_and_abort(self, exchange: Exchange, tag: bytes) -> None:
        await exchange.send(reply(200, (), tag) + EVIL[:9])
        exchange.abort()

    async def _answer_too_short(self, exchange: Exchange, tag: bytes) -> None:
        await exchange.send(head(200, [("Content-Length", "99")]) + tag)
        await exchange.close()

    async def _answer_with_nothing(self, exchange: Exchange, tag: bytes) -> None:
        await exchange.close()

    async def _answer_with_nonsense(self, exchange: Exchange, tag: bytes) -> None:
        await exchange.send(b"EVIL\r\n\r\n" + EVIL)


async def test_no_call_gets_the_octets_of_another() -> None:
    """Each has its own answer, or an error."""
    hostile, seen = Hostile(), Counter[str]()

    async def caller(to: Sender, url: str, number: int) -> None:
        for turn in range(25):
            path = f"/{number}-{turn}"
            body = whole(b"x" * turn) if turn % 3 else None
            try:
                _, octets = await fetch(to, url + path, "POST" if body else "GET", body=body)
            except UpstreamError as error:
                seen[error.code] += 1
            else:
                assert octets == path.encode()
                seen["whole"] += 1

    bounds = Bounds(connections=24, per_route=24)
    async with Origin(hostile) as origin, wire_sender(bounds=bounds) as to:
        async with asyncio.timeout(60):
            await asyncio.gather(*(caller(to, origin.url, number) for number in range(40)))
        opened, _, waiting = left_behind(to)
    assert sum(seen.values()) == 1000
    assert opened <= 24
    assert waiting == 0
    assert seen["whole"] > 300
    assert set(seen) == {"whole", "upstream_error", "upstream_incomplete", "upstream_unreachable"}
    assert len(hostile.ways) == 11


@pytest.mark.parametrize(
    "raw",
    [
        reply(200, [("X", "y")], b"octets"),
        chunked([b"oct", b"ets"]),
        head(100) + chunked([b"octets"]),
    ],
)
async def test_an_answer_cut_anywhere_is_never_whole(to: Sender, raw: bytes) -> None:
    """Behind each octet the upstream hangs up, in one way or the other."""
    cuts = iter(range(len(raw)))

    async def handler(exchange: Exchange) -> None:
        at = next(cuts)
        await exchange.send(raw[:at])
        await exchange.close() if at % 2 else exchange.abort()

    async with Origin(handler) as origin:
        for _ in range(len(raw)):
            with pytest.raises(UpstreamError):
                await fetch(to, origin.url, "POST", body=whole(b"x"))
        assert left_behind(to) == (0, 0, 0)


@pytest.mark.parametrize("raw", [reply(200, (), b"octets"), chunked([b"oct", b"", b"ets"][::2])])
async def test_an_answer_split_anywhere_is_the_same(to: Sender, raw: bytes) -> None:
    """In two reads, and over one connection."""
    cuts = iter(range(1, len(raw)))

    async def handler(exchange: Exchange) -> None:
        at = next(cuts)
        await exchange.send(raw[:at])
        for _ in range(3):
            await asyncio.sleep(0)
        await exchange.send(raw[at:])

    async with Origin(handler) as origin:
        for _ in range(1, len(raw)):
            assert (await fetch(to, origin.url))[1] == b"octets"
    assert origin.connections == 1
