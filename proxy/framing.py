"""What the parser lets through and two readers could read differently (RFC 9112), and how much of a
header is read; pure."""

from __future__ import annotations

import re
from typing import Final

from proxy.errors import BadRequest, HeaderTooLarge
from proxy.messages import Fields, values

MAX_TARGET: Final = 16 * 1024
MAX_HEADER: Final = 64 * 1024
MAX_FIELDS: Final = 100

_HOST: Final = re.compile(
    rb"(?:[A-Za-z0-9._~!$&'()*+;=%-]+|\[[A-Za-z0-9:.%_~-]+\])(?::[0-9]{0,5})?"
)
"""A name or an address, and perhaps a port (RFC 3986 section 3.2.2); a comma would be a list."""

_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
_LINE_ENDS: Final = (b" HTTP/1.1\r\n", b" HTTP/1.0\r\n")
_LINE_END: Final = 11
_SPACES: Final = 2
"""In a request line (RFC 9112 section 3); the parser takes more of them."""

_ENDS: Final = re.compile(rb"[\r\n]+")
_BLANK: Final = re.compile(rb"[\r\n]{3}(?=[A-Z])")
"""What stands before a request line that stands behind a chunked body: its methods are capitals."""


def check_framing(version: str, target: bytes, fields: Fields) -> None:
    """Raises BadRequest; `fields` with names in lower case."""
    if version not in ("1.0", "1.1"):
        raise BadRequest("Send HTTP/1.1.")
    names = [name for name, _ in fields]
    if b"transfer-encoding" in names:
        _check_coding(version, values(fields, b"transfer-encoding"))
    if b"host" in names or version == "1.1":
        _check_host(target, values(fields, b"host"))


def too_large() -> HeaderTooLarge:
    """There are more fields, or octets of them, than are read."""
    text = f"Keep the request header below {MAX_FIELDS} fields and {MAX_HEADER} octets."
    return HeaderTooLarge(text)


def has_framing(fields: Fields) -> bool:
    """Whether a body follows."""
    return not _FRAMING.isdisjoint(name for name, _ in fields)


def framing_alone(fields: Fields) -> bytes:
    """The lines that say how long the body is."""
    return b"".join(b"%s: %s\r\n" % field for field in fields if field[0] in _FRAMING)


class Portions:
    """How much of the octets that have come the parser is given at once: no request line together
    with what is before it, nor with what is behind it unless it's one of HTTP.

    The parser says neither where a request line is, nor how many spaces it has, nor whose version
    it ends with (those of RTSP and ICE pass), nor that there's none (HTTP/0.9, where it waits for
    fields all the same).
    """

    __slots__ = ("_due", "_is_chunked", "_seen", "_spaces", "in_line")

    def __init__(self) -> None:
        self.expect_line()

    def expect_line(self) -> None:
        """A request is whole: the next octets are a request line, or empty lines before it."""
        self.in_line, self._seen, self._spaces = True, b"", 0
        self._due, self._is_chunked = 0, False

    def expect_body(self, fields: Fields) -> None:
        """A header is whole; its framing is in order."""
        for name, value in fields:
            if name == b"content-length":
                self._due = int(value)
            elif name == b"transfer-encoding":
                self._is_chunked = True

    def take(self, data: bytes, at: int) -> bytes:
        """The next portion of `data`, from `at` on."""
        if self._due:
            portion = data[at : at + self._due]
            self._due -= len(portion)
            return portion
        if self._is_chunked:
            return data[at : _chunks_end(data, at)]
        if self.in_line:
            return data[at : self._line_end(data, at)]
        if data[at] in b"\r\n":  # of a line that has begun before
            return data[at : data.find(b"\n", at) + 1 or None]
        return data[at : _header_end(data, at)]

    def judge(self, portion: bytes) -> None:
        """Raises BadRequest; for a portion of a request line that the parser has begun to read."""
        line = self._seen + portion
        self._spaces += portion.count(b" ")
        if not line.endswith(b"\n"):
            self._seen = line[-_LINE_END:]
        elif not line.endswith(_LINE_ENDS):
            raise BadRequest("Send HTTP/1.1.")
        elif self._spaces != _SPACES:
            raise BadRequest("Send one space before the request target, and one behind it.")
        else:
            self.in_line = False

    def _line_end(self, data: bytes, at: int) -> int | None:
        end = data.find(b"\n", at) + 1
        if not self._seen:
            if data.endswith(_LINE_ENDS, at, end) and data.count(b" ", at, end) == _SPACES:
                self.in_line = False  # the usual: a whole line, and most often a whole header
                return _header_end(data, end - 1)
            if empty := _ENDS.match(data, at):
                return empty.end()
        return end or None


def _header_end(data: bytes, at: int) -> int | None:
    """Where a header may end in `data` at the earliest."""
    found = data.find(b"\n\r\n", at)
    return None if found < 0 else found + 3


def _chunks_end(data: bytes, at: int) -> int | None:
    """Where a chunked body may end in `data` and a request line follow. What looks so within a
    chunk does no harm."""
    if ends := _ENDS.match(data, at):
        return ends.end()
    blank = data.find(b"\n\r\n", at)
    found = _BLANK.search(data, blank) if blank >= 0 else None
    return found.end() if found else None


def _check_coding(version: str, codings: list[bytes]) -> None:
    if version == "1.0" or [one.lower() for one in codings] != [b"chunked"]:
        raise BadRequest("Send no Transfer-Encoding but one chunked, in HTTP/1.1.")


def _check_host(target: bytes, hosts: list[bytes]) -> None:
    """One, well-formed (RFC 9112 section 3.2), and the one that an absolute target names: whoever
    stands before us may have gone by the other."""
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        raise BadRequest("Send one Host field, with a name or an address.")
    if target.startswith(b"/"):
        return
    scheme, found, rest = target.partition(b"://")
    if found and b"/" not in scheme and _authority(rest).lower() != hosts[0].lower():
        raise BadRequest("Send the same host in the request target and in Host.")


def _authority(rest: bytes) -> bytes:
    return re.split(rb"[/?#]", rest, maxsplit=1)[0]
