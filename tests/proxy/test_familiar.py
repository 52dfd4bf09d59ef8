"""Which headers are known again, and which never."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.familiar import LONGEST, MOST, Familiar, outlined

LINES = b"Host: a\r\nX-B: c\r\n"


def scope(method: str, *fields: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"method": method, "path": "/x", "headers": list(fields), "client": ("here", 1)}


def kept(familiar: Familiar, octets: bytes, fields: list[tuple[bytes, bytes]]) -> bool:
    outline = outlined(octets)
    assert outline is not None
    return familiar.keep(octets, outline, b"/x", scope("POST", *fields)) is not None


HOST = (b"host", b"a")
B = (b"x-b", b"c")


def test_a_header_is_known_again_with_any_length() -> None:
    """The length stands where it stood, as it is told this time."""
    familiar = Familiar()
    first = b"POST /x HTTP/1.1\r\nHost: a\r\ncontent-length: 5\r\nX-B: c\r\n\r\nhello"
    assert kept(familiar, first, [HOST, (b"content-length", b"5"), B])
    outline = outlined(first.replace(b": 5", b": 17"))
    assert outline is not None
    header = familiar.find(outline)
    assert header is not None
    assert outline.length == 17
    assert header.fields(outline.digits) == (HOST, (b"content-length", b"17"), B)
    assert "client" not in header.parts


def test_a_header_without_a_length_is_another_one() -> None:
    """One says that there is a body, the other that there is none."""
    familiar = Familiar()
    bare, long = b"POST /x HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n"
    assert kept(familiar, bare, [HOST])
    outline = outlined(bare[:-4] + long)
    assert outline is not None
    assert familiar.find(outline) is None
    known = outlined(bare + b"the next request")
    assert known is not None
    header = familiar.find(known)
    assert header is not None
    assert header.fields(known.digits) == (HOST,)
    assert known.length == 0


@pytest.mark.parametrize(
    ("lines", "fields"),
    [
        (b"Transfer-Encoding: chunked\r\n", [(b"transfer-encoding", b"chunked")]),
        (b"Expect: 100-continue\r\n", [(b"expect", b"100-continue")]),
        (b"Upgrade: h2c\r\n", [(b"upgrade", b"h2c")]),
        (b"X-Request-ID: mine\r\n", [(b"x-request-id", b"mine")]),
        (b"traceparent: 00-%b-%b-01\r\n" % (b"a" * 32, b"b" * 16), None),
        (b"Content-Length:5\r\n", [(b"content-length", b"5")]),
        (b"Content-Length: 5 \r\n", [(b"content-length", b"5")]),
        (b"CONTENT-LENGTH: 5\r\n", [(b"content-length", b"5")]),
    ],
)
def test_what_is_not_plain_or_differs_each_time_is_not_kept(
    lines: bytes, fields: list[tuple[bytes, bytes]] | None
) -> None:
    """Also a length that is written so that it would be overlooked."""
    if fields is None:
        fields = [(b"traceparent", b"00-%b-%b-01" % (b"a" * 32, b"b" * 16))]
    octets = b"POST /x HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\nhello"
    assert not kept(Familiar(), octets, [HOST, *fields])


@pytest.mark.parametrize(
    "octets",
    [
        b"\r\n\r\nPOST /x HTTP/1.1\r\nHost: a\r\nX-B: c\r\n\r\n",
        b"\r\nPOST /x HTTP/1.1\r\nHost: a\r\nX-B: c\r\n\r\n",
        b"POST /x HTTP/1.0\r\nHost: a\r\nX-B: c\r\n\r\n",
        b"POST /y HTTP/1.1\r\nHost: a\r\nX-B: c\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\n\r\nX-B: c\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nX-B: c\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /x HTTP/1.1\r\nHost: a\r\nX-B: c\r\n d\r\n\r\n",
    ],
)
def test_a_header_whose_end_or_lines_the_parser_saw_elsewhere_is_not_kept(octets: bytes) -> None:
    """Where two readings differ, the parser reads it each time."""
    assert not kept(Familiar(), octets, [HOST, B])


def test_a_header_that_is_not_whole_or_too_long_has_no_outline() -> None:
    """It is the parser's."""
    assert outlined(b"GET / HTTP/1.1\r\nHost: a\r\n") is None
    assert outlined(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % (b"a" * LONGEST)) is None


def test_the_oldest_leave_first() -> None:
    """However many come."""
    familiar = Familiar()
    texts = [b"POST /x HTTP/1.1\r\nHost: %d\r\n\r\n" % number for number in range(MOST + 1)]
    for number, text in enumerate(texts):
        assert kept(familiar, text, [(b"host", b"%d" % number)])
    found = [familiar.find(outline) for text in texts if (outline := outlined(text))]
    assert [one is None for one in found] == [True] + [False] * MOST
