"""How many connections are let in, before anybody says who calls."""

from __future__ import annotations

import asyncio
import logging
from ipaddress import ip_network
from typing import Any, cast

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from proxy.door import TELL_SECONDS, Door, DoorRules
from proxy.familiar import Familiar
from proxy.orderly import OrderlyProtocol
from proxy.patience import Waits
from tests.proxy.test_protocol import Answering, Socket
from tests.support.clock import FakeClock

PROXY = "10.0.0.1"
RULES = DoorRules(5, 2, (ip_network("10.0.0.0/8"),))
GET = b"GET /%b HTTP/1.1\r\nHost: a\r\n%b\r\n"


@pytest.fixture
def door() -> Door:
    return Door(RULES, FakeClock())


def test_an_address_has_so_many_connections(door: Door) -> None:
    """And again as many as it gives back."""
    found = [door.enter("192.0.2.1") for _ in range(3)]
    assert found == ["192.0.2.1", "192.0.2.1", None]
    assert door.enter("::ffff:192.0.2.1") is None
    assert door.enter("192.0.2.2") == "192.0.2.2"
    door.leave("192.0.2.1")
    assert door.enter("192.0.2.1") == "192.0.2.1"
    assert door.arrivals == (3, {"total": 0, "address": 2})


def test_a_network_of_ipv6_counts_as_one_caller(door: Door) -> None:
    """Whoever has one address of a /64 has them all."""
    found = [door.enter(f"2001:db8::{number}") for number in range(3)]
    assert found == ["2001:db8::/64", "2001:db8::/64", None]
    assert door.enter("2001:db8:0:1::1") == "2001:db8:0:1::/64"


def test_there_are_so_many_connections_in_all(door: Door) -> None:
    """Whosever: this machine's and the proxies' count here, and only here."""
    peers = ["127.0.0.1", "127.0.0.1", "127.0.0.1", PROXY, "::1"]
    assert [door.enter(peer) for peer in peers] == [""] * 5
    assert door.enter("192.0.2.1") is None
    assert door.enter("127.0.0.1") is None
    assert door.arrivals == (5, {"total": 2, "address": 0})
    door.leave("")
    assert door.enter("192.0.2.1") == "192.0.2.1"


def test_nothing_is_kept_of_who_has_gone(door: Door) -> None:
    """A million addresses in a row fill no memory."""
    for number in range(256):
        counted = door.enter(f"192.0.2.{number}")
        assert counted is not None
        door.leave(counted)
    assert door._by_address == {}
    assert door.arrivals.open == 0


def test_other_rules_hold_for_who_comes(door: Door) -> None:
    """Who is there stays, and is given back as it was counted."""
    counted = [door.enter("192.0.2.1"), door.enter("192.0.2.1")]
    door.become(DoorRules(5, 1, (ip_network("192.0.2.0/24"),)))
    assert door.enter("192.0.2.1") == ""
    for one in (*counted, ""):
        door.leave(cast(str, one))
    assert (door.arrivals.open, door._by_address) == (0, {})


def test_a_flood_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """How many it was, by which setting; each one is in the metrics."""
    caplog.set_level(logging.WARNING, "keyrelay")
    clock = FakeClock()
    door = Door(DoorRules(1, 1), clock)
    door.enter("192.0.2.1")
    for _ in range(1000):
        door.enter("192.0.2.1")
    clock.advance(TELL_SECONDS)
    door.enter("192.0.2.1")
    assert [record.getMessage() for record in caplog.records] == [
        "connections refused: 1; the last by server.max_connections",
        "connections refused: 1000; the last by server.max_connections",
    ]
    assert door.arrivals.refused == {"total": 1001, "address": 0}


@pytest.mark.parametrize(
    ("forwarded", "named"),
    [
        (b"192.0.2.1", ("192.0.2.1", "192.0.2.1")),
        (b"1.1.1.1, 192.0.2.1", ("192.0.2.1", "192.0.2.1")),
        (b"2001:db8::1", ("2001:db8::1", "2001:db8::/64")),
        (b"10.0.0.9", ("10.0.0.9", "")),
        (b"junk", (PROXY, f"behind {PROXY}")),
        (None, (PROXY, "")),
    ],
)
def test_a_trusted_peer_says_for_whom_it_calls(
    door: Door, forwarded: bytes | None, named: tuple[str, str]
) -> None:
    """What can't be understood counts as one caller; who names nobody calls for itself."""
    fields = () if forwarded is None else ((b"x-forwarded-for", forwarded),)
    assert door.named(PROXY, fields) == named


