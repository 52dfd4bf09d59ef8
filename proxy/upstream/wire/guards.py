"""What may stand in a header on the wire, octet for octet (RFC 9112 sections 2 to 5). Pure.

The parser behind these guards is lenient in places, and other ones in each of its versions. What
these let through has one reading only.
"""

from __future__ import annotations

import re
from typing import Final

from proxy.destinations import Target
from proxy.errors import BadRequest, UpstreamError
from proxy.messages import Fields
from proxy.upstream.framing import framing, unframed
from proxy.upstream.wire.sentences import HEADER_TOO_LARGE, NOT_HTTP, NOT_SENDABLE

MAX_HEADER: Final = 1 << 16
"""Octets of one answer's header."""

MAX_FIELDS: Final = 200
END_OF_HEADER: Final = b"\r\n\r\n"

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_VALUE: Final = rb"[^\x00-\x08\x0a-\x1f\x7f]*+"
_FIELD_LINES: Final = rb"(?:" + _TOKEN + rb":" + _VALUE + rb"\r\n)*+\r\n"
_ANSWER: Final = re.compile(rb"HTTP/1\.[01] [0-9]{3}(?: " + _VALUE + rb")?\r\n" + _FIELD_LINES)
_REQUEST: Final = re.compile(_TOKEN + rb" [\x21-\x7e]++ HTTP/1\.1\r\n" + _FIELD_LINES)
_BARE_LINE_END: Final = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")
_START: Final = b"HTTP/1."


def check_answer(header: bytes) -> None:
    """A whole header with its empty line; raises UpstreamError. Folded lines, bare CR and LF,
    control characters and white space before a colon are not HTTP."""
    if len(header) > MAX_HEADER or header.count(b"\r\n") > MAX_FIELDS + 2:
        raise UpstreamError(HEADER_TOO_LARGE)
    if _ANSWER.fullmatch(header) is None:
        raise UpstreamError(NOT_HTTP)


def fields_of(header: bytes) -> Fields:
    """The fields of a header that `check_answer` has let through: a line each, a colon in each."""
    parts = [line.partition(b":") for line in header.split(b"\r\n")[1:-2]]
    return tuple([(name.lower(), value.strip(b" \t")) for name, _, value in parts])


def check_beginning(octets: bytes) -> None:
    """A header that is not whole yet; raises UpstreamError once it can't become one."""
    if len(octets) > MAX_HEADER:
        raise UpstreamError(HEADER_TOO_LARGE)
    if not octets.startswith(_START[: len(octets)]) or _BARE_LINE_END.search(octets):
        raise UpstreamError(NOT_HTTP)


def opening(method: str, target: Target, fields: Fields) -> bytes:
    """All of a request's header but what tells where its body ends; raises as `request_header`."""
    unended = unframed(target.authority, fields)
    return request_header(method, target.origin_form, unended)[:-2]


def ending(method: str, length: int | None) -> bytes:
    """The rest of the header; `length`: octets of the body, None for chunked."""
    fields = [name + b": " + value + b"\r\n" for name, value in framing(method, length)]
    return b"".join(fields) + b"\r\n"


def request_header(method: str, target: str, fields: Fields) -> bytes:
    """The header as it is sent; raises BadRequest for what would be read as something else.

    `Expect` is left out: it is answered by us, and no upstream is asked again.
    """
    sent = [name + b": " + value for name, value in fields if name != b"expect"]
    line = f"{method} {target} HTTP/1.1".encode()
    header = b"\r\n".join((line, *sent, b"", b""))
    # The pattern judges each line, and the count shows that no value brought lines of its own.
    if _REQUEST.fullmatch(header) is None or header.count(b"\r\n") != len(sent) + 2:
        raise BadRequest(NOT_SENDABLE)
    return header
