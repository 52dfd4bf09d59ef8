"""A connection that knows headers again reads as one that parses everything."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uvicorn.config import Config
from uvicorn.server import ServerState

from proxy.cycle import RelayCycle
from proxy.errors import CallerGone
from proxy.familiar import Familiar
from proxy.patience import Waits
from proxy.protocol import RelayProtocol
from proxy.shortcut import ShortcutProtocol
from tests.proxy.test_protocol import Socket

Call = tuple[str, str, list[tuple[bytes, bytes]], bytes]


class Echo:
    """Reads each call to its end, notes it and answers; `early`: without reading it."""

    def __init__(self, early: bool = False) -> None:
        self.calls: list[Call] = []
        self.known = 0
        self.early = early

    async def __call__(self, scope: Any, _receive: Any, _send: Any) -> None:
        wire: RelayCycle = scope["extensions"]["keyrelay"]
        self.known += wire.more_body is False and not isinstance(scope["headers"], list)
        body, more = b"", not self.early
        while more:
            try:
                octets, more = await wire.read()
            except CallerGone:
                return
            body += octets
        fields = list(scope["headers"])
        self.calls.append((scope["method"], wire.target.decode("latin-1"), fields, body))
        wire.whole(200, b"content-length: 0\r\n", 0, b"")


def connection(app: Any, familiar: Familiar | None) -> RelayProtocol:
    config = Config(app, log_config=None)
    config.load()
    given: dict[str, Any] = {"config": config, "server_state": ServerState(), "app_state": {}}
    given["waits"] = Waits()
    made = (
        RelayProtocol(**given) if familiar is None else ShortcutProtocol(**given, familiar=familiar)
    )
    made.connection_made(Socket())
    return made


async def heard(
    app: Echo, one: RelayProtocol, pieces: Sequence[bytes]
) -> tuple[list[Call], list[bytes]]:
    """The calls and the status lines of the answers."""
    for piece in pieces:
        if not one.transport.is_closing():
            one.data_received(piece)
        for _ in range(8):  # turns of the loop, in which a call that is whole is answered
            await asyncio.sleep(0)
    one.connection_lost(None)
    await asyncio.gather(*one.tasks, return_exceptions=True)
    written = cast(Socket, one.transport).written
    lines = [line for line in written.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    return app.calls, lines


async def test_the_second_request_goes_past_the_parser() -> None:
    """With another length; target, fields and body are as if it were parsed."""
    app = Echo()
    one = connection(app, Familiar())
    text = b"POST /x?a=%%2F HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nX-Y: z\r\n\r\n%b"
    calls, lines = await heard(app, one, [text % (5, b"hello"), text % (2, b"ab")])
    assert (one.begun, len(lines)) == (1, 2)
    assert calls[1] == (
        *("POST", "/x?a=%2F"),
        *([(b"host", b"a"), (b"content-length", b"2"), (b"x-y", b"z")], b"ab"),
    )


async def test_connections_share_what_they_know() -> None:
    """Of one server."""
    familiar = Familiar()
    get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    for begun in (1, 0):
        app = Echo()
        one = connection(app, familiar)
        calls, _ = await heard(app, one, [get])
        assert (one.begun, len(calls)) == (begun, 1)


async def test_a_large_body_of_a_known_header_waits_for_its_reader() -> None:
    """Reading is paused as it is with the parser."""
    familiar = Familiar()
    text = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    await heard(app := Echo(), connection(app, familiar), [text % 0])
    one = connection(Echo(), familiar)
    one.data_received(text % 200_000 + bytes(100_000))
    assert not cast(Socket, one.transport).reads
    await asyncio.sleep(0)
    one.data_received(bytes(100_000))
    while one.tasks:
        await asyncio.sleep(0)
    assert (one.begun, cast(Socket, one.transport).reads) == (0, True)


async def test_a_caller_that_is_refused_early_goes_on_with_the_next_request() -> None:
    """What comes of the body meanwhile is thrown away."""
    familiar = Familiar()
    text = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    await heard(app := Echo(), connection(app, familiar), [text % 0])
    app = Echo(early=True)
    one = connection(app, familiar)
    calls, lines = await heard(app, one, [text % 6 + b"a", b"bc", b"def" + text % 0])
    assert (one.begun, len(calls), len(lines)) == (0, 2, 2)


HOST = b"Host: a\r\n"
REQUESTS = (
    b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /b?x=1&y HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n",
    b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 28\r\n\r\nGET /b HTTP/1.1\r\nHost: b\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: a\r\ncontent-length: 05\r\n\r\nhello",
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5 \r\n\r\nhello",
    b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: b\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    b"\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
)
LAST = (
    b"",
    b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET /a HTTP/1.0\r\nHost: a\r\n\r\n",
    b"GET /a HTTP/1.1\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello",
    b"GET /a HTTP/1.1\nHost: a\n\n",
    b"GET /a HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost a\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
    b"JUNK\r\n\r\n",
)
"""What is answered, or refused, as the last on its connection."""


def cut(octets: bytes, places: Sequence[int]) -> list[bytes]:
    bounds = [0, *sorted({place % (len(octets) + 1) for place in places}), len(octets)]
    return [octets[a:b] for a, b in itertools.pairwise(bounds) if a < b]


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    requests=st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=6),
    last=st.sampled_from(LAST),
    places=st.lists(st.integers(0, 2000), max_size=6),
    whole=st.booleans(),
)
async def test_every_series_of_requests_is_read_as_the_parser_reads_it(
    requests: list[bytes], last: bytes, places: list[int], whole: bool
) -> None:
    """The same calls and the same answers, however the octets are cut, and whatever is known."""
    series = [*requests, last] if last else requests
    pieces = series if whole else cut(b"".join(series), places)
    expected = await heard(app := Echo(), connection(app, None), pieces)
    familiar = Familiar()
    for request in REQUESTS:  # what can be known is known
        await heard(app := Echo(), connection(app, familiar), [request])
    found = await heard(app := Echo(), connection(app, familiar), pieces)
    assert found == expected


@pytest.mark.parametrize("request_", REQUESTS[:7])
async def test_plain_requests_are_known_at_the_second_sight(request_: bytes) -> None:
    """The check above is one of the shortcut, not of the parser twice."""
    familiar = Familiar()
    await heard(app := Echo(), connection(app, familiar), [request_])
    body = request_.index(b"\r\n\r\n") + 4
    one = connection(app := Echo(), familiar)
    await heard(app, one, cut(request_, [body]))
    assert (one.begun, len(app.calls)) == (0, 1)
