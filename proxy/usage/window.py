"""The beginning and the end of a body of any length, in bounded memory."""

from __future__ import annotations

HEAD = 16 * 1024
TAIL = 16 * 1024
MOST = 40 * 1024
"""Octets: what is kept of a long body's beginning and end; up to so many, a body is kept whole."""


class Window:
    """`size`: octets that are held. `whole`: nothing has been left out yet."""

    __slots__ = ("_head", "_parts", "size", "whole")

    def __init__(self) -> None:
        self._head = b""
        self._parts: list[bytes] = []
        self.size = 0
        self.whole = True

    def feed(self, octets: bytes) -> None:
        """The next octets of the body."""
        self._parts.append(octets)
        self.size += len(octets)
        if self.size > MOST:
            self._narrow()

    def ends(self) -> tuple[bytes, bytes]:
        """Head and tail; twice the same where the body is whole."""
        tail = b"".join(self._parts)
        return (tail, tail) if self.whole else (self._head, tail)

    def _narrow(self) -> None:
        rest = b"".join(self._parts)
        if self.whole:
            self.whole = False
            self._head = rest[:HEAD]
        self._parts = [rest[-TAIL:]]
        self.size = len(self._head) + len(self._parts[0])
