"""The framing that is sent, and the guard of the framing that comes."""

import pytest

from proxy.errors import UpstreamError
from proxy.messages import Fields
from proxy.upstream.framing import Framing, judge, request_fields

CHUNKED = (b"transfer-encoding", b"chunked")


def length(text: bytes) -> tuple[bytes, bytes]:
    return (b"content-length", text)


@pytest.mark.parametrize(
    ("method", "octets", "framing"),
    [
        ("GET", 0, ()),
        ("DELETE", 0, ()),
        ("OPTIONS", 0, ()),
        ("POST", 0, (length(b"0"),)),
        ("PUT", 0, (length(b"0"),)),
        ("PATCH", 0, (length(b"0"),)),
        ("GET", 3, (length(b"3"),)),
        ("POST", 12, (length(b"12"),)),
        ("POST", None, (CHUNKED,)),
    ],
)
def test_a_request_is_framed_by_its_body(method: str, octets: int | None, framing: Fields) -> None:
    """RFC 9110 section 8.6: methods with a meaning for content say that theirs is empty."""
    fields = ((b"host", b"evil"), (b"x", b"1"), length(b"99"), CHUNKED, (b"connection", b"close"))
    sent = request_fields(method, "a.test:8080", fields, octets)
    assert sent == ((b"host", b"a.test:8080"), (b"x", b"1"), *framing)


@pytest.mark.parametrize(
    ("method", "status", "fields", "framing"),
    [
        ("GET", 200, (length(b"5"),), Framing(False, False)),
        ("GET", 200, (CHUNKED,), Framing(False, False)),
        ("GET", 200, ((b"transfer-encoding", b"Chunked"),), Framing(False, False)),
        ("GET", 200, (), Framing(False, True)),
        ("GET", 200, (length(b"0"),), Framing(True, False)),
        ("HEAD", 200, (length(b"5"),), Framing(True, False)),
        ("HEAD", 200, (), Framing(True, False)),
        ("GET", 204, (), Framing(True, False)),
        ("GET", 304, (length(b"5"),), Framing(True, False)),
        ("GET", 599, (length(b"5"), length(b"5")), Framing(False, False)),
    ],
)
def test_an_answer_ends_where_its_framing_says(
    method: str, status: int, fields: Fields, framing: Framing
) -> None:
    """RFC 9112 section 6.3."""
    assert judge(method, status, b"HTTP/1.1", fields) == framing


@pytest.mark.parametrize(
    ("status", "version", "fields"),
    [
        (200, b"HTTP/1.1", (length(b"5"), length(b"6"))),
        (200, b"HTTP/1.1", (length(b"5, 6"),)),
        (200, b"HTTP/1.1", (length(b"+5"),)),
        (200, b"HTTP/1.1", (length(b""),)),
        (200, b"HTTP/1.1", (length("٣".encode()),)),
        (200, b"HTTP/1.1", (length(b"1" * 20),)),
        (200, b"HTTP/1.1", (length(b"5"), CHUNKED)),
        (200, b"HTTP/1.1", (CHUNKED, CHUNKED)),
        (200, b"HTTP/1.1", ((b"transfer-encoding", b"gzip, chunked"),)),
        (200, b"HTTP/1.1", ((b"transfer-encoding", b"gzip"),)),
        (200, b"HTTP/1.0", (CHUNKED,)),
        (200, b"HTTP/1.1", (length(b"5"), (b"x", b"a\x01b"))),
        (200, b"HTTP/1.1", (length(b"5"), (b"x", b"a\x7fb"))),
        (101, b"HTTP/1.1", ()),
        (600, b"HTTP/1.1", ()),
        (999, b"HTTP/1.1", ()),
    ],
)
def test_doubtful_framing_is_refused(status: int, version: bytes, fields: Fields) -> None:
    """What two programs could read as different lengths never passes (RFC 9112 section 11)."""
    with pytest.raises(UpstreamError):
        judge("GET", status, version, fields)
