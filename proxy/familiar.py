"""Request headers that were read before: equal octets mean the same and need no second parsing.

Plain requests alone: HTTP/1.1, a length or no body, nothing to upgrade or to wait for. Lengths may
differ. Headers are known by a hash, since they hold credentials.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from proxy.header import Seen, look_over
from proxy.memo import bounded_put
from proxy.messages import Fields

MOST: Final = 1024
LONGEST: Final = 4096
"""How many headers are remembered, and of how many octets at most."""

_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ([0-9]{1,15})(?=\r\n)")
_NOT_PLAIN: Final = frozenset({b"transfer-encoding", b"expect", b"upgrade"})
_OF_CONNECTION: Final = frozenset({"server", "client", "state", "extensions", "headers"})


class Outline(NamedTuple):
    """The header that octets begin with. `hash`: of all but the line that tells the body's length;
    `end`: where the body begins; `digits`: the length as it is told, None: there is no body."""

    hash: bytes
    end: int
    digits: bytes | None

    @property
    def length(self) -> int:
        """Octets of the body."""
        return int(self.digits or 0)


class Header(NamedTuple):
    """One that was parsed. `parts`: what of the ASGI scope follows from it; `before` and `behind`:
    the fields around that of the length, all of them where there is none."""

    target: bytes
    parts: dict[str, Any]
    seen: Seen
    before: Fields
    behind: Fields

    def fields(self, digits: bytes | None) -> Fields:
        """The fields, with another length."""
        if digits is None:
            return self.before
        return (*self.before, (b"content-length", digits), *self.behind)


class Familiar:
    """The headers that the connections of one server have brought; the oldest leave first."""

    def __init__(self) -> None:
        self._known: dict[bytes, Header] = {}

    def find(self, outline: Outline) -> Header | None:
        """The header, where it was kept."""
        return self._known.get(outline.hash)

    def keep(
        self, octets: bytes, outline: Outline, target: bytes, scope: Mapping[str, Any]
    ) -> Seen | None:
        """Remembers what the parser found, and what a pass over it finds; None: it is not plain,
        or differs with each request."""
        fields = tuple(scope["headers"])
        method = scope["method"]
        if not _agree(octets, outline, b"%b %b HTTP/1.1\r\n" % (method.encode(), target), fields):
            return None
        seen = look_over(method, target, fields)
        if seen.parent or seen.id:
            return None
        names = [name for name, _ in fields]
        place = len(fields) if outline.digits is None else names.index(b"content-length")
        parts = {name: part for name, part in scope.items() if name not in _OF_CONNECTION}
        header = Header(target, parts, seen, fields[:place], fields[place + 1 :])
        bounded_put(self._known, outline.hash, header, MOST)
        return seen


def outlined(octets: bytes) -> Outline | None:
    """The outline of what begins with a whole header that is short enough."""
    end = octets.find(_END) + 4
    if not 4 <= end <= LONGEST:
        return None
    found = _LENGTH.search(octets, 0, end)
    if found is None:
        return Outline(_hash(octets[:end]), end, None)
    rest = b"%b%b*" % (octets[: found.start()], octets[found.end() : end])
    return Outline(_hash(rest), end, found[1])


def _agree(octets: bytes, outline: Outline, first: bytes, fields: Fields) -> bool:
    """Whether the parser took just these lines for the header, and the body to be as long.

    Line ends are the parser's too: a bare LF is none to it.
    """
    lengths = [text for name, text in fields if name == b"content-length"]
    return (
        octets.startswith(first)
        and octets.count(b"\r\n", 0, outline.end) == len(fields) + 2
        and lengths == ([] if outline.digits is None else [outline.digits])
        and _NOT_PLAIN.isdisjoint(name for name, _ in fields)
    )


def _hash(octets: bytes) -> bytes:
    return blake2b(octets, digest_size=32).digest()
