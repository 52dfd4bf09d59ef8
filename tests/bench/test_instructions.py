"""Counting: every request is sent and answered, and the counts of all threads are added."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from bench.instructions import counted
from bench.load import Load
from bench.paced import Paced, octets
from tests.support.origin import Origin, reply


def test_the_counts_of_all_threads_are_added() -> None:
    """A dump tells its sum under one of two names; one that was cut off tells none."""
    dumps = ["events: Ir\nfn=(1) x\n+3 4\ntotals: 1200\n", "summary: 34\n", "events: Ir\n"]
    assert counted(iter(dumps)) == 1234


async def test_a_flood_is_as_many_requests_as_were_asked_for() -> None:
    """Over no more connections than it may open."""
    answer = reply(200, ((b"content-length", b"2"),), b"ok")
    async with Origin([answer] * 20) as origin:
        port = urlsplit(origin.url).port or 0
        sender = Paced(port, octets(Load("/"), port))
        await asyncio.to_thread(sender.flood, 20, 3)
        assert len(sender.times) == 20
        assert len(sender.idle) <= 3
