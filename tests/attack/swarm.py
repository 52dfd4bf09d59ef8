"""Many callers that are not kind, each on a connection of its own, in a process of theirs."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from proxy.cli.doors import take_handles
from tests.support.caller import Caller

LARGE: Final = "/proxy/openai/cache=9999999999/-/large"
SMALL: Final = "/proxy/openai/cache=9999999999/-/small"


@dataclass(frozen=True)
class Place:
    """Where they call, with which token, and how long one pauses between two octets."""

    url: str
    token: str
    pause: float = 1.0

    def header(self, method: str, target: str, more: str = "") -> bytes:
        """All of it but the last line's end."""
        token = f"Host: a\r\nX-Relay-Token: {self.token}\r\n{more}"
        return f"{method} {target} HTTP/1.1\r\n{token}".encode()


Manner = Callable[[Caller, Place], Awaitable[None]]


async def say_nothing(caller: Caller, place: Place) -> None:
    """Until we are tired of it."""
    await caller.reader.read()


async def drip_header(caller: Caller, place: Place) -> None:
    """A field now and then, and never the end."""
    await caller.send(place.header("GET", SMALL))
    await _drip(caller, place, b"X: y\r\n")


async def drip_body(caller: Caller, place: Place) -> None:
    """An octet now and then, and after some of them none."""
    await caller.send(place.header("POST", SMALL, "Content-Length: 1000\r\n\r\n"))
    for _ in range(5):
        await caller.send(b"a")
        await asyncio.sleep(place.pause)
    await caller.reader.read()


async def read_nothing(caller: Caller, place: Place) -> None:
    """Of an answer that no buffer holds; until it is asked to go away."""
    caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await caller.send(place.header("GET", LARGE, "\r\n"))
    await asyncio.Event().wait()


async def call_at_once(caller: Caller, place: Place) -> None:
    """With all others."""
    await caller.send(place.header("GET", SMALL, "\r\n"))
    await caller.answer()


MANNERS: Final[Mapping[str, Manner]] = {
    "say nothing": say_nothing,
    "drip headers": drip_header,
    "drip bodies": drip_body,
    "read nothing": read_nothing,
    "call all at once": call_at_once,
}


async def half_agree(caller: Caller, place: Place) -> None:
    """On TLS: the half of a first word."""
    there = ssl.MemoryBIO()
    layer = trusting_all().wrap_bio(ssl.MemoryBIO(), there)
    with contextlib.suppress(ssl.SSLWantReadError):
        layer.do_handshake()
    await caller.send(there.read()[:100])
    await caller.reader.read()


SECURED: Final[Mapping[str, Manner]] = {
    **MANNERS,
    "agree on nothing": say_nothing,
    "half agree": half_agree,
}
"""Where a server speaks TLS; the last two before it is agreed."""

WITHOUT: Final = SECURED.keys() - MANNERS.keys()


def trusting_all() -> ssl.SSLContext:
    """Whoever is not kind doesn't look at certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def _drip(caller: Caller, place: Place, octets: bytes) -> None:
    ended = asyncio.create_task(caller.reader.read())
    while not (await asyncio.wait([ended], timeout=place.pause))[0]:
        caller.writer.write(octets)
    ended.result()


async def swarm(place: Place, manner: Manner, how_many: int) -> None:
    """All of them at once; returns when the last one has been closed, or is done."""
    await asyncio.gather(*(_one(place, manner) for _ in range(how_many)))


async def _one(place: Place, manner: Manner, tls: ssl.SSLContext | None = None) -> None:
    parts = urlsplit(place.url)
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=tls)
        try:
            await manner(Caller(reader, writer), place)
        finally:
            writer.transport.abort()


async def mixed(place: Place, names: list[str], how_many: int) -> None:
    """As many of each."""
    tls = trusting_all() if place.url.startswith("https:") else None
    async with asyncio.TaskGroup() as group:
        for number in range(how_many):
            name = names[number % len(names)]
            group.create_task(_one(place, SECURED[name], None if name in WITHOUT else tls))


if __name__ == "__main__":
    take_handles()
    some, url, token, count = sys.argv[1:]
    asyncio.run(mixed(Place(url, token), some.split("+"), int(count)))
