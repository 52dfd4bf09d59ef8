"""Load that is not kind, in short; `make attack` has the whole of it, with figures."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from proxy.certificate import Certificate
from proxy.patience import Waits
from tests.attack.callers import LARGE_BYTES
from tests.attack.swarm import LARGE, MANNERS, SECURED, SMALL, Place, mixed, swarm
from tests.support.caller import call
from tests.support.certificates import trusting, write_pair
from tests.support.origin import Origin, reply
from tests.support.relay import running_relay

SHORT = Waits(header=1.5, body=1.5, answer=1.5, idle=1.5)
CALLERS = 20


@pytest.mark.parametrize("manner", MANNERS.values(), ids=MANNERS.keys())
async def test_all_of_them_are_closed_and_nobody_else_is(tmp_path: Path, manner: object) -> None:
    """Whoever is kind is answered meanwhile; what was counted is given back."""
    async with Origin() as origin:
        origin.answer_with(reply(200, [], b"ok"), reply(200, [], b"x" * LARGE_BYTES))
        services = {"openai": {"origin": origin.url}}
        async with running_relay(tmp_path / "data", services, waits=SHORT) as up:
            await up.add_key("openai", key="sk-0123456789abcdefghij")
            token = ("X-Relay-Token", up.token)
            for target in (SMALL, LARGE):
                assert (await call(up.url, "GET", target, token)).status == 200
            place = Place(up.url, up.token, pause=0.05)
            many = asyncio.create_task(swarm(place, manner, CALLERS))  # type: ignore[arg-type]
            door, seen = up.extra["door"], 0
            async with asyncio.timeout(50):
                while door.arrivals.open or not (seen > 1 or many.done()):
                    seen = max(seen, door.arrivals.open)
                    assert (await call(up.url, "GET", SMALL, token)).body == b"ok"
                    await asyncio.sleep(0.02)
            many.cancel()
            await asyncio.wait([many])
            assert door.arrivals == (0, {"total": 0, "address": 0})
    assert len(origin.requests) == 2


async def test_with_tls_too(tmp_path: Path) -> None:
    """Those among them who never agree on it."""
    pair = write_pair(tmp_path)
    async with Origin() as origin:
        origin.answer_with(reply(200, [], b"ok"), reply(200, [], b"x" * LARGE_BYTES))
        services = {"openai": {"origin": origin.url}}
        certificate = Certificate(pair)
        async with running_relay(
            tmp_path / "data", services, waits=SHORT, certificate=certificate
        ) as up:
            await up.add_key("openai", key="sk-0123456789abcdefghij")
            token, tls = ("X-Relay-Token", up.token), trusting(pair)
            for target in (SMALL, LARGE):
                assert (await call(up.url, "GET", target, token, tls=tls)).status == 200
            place, names = Place(up.url, up.token, pause=0.05), list(SECURED)
            many = asyncio.create_task(mixed(place, names, 3 * len(names)))
            door, seen = up.extra["door"], 0
            async with asyncio.timeout(50):
                while door.arrivals.open or seen < len(names):
                    seen = max(seen, door.arrivals.open)
                    assert (await call(up.url, "GET", SMALL, token, tls=tls)).body == b"ok"
                    await asyncio.sleep(0.02)
            many.cancel()
            await asyncio.wait([many])
            assert door.arrivals == (0, {"total": 0, "address": 0})
    assert len(origin.requests) == 2
