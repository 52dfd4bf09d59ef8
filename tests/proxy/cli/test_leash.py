"""Orders to a process, and its news."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack, closing

from proxy.cli.leash import RELOAD, STOP, Leash, News, read_news


async def test_orders_are_done_and_the_end_of_the_parent_is_one() -> None:
    """Each once, in their order."""
    done: list[str] = []
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(closing(one)) for one in socket.socketpair())
        orders = {STOP: lambda: done.append("stop"), RELOAD: lambda: done.append("reload")}
        Leash(theirs).follow(orders)
        ours.sendall(RELOAD + b"?" + RELOAD)
        async with asyncio.timeout(10):
            while len(done) < 2:
                await asyncio.sleep(0.001)
            ours.close()
            while len(done) < 3:
                await asyncio.sleep(0.001)
    assert done == ["reload", "reload", "stop"]


def test_news_come_whole() -> None:
    """However they are cut on their way; what nobody hears hurts nobody."""
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(closing(one)) for one in socket.socketpair())
        leash = Leash(theirs)
        leash.passphrase(b"correct horse\n")
        leash.ready()
        leash.cut(17)
        sent = ours.recv(1000)
        ours.close()
        leash.ready()
    heard, found = bytearray(), News()
    for octet in sent:
        heard.append(octet)
        new = read_news(heard)
        found = News(
            found.ready or new.ready, found.cut + new.cut, found.passphrase + new.passphrase
        )
    assert found == News(True, 17, b"correct horse\n")
    assert not heard
