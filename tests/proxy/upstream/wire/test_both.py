"""One corpus of upstream behaviours against both transports: the older one is the oracle."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from proxy.errors import RelayError
from proxy.upstream.transport import Deadlines
from tests.proxy.upstream.wire.corpus import CORPUS
from tests.support.origin import Exchange, Origin, reply
from tests.support.outbound import Sender, sender
from tests.support.wire import wire_sender

Senders = Callable[[], AbstractAsyncContextManager[Sender]]
DEADLINES = Deadlines(first_byte=1.5, idle=1.5)

ONE_READING = "what two programs could read differently is refused"
NOT_BEGUN = "nothing of the answer was passed on yet"
BOUNDED = "nothing an upstream sends is without a bound"

DIFFERENCES = {
    "keep-alive for 0 seconds": (
        "200 b'ok', kept",
        "200 b'ok', closed",
        "the upstream says that it closes the connection",
    ),
    "equal lengths": ("200 b'ok', kept", "UpstreamError, closed", ONE_READING),
    "a list of lengths": ("200 b'ok', kept", "UpstreamError, closed", ONE_READING),
    "folded": ("200 b'ok', kept", "UpstreamError, closed", ONE_READING),
    "bare LF everywhere": ("200 b'ok', kept", "UpstreamError, closed", ONE_READING),
    "bare LF in a field": ("200 b'ok', kept", "UpstreamError, closed", ONE_READING),
    "bare LF at the end": ("200 b'ok', kept", "UpstreamError, closed", ONE_READING),
    "surplus answer": ("200 b'ok', closed", "UpstreamError, closed", ONE_READING),
    "surplus behind chunks": ("200 b'ok', closed", "UpstreamError, closed", ONE_READING),
    "surplus line end": ("200 b'ok', closed", "UpstreamError, closed", ONE_READING),
    "surplus octet": ("200 b'ok', closed", "UpstreamError, closed", ONE_READING),
    "HTTP/2": ("200 b'ok', kept", "UpstreamError, closed", "its framing isn't that of HTTP/1.1"),
    "HTTP/1.2": ("200 b'ok', kept", "UpstreamError, closed", "there is no such protocol"),
    "a banner": (
        "UpstreamTimeout, closed",
        "UpstreamError, closed",
        "the first octets tell that no HTTP follows",
    ),
    "too many interim answers": ("200 b'ok', kept", "UpstreamError, closed", BOUNDED),
    "a thousand fields": ("200 b'ok', kept", "UpstreamError, closed", BOUNDED),
    "chunk size in words": (
        "b'' then UpstreamIncomplete, closed",
        "UpstreamError, closed",
        NOT_BEGUN,
    ),
    "chunk size with a sign": (
        "b'' then UpstreamIncomplete, closed",
        "UpstreamError, closed",
        NOT_BEGUN,
    ),
    "chunk size with a prefix": (
        "b'' then UpstreamIncomplete, closed",
        "UpstreamError, closed",
        NOT_BEGUN,
    ),
    "chunk size with an underscore": (
        "b'' then UpstreamIncomplete, closed",
        "UpstreamError, closed",
        NOT_BEGUN,
    ),
    "chunk size behind a space": (
        "b'' then UpstreamIncomplete, closed",
        "UpstreamError, closed",
        NOT_BEGUN,
    ),
    "empty chunk size": ("b'' then UpstreamIncomplete, closed", "UpstreamError, closed", NOT_BEGUN),
    "chunk size that ends in LF": (
        "b'' then UpstreamIncomplete, closed",
        "UpstreamError, closed",
        NOT_BEGUN,
    ),
    "chunk size before a space": (
        "200 b'ok', kept",
        "UpstreamError, closed",
        ONE_READING,
    ),
    "chunk size beyond 64 bits": (
        "b'ok\\r\\n' then UpstreamTimeout, closed",
        "UpstreamError, closed",
        ONE_READING,
    ),
    "NUL in a chunk extension": (
        "200 b'ok', kept",
        "UpstreamError, closed",
        ONE_READING,
    ),
    "a trailer that is framing": (
        "200 b'ok', kept",
        "b'ok' then UpstreamIncomplete, closed",
        ONE_READING,
    ),
    "a folded trailer": (
        "200 b'ok', kept",
        "b'ok' then UpstreamIncomplete, closed",
        ONE_READING,
    ),
}
"""What httpcore makes of a behaviour, what the wire makes of it, and why."""


async def outcome(senders: Senders, name: str) -> str:
    """What the caller of the first call sees, and whether the second one shares its connection."""
    behaviour = CORPUS[name]

    async def first(exchange: Exchange) -> None:
        await exchange.send(behaviour.raw)
        if behaviour.closes:
            await exchange.close()

    async with Origin([first, reply(200, (), b"next")]) as origin, senders() as to:
        seen = await _seen(to, origin.url, behaviour.method)
        assert await _seen(to, origin.url, "GET") == "200 b'next'"
        return f"{seen}, {'kept' if origin.connections == 1 else 'closed'}"


async def _seen(to: Sender, url: str, method: str) -> str:
    body: bytes | None = None
    try:
        request = to.request(url, method, deadlines=DEADLINES)
        async with asyncio.timeout(10), to.transport.send(request) as response:
            body = b""
            async for part in response.body:
                body += part
    except RelayError as error:
        said = "" if body is None else f"{body!r} then "
        return f"{said}{type(error).__name__}"
    end = " until the end" if response.complete_at_close else ""
    return f"{response.status}{end} {body!r}"


@pytest.mark.parametrize("name", CORPUS)
async def test_an_upstream_is_read_alike(name: str) -> None:
    """Every difference stands in the table, with its reason."""
    seen = await asyncio.gather(outcome(sender, name), outcome(wire_sender, name))
    if name in DIFFERENCES:
        assert tuple(seen) == DIFFERENCES[name][:2]
    else:
        assert seen[0] == seen[1]


def test_the_table_speaks_of_the_corpus() -> None:
    """Each row is a behaviour, and a difference."""
    assert set(DIFFERENCES) <= set(CORPUS)
    assert all(older != wire and reason for older, wire, reason in DIFFERENCES.values())


def test_the_page_has_every_difference() -> None:
    """`docs/transports.md` says what a change of transport changes."""
    page = (Path(__file__).parents[4] / "docs/transports.md").read_text()
    for name, words in DIFFERENCES.items():
        assert f"| {' | '.join((name, *words))} |" in page