def test_only_listed_peers_are_trusted(door: Door) -> None:
    """Nobody by default, this machine neither."""
    assert door.trusts(PROXY)
    assert not door.trusts("192.0.2.1")
    assert not door.trusts("127.0.0.1")
    assert not Door(DoorRules(5, 2), FakeClock()).trusts(PROXY)


# At a connection.


class From(Socket):
    """A connection of some address."""

    def __init__(self, peer: str) -> None:
        super().__init__()
        self.peer = peer

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self.peer, 4711) if name == "peername" else default


class Noting(Answering):
    """Notes for whom it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.callers: list[str] = []

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        self.callers.append(scope["client"][0])
        await super().__call__(scope, _receive, send)


def connection(door: Door, peer: str, app: Any) -> tuple[OrderlyProtocol, From]:
    config = Config(app, log_config=None)
    config.load()
    made = OrderlyProtocol(
        config=config,
        server_state=ServerState(),
        app_state={},
        waits=Waits(),
        familiar=Familiar(),
        door=door,
    )
    wire = From(peer)
    made.connection_made(wire)
    return made, wire


async def test_one_connection_too_many_gets_503_at_once(door: Door) -> None:
    """Before it says a word; what it says is not heard. A closed one makes room."""
    app = Noting()
    two = [connection(door, "192.0.2.1", app) for _ in range(2)]
    third, wire = connection(door, "192.0.2.1", app)
    assert wire.written.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b'"code":"too_many_connections"' in wire.written
    assert wire.is_closing()
    third.data_received(GET % (b"x", b""))
    third.connection_lost(None)
    assert door.arrivals == (2, {"total": 0, "address": 1})
    for one, other in two:
        assert other.written == b""
        one.connection_lost(None)
    assert door.arrivals.open == 0
    assert app.callers == []


async def test_calls_behind_a_proxy_count_for_whom_they_are(door: Door) -> None:
    """As connections do; the one too many is refused alone, and its proxy's connection stays."""
    app = Noting()
    proxies = [connection(door, PROXY, app) for _ in range(4)]
    for number, (one, _) in enumerate(proxies):
        who = b"X-Forwarded-For: 1.1.1.1, 192.0.2.%d\r\n" % (number // 3)
        one.data_received(GET % (b"%d" % number, who))
    while len(app.paths) < 3 or not proxies[2][1].written:
        await asyncio.sleep(0)
    assert app.callers == ["192.0.2.0", "192.0.2.0", "192.0.2.1"]
    refused, wire = proxies[2]
    assert wire.written.startswith(b"HTTP/1.1 503 ")
    assert b'"code":"too_many_connections"' in wire.written
    assert not wire.is_closing()
    for _ in range(4):
        app.turns.release()
    for one, _ in proxies:
        await asyncio.gather(*one.tasks)
    assert door._by_address == {}
    refused.data_received(GET % (b"2", b"X-Forwarded-For: 1.1.1.1, 192.0.2.0\r\n"))
    await asyncio.gather(*refused.tasks)
    assert wire.written.count(b"HTTP/1.1 200 ") == 1
    for one, _ in proxies:
        one.connection_lost(None)
    assert door.arrivals == (0, {"total": 0, "address": 1})


async def test_a_call_that_is_lost_is_over(door: Door) -> None:
    """A proxy that hangs up takes its callers with it."""
    app = Noting()
    one, _ = connection(door, PROXY, app)
    one.data_received(GET % (b"", b"X-Forwarded-For: 192.0.2.1\r\n"))
    await app.asked()
    assert door._by_address == {"192.0.2.1": 1}
    one.connection_lost(None)
    assert door._by_address == {}
    app.turns.release()
    await asyncio.gather(*one.tasks)


async def test_nobody_else_says_for_whom_they_call(door: Door) -> None:
    """The address is the connection's."""
    app = Noting()
    one, _ = connection(door, "192.0.2.9", app)
    one.data_received(GET % (b"", b"X-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\n"))
    await app.asked()
    assert app.callers == ["192.0.2.9"]
    app.turns.release()
    await asyncio.gather(*one.tasks)
    one.connection_lost(None)
