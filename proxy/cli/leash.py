"""What ties a child process to its parent: orders come down, news go up, and who has lost the other
end is on his own and ends."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

STOP: Final = b"s"
RELOAD: Final = b"r"
_NEWS: Final = re.compile(rb"(?P<word>[+=p])(?P<value>[0-9a-f]*)\n")


class News(NamedTuple):
    """What a child has said: that it is `ready`; how many calls were `cut`; a passphrase."""

    ready: bool = False
    cut: int = 0
    passphrase: bytes = b""


class Leash:
    """The child's end."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def ready(self) -> None:
        """It does its work now."""
        self._say(b"+")

    def cut(self, calls: int) -> None:
        """So many calls were in flight when it ended."""
        self._say(b"=%x" % calls)

    def passphrase(self, text: bytes) -> None:
        """Somebody has typed it: those who come after need not ask again."""
        self._say(b"p" + text.hex().encode())

    def follow(self, orders: Mapping[bytes, Callable[[], None]]) -> None:
        """What is done on an order; the end of the parent is the order to stop, once."""
        loop = asyncio.get_running_loop()
        self._end.setblocking(False)

        def heed() -> None:
            try:
                octets = self._end.recv(64)
            except BlockingIOError:
                return
            if not octets:
                loop.remove_reader(self._end)
            for number in octets or STOP[:1]:
                if order := orders.get(bytes((number,))):
                    order()

        loop.add_reader(self._end, heed)

    def _say(self, words: bytes) -> None:
        try:
            self._end.sendall(words + b"\n")
        except OSError:  # the parent has gone
            return


def read_news(heard: bytearray) -> News:
    """Takes every whole piece of news out of what was heard."""
    ready, cut, passphrase, end = False, 0, b"", 0
    for found in _NEWS.finditer(bytes(heard)):
        word, value = found["word"], found["value"]
        ready = ready or word == b"+"
        if word == b"=":
            cut += int(value, 16)
        elif word == b"p":
            passphrase = bytes.fromhex(value.decode())
        end = found.end()
    del heard[:end]
    return News(ready, cut, passphrase)
